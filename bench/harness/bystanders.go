// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A bystanders job puts keys, with and without watches beside it. The sample is that with them.
type bystanders struct {
	*calls
	begin func(ctx context.Context) (end func(), err error)
}

// newIdleWatchers returns the job that puts new keys beside watches of other keys, each of its own.
func newIdleWatchers(ctx context.Context, b base) (Job, error) {
	puts, err := newPuts(ctx, b)
	if err != nil {
		return nil, err
	}
	return &bystanders{puts.(*calls), func(ctx context.Context) (func(), error) {
		return watchAll(ctx, &b, func(i int) string { return keyOf('w', int64(i)) }, func() {})
	}}, nil
}

// newStalledWatchers returns the job that puts the old keys again beside watches of them that never take their first event.
func newStalledWatchers(ctx context.Context, b base) (Job, error) {
	puts, err := newOverwrites(ctx, b)
	if err != nil {
		return nil, err
	}
	return &bystanders{puts.(*calls), func(ctx context.Context) (func(), error) {
		stalled, release := context.WithCancel(context.WithoutCancel(ctx))
		end, err := watchAll(ctx, &b, func(i int) string { return b.keys[i%len(b.keys)] }, func() { <-stalled.Done() })
		return func() {
			release()
			if err == nil {
				end()
			}
		}, err
	}}, nil
}

// watchTimeout is how long all watches of a workload may take to begin.
const watchTimeout = time.Minute

// watchAll begins watches, spread over all members. The function event is called for each event.
func watchAll(ctx context.Context, b *base, key func(i int) string, event func()) (end func(), err error) {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	var ended sync.WaitGroup
	end = func() {
		stop()
		ended.Wait()
	}
	created, failed := make(chan struct{}, b.Watchers), make(chan error, b.Watchers)
	for i := range b.Watchers {
		w, err := as[Watcher](b.sys.Stores[i%len(b.sys.Stores)])
		if err != nil {
			end()
			return nil, err
		}
		ended.Go(func() {
			if err := w.Watch(watching, key(i), func() { created <- struct{}{} }, func(int64) { event() }); err != nil {
				failed <- err // a watch that does not read may end when its history is compacted
			}
		})
	}
	timeout := time.After(watchTimeout)
	for range b.Watchers {
		select {
		case <-created:
		case err := <-failed:
			end()
			return nil, err
		case <-timeout:
			end()
			return nil, errors.New("the watches have not begun")
		}
	}
	return end, nil
}

// Run makes calls without the watches before and after those with them, so that a trend does not count. Each of the three
// parts takes d, because a collection of garbage with many watches is rare and long.
func (b *bystanders) Run(ctx context.Context, d time.Duration, m Meter) (Sample, error) {
	before, err := b.calls.Run(ctx, d, m)
	if err != nil {
		return before, err
	}
	end, err := b.begin(ctx)
	if err != nil {
		return before, err
	}
	s, err := b.calls.Run(ctx, d, m)
	end()
	if err != nil {
		return s, err
	}
	later, err := b.calls.Run(ctx, d, m)
	s.Figures = compared(sum(before, later), s)
	return s, err
}
