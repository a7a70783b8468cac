// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/watchhub"
)

// A cursor is the position of a watch in the history. It has no queue: it reads the history on the
// goroutine of the loop, which owns it.
type cursor struct {
	n        *Node
	ctx      context.Context
	key, end string
	next     int64 // the first revision that was not read yet
	since    int64 // the node's revision when the watch was made
	owed     int64 // the least revision of the answer to a request for progress; 0 if there is none
	watchOptions

	as        *command.As // the user that watches; nil if it is not checked
	permitted *auth.Store // the users and roles that have permitted the watch
}

// newCursor returns a watch by the user of a view. The function bounds returns the range to watch; nil leaves it
// as it is.
func (u *UserView) newCursor(
	ctx context.Context, key string, opts []WatchOption, bounds func(key, end string) (string, string),
) (*cursor, error) {
	w := &cursor{n: u.n, ctx: ctx, as: u.as}
	for _, opt := range opts {
		opt.watch(&w.watchOptions)
	}
	var err error
	if w.key, w.end, err = w.keys.bounds(key); err != nil {
		return nil, err
	}
	if bounds != nil {
		w.key, w.end = bounds(w.key, w.end)
	}
	v := w.n.views.Load()
	if err := w.permit(v); err != nil {
		return nil, err
	}
	if w.end != "" && w.end != allKeys && w.end <= w.key {
		return nil, fmt.Errorf("%w: the range to watch is empty", ErrInvalidOption)
	}
	w.since = v.KV.Revision()
	w.next = w.from
	if w.from == 0 {
		w.next = w.since + 1
	}
	return w, nil
}

// permit returns the error of a user that may not watch the range in the state of a view, or nil. A watch ends when its user loses the
// permission. The revision of the user matters only when the watch is made.
func (w *cursor) permit(v *state.View) error {
	if w.as == nil || v.Auth == w.permitted {
		return nil
	}
	as := *w.as
	if w.permitted != nil {
		as.Revision = 0
	}
	if err := codeError(v.Auth.Guard(&as).Range(command.Read, w.key, w.end)); err != nil {
		return err
	}
	w.permitted = v.Auth
	return nil
}

// sequence is the watch as an iterator. If err is not nil, the watch has not begun, and w may be nil.
func (w *cursor) sequence(err error) iter.Seq2[WatchResponse, error] {
	return func(yield func(WatchResponse, error) bool) {
		if err == nil {
			err = w.run(yield)
		}
		if err != nil {
			yield(WatchResponse{}, err)
		}
	}
}

// run yields until the loop breaks, and then returns nil, or until the watch ends, and then returns the
// reason. The watch scans the existing history once. After that it reads only the revisions that the hub
// reports, which it does once the view that has them is published.
func (w *cursor) run(yield func(WatchResponse, error) bool) error {
	touched := w.n.hub.Add(w.key, w.end)
	defer w.n.hub.Remove(touched)

	if w.created && !yield(WatchResponse{Header: w.n.header(w.since), Created: true}, nil) {
		return nil
	}
	silence := time.NewTimer(progressInterval)
	defer silence.Stop()
	if !w.progress {
		silence.Stop()
	}
	send := func(r WatchResponse) bool {
		if w.progress {
			silence.Reset(progressInterval)
		}
		if len(r.Events) > 0 {
			w.n.meter.Add(MetricWatchEvents, len(r.Events))
		}
		return yield(r, nil)
	}

	first, last := w.next, w.n.views.Load().KV.Revision()
	for {
		for first = max(first, w.next); first <= last; {
			// Load the newest view each time: keeping one while the caller is busy would keep all that it
			// has from being compacted.
			r, err := w.find(w.n.views.Load(), first, last)
			if err != nil {
				return err
			}
			if r.Events == nil {
				break
			}
			if !send(r) {
				return nil
			}
			first = r.Revision + 1
		}
		w.next = max(w.next, last+1)
		why, err := w.wait(touched, silence.C)
		if err != nil {
			return err
		}
		if why == silent {
			silence.Reset(progressInterval) // send does it, too, but may not be called
		}
		reached := w.n.hub.Reached() // before Take, so that a revision up to reached is taken now
		if first, last = touched.Take(); last > 0 {
			continue
		}
		// Every event up to reached was yielded. A watch from a future revision is silent until then.
		answers := w.owed > 0 && w.owed <= reached
		if answers {
			w.owed = 0
		}
		if answers || why == silent && (!w.future() || reached >= w.from) {
			if !send(WatchResponse{Header: w.n.header(reached)}) {
				return nil
			}
		}
	}
}

// future reports whether the watch begins later than with the next revision of the node when it was made. A
// watch that continues a read begins with the next one, and has nothing to wait for.
func (w *cursor) future() bool { return w.from > w.since+1 }

// A wakeup is the reason why wait returns.
type wakeup uint8

const (
	notified  wakeup = iota // the hub has reported something
	silent                  // nothing was yielded for progressInterval
	requested               // a request for progress was received
)

// wait returns when there may be something to yield, or with the reason why the watch ends.
func (w *cursor) wait(touched *watchhub.Watcher, silence <-chan time.Time) (wakeup, error) {
	if w.owed > 0 && w.n.hub.WakeAt(touched, w.owed) {
		return notified, nil
	}
	requests := w.requests
	if w.owed > 0 {
		requests = nil // one at a time, so that each has an answer
	}
	for {
		var authChanged <-chan struct{}
		if w.as != nil {
			authChanged = w.n.views.authChanged.Wait()
			if err := w.permit(w.n.views.Load()); err != nil {
				return 0, err
			}
		}
		var lost <-chan time.Time
		var leaderChanged <-chan struct{}
		if w.leader {
			leaderChanged = w.n.lead.Changed()
			if without := w.n.lead.Vacant(); without > 0 {
				left := leaderGrace*w.n.cfg.ElectionTimeout - without
				if left <= 0 {
					return 0, ErrNoLeader
				}
				lost = time.After(left)
			}
		}
		select {
		case <-touched.Wake():
			return notified, nil
		case <-silence:
			return silent, nil
		case _, open := <-requests:
			if !open {
				w.requests, requests = nil, nil
				continue
			}
			if w.owed = w.n.views.Load().KV.Revision(); w.future() {
				w.owed = max(w.owed, w.from)
			}
			return requested, nil
		case <-lost:
		case <-leaderChanged:
		case <-authChanged:
		case <-w.ctx.Done():
			return 0, context.Cause(w.ctx)
		case <-w.n.life.Done():
			return 0, w.n.life.Err()
		}
	}
}

// find returns the first revision from first to last that affects the watch, with its events. If there
// is none, the events are nil.
func (w *cursor) find(v *state.View, first, last int64) (r WatchResponse, err error) {
	if err := context.Cause(w.ctx); err != nil {
		return r, err
	}
	if err := w.permit(v); err != nil {
		return r, err
	}
	if first < v.KV.CompactRevision() || first < 0 {
		return r, &CompactedError{Revision: max(v.KV.CompactRevision(), 1)}
	}
	looked := 0
	visit := func(rev int64, changes []mvcc.KeyValue) bool {
		if looked++; looked%1024 == 0 && w.ctx.Err() != nil {
			err = context.Cause(w.ctx)
			return false
		}
		if events := w.events(v, changes); len(events) > 0 {
			r = WatchResponse{Header: w.n.header(rev), Events: events}
		}
		return r.Events == nil
	}
	if w.end != "" {
		v.KV.Changes(first, last, visit)
		return r, err
	}
	// A single key has a history of its own, so revisions of other keys cost nothing.
	for r.Events == nil {
		kv, ok := v.KV.Next(w.key, first-1)
		if !ok || kv.ModRevision > last {
			break
		}
		v.KV.Changes(kv.ModRevision, kv.ModRevision, visit)
		first = kv.ModRevision + 1
	}
	return r, nil
}

func (w *cursor) events(v *state.View, changes []mvcc.KeyValue) []Event {
	var events []Event
	for _, kv := range changes {
		if !mvcc.Contains(w.key, w.end, kv.Key) || kv.Deleted() && w.noDelete || !kv.Deleted() && w.noPut {
			continue
		}
		e := Event{KV: keyValue(kv)}
		if kv.Deleted() {
			e.Type = EventDelete
		}
		if w.prevKV {
			if prev, ok := v.KV.Previous(kv); ok {
				kv := keyValue(prev)
				e.PrevKV = &kv
			}
		}
		events = append(events, e)
	}
	return events
}
