// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// fanoutWindow is how many puts the writer may be ahead of the slowest watch. So a system cannot win by postponing events,
// and can send several in one message.
const fanoutWindow = 16

// idlePause is the time between two puts of a workload that measures an idle system.
const idlePause = 5 * time.Millisecond

// fanoutKey is the key that all watches of a fanout have.
const fanoutKey = "watched!"

// A fanout is a writer, and watches of the key that it writes, on the members of Place. Its values count the puts, from 1.
// An operation is an event, and its latency begins before the put.
//
// One goroutine uses it, except that the goroutines of the watches use hist, ended, and the slot of each event that they get.
type fanout struct {
	base
	window   int
	pause    time.Duration
	next     int64 // the next value
	slots    []slot
	hist     atomic.Pointer[histogram] // of the run
	ended    chan error                // gets the failure of a watch
	stop     context.CancelFunc
	watching sync.WaitGroup
}

// A slot is a put with events in flight. The writer sets started before it puts, and not again until full has a
// value. So a goroutine that gets one of the events may read it.
type slot struct {
	started time.Time
	missing atomic.Int64  // watches that have not got the event
	full    chan struct{} // has a value when no event is missing
}

// newFanout returns the job that writes as fast as the watches get the events.
func newFanout(ctx context.Context, b base) (Job, error) {
	return startFanout(ctx, b, fanoutWindow, 0)
}

// newEvents returns the job that writes only now and then.
func newEvents(ctx context.Context, b base) (Job, error) {
	return startFanout(ctx, b, 1, idlePause)
}

func startFanout(ctx context.Context, b base, window int, pause time.Duration) (Job, error) {
	b.Watchers = max(b.Watchers, 1)
	f := &fanout{base: b, window: window, pause: pause, next: 1, slots: make([]slot, window), ended: make(chan error, 1)}
	f.hist.Store(new(histogram))
	for i := range f.slots {
		f.slots[i].full = make(chan struct{}, 1)
		f.slots[i].full <- struct{}{}
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	f.stop = stop
	created := make(chan struct{}, b.Watchers)
	stores := b.place()
	for i := range b.Watchers {
		w, err := as[Watcher](stores[i%len(stores)])
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.watching.Go(func() { f.receive(watching, w, i, func() { created <- struct{}{} }) })
	}
	for range b.Watchers {
		select {
		case <-created:
		case err := <-f.ended:
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

func (f *fanout) Close() error {
	f.stop()
	f.watching.Wait()
	return nil
}

// receive takes the events of a watch until it ends. Each must have the value that follows the one before.
func (f *fanout) receive(ctx context.Context, w Watcher, watch int, created func()) {
	want := int64(1)
	var wrong error
	err := w.Watch(ctx, fanoutKey, created, func(n int64) {
		now := time.Now()
		if n != want {
			wrong = fmt.Errorf("a watch got value %d instead of %d", n, want)
			f.fail(wrong)
			return
		}
		want++
		s := &f.slots[n%int64(f.window)]
		f.hist.Load().add(watch, now.Sub(s.started))
		if s.missing.Add(-1) == 0 {
			s.full <- struct{}{}
		}
	})
	if ctx.Err() == nil {
		f.fail(fmt.Errorf("a watch has ended: %w", errors.Join(wrong, err)))
	}
}

func (f *fanout) fail(err error) {
	select {
	case f.ended <- err:
	default: // another one has failed before
	}
}

func (f *fanout) Run(ctx context.Context, d time.Duration, m Meter) (Sample, error) {
	var h histogram
	f.hist.Store(&h)
	return m.measure(&h, func() error {
		for until := time.Now().Add(d); time.Now().Before(until); f.next++ {
			s := &f.slots[f.next%int64(f.window)]
			if err := f.wait(ctx, s); err != nil {
				return err
			}
			time.Sleep(f.pause)
			value := Numbered(f.next, f.values.size)
			s.missing.Store(int64(f.Watchers))
			s.started = time.Now()
			if err := f.sys.Stores[0].Put(ctx, fanoutKey, value); err != nil {
				return err
			}
		}
		for i := range f.slots {
			if err := f.wait(ctx, &f.slots[i]); err != nil {
				return err
			}
			f.slots[i].full <- struct{}{} // for the next run
		}
		return nil
	})
}

// wait waits until every watch has got the event of a slot.
func (f *fanout) wait(ctx context.Context, s *slot) error {
	select {
	case <-s.full:
		return nil
	case err := <-f.ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
