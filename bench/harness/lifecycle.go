// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"runtime/debug"
	"time"
)

// A whole is a job with a run that takes as long as it needs. It adds the durations of its operations to h.
type whole struct {
	base
	run func(ctx context.Context, b *base, h *histogram) (figures map[string]float64, err error)
}

func wholly(run func(context.Context, *base, *histogram) (map[string]float64, error)) func(context.Context, base) (Job, error) {
	return func(_ context.Context, b base) (Job, error) { return &whole{b, run}, nil }
}

func (w *whole) Run(ctx context.Context, _ time.Duration, m Meter) (Sample, error) {
	var h histogram
	var figures map[string]float64
	s, err := m.measure(&h, func() (err error) {
		figures, err = w.run(ctx, &w.base, &h)
		return err
	})
	s.Figures = figures
	return s, err
}

func (w *whole) Close() error { return nil }

var errNotSupported = errors.New("the system does not support the workload")

// crashTimeout is how long writes may fail after the crash of a leader.
const crashTimeout = time.Minute

// failOver crashes the leader and measures the time until another member has put a key. Then it repairs the cluster.
func failOver(ctx context.Context, b *base, h *histogram) (map[string]float64, error) {
	if b.sys.Crash == nil {
		return nil, errNotSupported
	}
	if err := b.sys.Stores[0].Put(ctx, "before", "crash"); err != nil {
		return nil, err
	}
	crashed := time.Now()
	repair, err := b.sys.Crash(ctx)
	if err != nil {
		return nil, err
	}
	if err := putSoon(ctx, b.sys.Stores[0]); err != nil {
		return nil, err
	}
	h.add(0, time.Since(crashed))
	if err := b.sys.Stores[0].Get(ctx, "before", "crash", false); err != nil {
		return nil, err
	}
	return nil, repair(ctx)
}

// attemptEvery is the time between two attempts of putSoon.
const attemptEvery = 10 * time.Millisecond

// putSoon returns when one of its puts has succeeded. It begins another one every 10 ms, because a put that is sent to the
// crashed leader can be lost, and then etcd lets the caller wait for 7 s.
func putSoon(ctx context.Context, s Store) error {
	ctx, cancel := context.WithTimeout(ctx, crashTimeout)
	defer cancel()
	outcomes := make(chan error, crashTimeout/attemptEvery)
	attempts := time.NewTicker(attemptEvery)
	defer attempts.Stop()
	for {
		go func() { outcomes <- s.Put(ctx, "after", "crash") }()
		for due := false; !due; {
			select {
			case err := <-outcomes:
				if err == nil {
					return nil
				}
			case <-attempts.C:
				due = true
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// restart closes the member that leads, opens it again, and measures the time until it has read a key.
func restart(ctx context.Context, b *base, h *histogram) (map[string]float64, error) {
	if b.sys.Stop == nil {
		return nil, errNotSupported
	}
	if err := b.sys.Stop(ctx); err != nil {
		return nil, err
	}
	debug.FreeOSMemory() // the process of a member that starts has no garbage
	n := int64(len(b.keys) - 1)
	started := time.Now()
	if err := b.sys.Start(ctx); err != nil {
		return nil, err
	}
	err := b.sys.Stores[0].Get(ctx, b.keys[n], b.values.of(n), b.Local)
	h.add(0, time.Since(started))
	return nil, err
}

// open opens another cluster and measures the time until it has put a key.
func open(ctx context.Context, b *base, h *histogram) (map[string]float64, error) {
	if b.sys.Fresh == nil {
		return nil, errNotSupported
	}
	began := time.Now()
	s, end, err := b.sys.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	err = s.Put(ctx, "first", "value")
	h.add(0, time.Since(began))
	return nil, errors.Join(err, end())
}
