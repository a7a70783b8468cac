// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watchRows are the rows in which watches deliver events over gRPC.
var watchRows = []row{
	{
		name: "wire/watch/fanout", about: "one writer, and 1000 watches of its key on 100 connections to all members", unit: "events",
		systems: [2]string{"etcd", "coterie"}, goal: 1, prepare: prepareFanout,
	},
}

// watchWindow is how many puts the writer may be ahead of the slowest watch. So a system cannot win by postponing events,
// and can send several in one message.
const watchWindow = 16

// A fanout is a writer, and watches of the key that it writes. Its values count the puts, from 1.
//
// One goroutine uses it, except that the goroutines of receive use ended, their watcher, and the slot of each event that
// they get.
type fanout struct {
	*wire
	next     int64             // the next value
	slots    [watchWindow]slot // of the newest values
	watchers []*watcher
	ended    chan struct{} // gets a value when a watch ends
	stop     context.CancelFunc
}

// A slot is a put whose events are on their way. The writer sets started before it puts, and not again until full
// has a value. So a goroutine that gets one of the events may read it.
type slot struct {
	started time.Time
	missing atomic.Int64  // watches that have not got the event
	full    chan struct{} // has a value when no event is missing
}

// A watcher checks the events of one watch.
type watcher struct {
	events clientv3.WatchChan

	mu      sync.Mutex      // guards the fields below
	latency []time.Duration // of the events of the round
	failed  error
}

func prepareFanout(ctx context.Context, system, dir string, s scale) (workload, error) {
	w, err := openWire(ctx, system, dir, s, allMembers)
	if err != nil {
		return nil, err
	}
	f := &fanout{wire: w, next: 1, ended: make(chan struct{}, 1)}
	for i := range f.slots {
		f.slots[i].full = make(chan struct{}, 1)
		f.slots[i].full <- struct{}{}
	}
	watching, stop := context.WithCancel(ctx)
	f.stop = stop
	for i := range s.watchers {
		events := w.clients[i%len(w.clients)].Watch(watching, theKey, clientv3.WithCreatedNotify())
		f.watchers = append(f.watchers, &watcher{events: events})
	}
	for _, v := range f.watchers {
		if r := <-v.events; !r.Created {
			return nil, errors.Join(fmt.Errorf("a watch began with %v", r), f.close())
		}
		go f.receive(v)
	}
	return f, nil
}

func (f *fanout) close() error {
	f.stop()
	return f.wire.close()
}

// receive takes the events of a watch until it ends. Each must have the value that follows the one before.
func (f *fanout) receive(v *watcher) {
	value := int64(1)
	for r := range v.events {
		now := time.Now()
		v.mu.Lock()
		for _, e := range r.Events {
			if got := string(e.Kv.Value); got != strconv.FormatInt(value, 10) && v.failed == nil {
				v.failed = fmt.Errorf("a watch got value %s instead of %d", got, value)
			}
			s := &f.slots[value%watchWindow]
			v.latency = append(v.latency, now.Sub(s.started))
			if s.missing.Add(-1) == 0 {
				s.full <- struct{}{}
			}
			value++
		}
		v.mu.Unlock()
	}
	select {
	case f.ended <- struct{}{}:
	default:
	}
}

func (f *fanout) run(ctx context.Context, d time.Duration) (sample, error) {
	return f.measure(func() ([]time.Duration, error) {
		for until := time.Now().Add(d); time.Now().Before(until); f.next++ {
			s := &f.slots[f.next%watchWindow]
			if err := f.wait(ctx, s); err != nil {
				return nil, err
			}
			s.started = time.Now()
			s.missing.Store(int64(len(f.watchers)))
			if _, err := f.clients[0].Put(ctx, theKey, strconv.FormatInt(f.next, 10)); err != nil {
				return nil, err
			}
		}
		for i := range f.slots {
			if err := f.wait(ctx, &f.slots[i]); err != nil {
				return nil, err
			}
			f.slots[i].full <- struct{}{} // for the next round
		}
		return f.collect()
	})
}

// wait waits until every watch has got the event of a slot.
func (f *fanout) wait(ctx context.Context, s *slot) error {
	select {
	case <-s.full:
		return nil
	case <-f.ended:
		return errors.New("a watch has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// collect returns the latencies of the events since the last call, and the failures.
func (f *fanout) collect() (all []time.Duration, err error) {
	for _, v := range f.watchers {
		v.mu.Lock()
		all = append(all, v.latency...)
		v.latency = v.latency[:0]
		err = errors.Join(err, v.failed)
		v.mu.Unlock()
	}
	return all, err
}
