// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"time"
)

// An operation is a call that callers repeat. The numbers n of the calls of a job are different. All callers together
// count from 0, but one may be ahead of another.
type operation func(ctx context.Context, s Store, n int64) error

// calls are callers that repeat an operation: the job of most workloads.
type calls struct {
	base
	call operation
	// check checks the outcome of the calls since the last check. It may be nil.
	check func(ctx context.Context, c *calls) error
	// untimed is the number of calls that follow each timed one and are measured together. It is 0 except for calls
	// that take hardly longer than two looks at the clock. A load with a rate times every call.
	untimed int
	made    []int64 // calls of each caller
	close   func() error
}

// untimedLocalReads is the number of untimed calls after each timed one of workloads with local reads.
const untimedLocalReads = 15

// newCalls returns a job that repeats an operation.
func newCalls(b base, o operation, check func(context.Context, *calls) error) *calls {
	return &calls{base: b, call: o, check: check, made: make([]int64, b.Callers)}
}

func (c *calls) Run(ctx context.Context, d time.Duration, m Meter) (Sample, error) {
	var h histogram
	s, err := m.measure(&h, func() error { return c.callAll(ctx, d, &h) })
	if err == nil && c.check != nil {
		err = c.check(ctx, c)
	}
	return s, err
}

func (c *calls) Close() error {
	if c.close == nil {
		return nil
	}
	return c.close()
}

// callAll makes calls, all callers at once, for d or until they have made the number of calls that the load asks for. The
// end of a call is the beginning of the next one, so that a call costs one look at the clock.
func (c *calls) callAll(ctx context.Context, d time.Duration, h *histogram) error {
	stores := c.place()
	start := time.Now()
	return goroutines(c.Callers).each(func(i int) error {
		s, made := stores[i%len(stores)], c.made[i]
		defer func() { c.made[i] = made }()
		last := made + int64((c.Ops+c.Callers-1-i)/c.Callers)
		enough := func() bool { return c.Ops > 0 && made >= last }
		call := func() error {
			n := made*int64(c.Callers) + int64(i)
			made++
			return c.call(ctx, s, n)
		}
		interval := time.Duration(0) // between two calls of this caller, with a rate
		if c.Rate > 0 {
			interval = time.Second * time.Duration(c.Callers) / time.Duration(c.Rate)
		}
		// Times are durations since start, because time.Since reads one clock and time.Now reads two.
		begin := interval * time.Duration(i) / time.Duration(c.Callers)
		for !enough() && (c.Ops > 0 || begin < d) {
			if c.Rate > 0 {
				time.Sleep(begin - time.Since(start))
			}
			if err := call(); err != nil {
				return err
			}
			end := time.Since(start)
			h.add(i, end-begin)
			if c.Rate > 0 {
				begin += interval // the call is due then, even if this one took longer
				if end > 2*d {
					return nil // the system cannot keep up
				}
				continue
			}
			if begin = end; c.untimed == 0 {
				continue
			}
			n := 0
			for ; n < c.untimed && !enough(); n++ {
				if err := call(); err != nil {
					return err
				}
			}
			begin = time.Since(start)
			h.addTogether(i, n, begin-end)
		}
		return nil
	})
}
