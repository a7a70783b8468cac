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
// goroutine of its receiver, which owns it.
type cursor struct {
	n     *Node
	ctx   context.Context
	since int64 // the node's revision when the watch was made
	watchOptions

	touched     watchhub.Watcher // in the hub after start
	next        int64            // the first revision that poll had not read when it last asked the hub
	first, last int64            // the revisions that the watch reads before it waits; none if first > last
	owed        int64            // the least revision of the answer to a request for progress; 0 if there is none
	silent      bool             // a notification of progress is due
	delivered   int              // events that the metrics do not count yet

	as        *command.As // the user that watches; nil if it is not checked
	permitted *auth.Store // the users and roles that have permitted the watch
}

// newCursor returns a watch by the user of a view. The function bounds returns the range to watch; nil leaves it
// as it is.
func (u *UserView) newCursor(
	ctx context.Context, key string, opts []WatchOption, bounds func(key, end string) (string, string),
) (*cursor, error) {
	w := new(cursor)
	return w, w.init(ctx, u, key, opts, bounds)
}

// init makes a watch by the user of a view, as newCursor does.
func (w *cursor) init(
	ctx context.Context, u *UserView, key string, opts []WatchOption, bounds func(key, end string) (string, string),
) error {
	w.n, w.ctx, w.as = u.n, ctx, u.as
	for _, opt := range opts {
		opt.watch(&w.watchOptions)
	}
	var err error
	if w.key, w.end, err = w.keys.bounds(key); err != nil {
		return err
	}
	if bounds != nil {
		w.key, w.end = bounds(w.key, w.end)
	}
	v := w.n.views.Load()
	if err := w.permit(v); err != nil {
		return err
	}
	if w.end != "" && w.end != allKeys && w.end <= w.key {
		return fmt.Errorf("%w: the range to watch is empty", ErrInvalidOption)
	}
	w.since = v.KV.Revision()
	w.next = w.from
	if w.from == 0 {
		w.next = w.since + 1
	}
	return nil
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
	if err != nil {
		return func(yield func(WatchResponse, error) bool) { yield(WatchResponse{}, err) }
	}
	return w.run
}

// run yields the responses until the loop breaks or the watch ends, and then the reason why it ends. Most watches wait
// in run. Its frame is small, because each collection of garbage reads the stacks of all watches.
func (w *cursor) run(yield func(WatchResponse, error) bool) {
	w.start(nil)
	defer w.stop()
	// The end of ctx and the end of the node wake the watch, so that it waits for one channel. A select
	// locks each of its channels, and all watches would lock those of the node.
	defer context.AfterFunc(w.ctx, w.touched.Poke)()

	var silence *time.Timer
	if w.progress {
		silence = time.NewTimer(progressInterval)
		defer silence.Stop()
	}
	for w.deliver(yield, silence) {
		<-w.touched.Wake()
	}
}

// deliver yields responses until the watch has to wait for the hub alone, and then returns true. It returns false if the
// loop breaks, and after it has yielded the reason why the watch ends.
func (w *cursor) deliver(yield func(WatchResponse, error) bool, silence *time.Timer) bool {
	if w.created {
		w.created = false
		if !yield(WatchResponse{Header: w.n.header(w.since), Created: true}, nil) {
			return false
		}
	}
	for {
		var r WatchResponse
		some, err := w.poll(&r)
		switch {
		case err != nil:
			yield(WatchResponse{}, err)
			return false
		case some:
			if w.progress {
				silence.Reset(progressInterval)
			}
			if !yield(r, nil) {
				return false
			}
			continue
		case w.behind():
			continue
		}
		w.count()
		switch {
		case w.owing():
		case w.requests == nil && !w.progress && !w.leader:
			return true
		default:
			if err := w.wait(silence); err != nil {
				yield(WatchResponse{}, err)
				return false
			}
		}
	}
}

// start begins the watch: poll reads the existing history once, and after that only the revisions that the hub reports,
// which it does once the view that has them is published. If there is a queue, the hub adds the watch to it when it
// wakes the watch.
func (w *cursor) start(queue *watchhub.Queue) {
	w.n.hub.Add(&w.touched, w.key, w.end, queue)
	w.first, w.last = w.next, w.n.views.Summary().Revision
}

func (w *cursor) stop() {
	w.n.hub.Remove(&w.touched)
	w.count()
}

// count adds the delivered events to the metrics, which all watches share. So a watch that is behind does not
// lock them for each event.
func (w *cursor) count() {
	if w.delivered > 0 {
		w.n.meter.Add(MetricWatchEvents, w.delivered)
		w.delivered = 0
	}
}

// maxScan bounds the revisions that one call of poll reads, and so the time that it takes.
const maxScan = 10_000

// poll sets r to the next response, if there is one, or returns the reason why the watch ends. It does not block. If there
// is no response, the caller calls it again if the watch is behind; otherwise the hub wakes the watch when there may be
// one.
func (w *cursor) poll(r *WatchResponse) (some bool, err error) {
	for {
		// Load the newest view each time: keeping one while the receiver is busy would keep all that it
		// has from being compacted.
		v := w.n.views.Load()
		if err := w.permit(v); err != nil {
			return false, err
		}
		if w.ctx.Err() != nil {
			return false, context.Cause(w.ctx)
		}
		if w.behind() {
			through := min(w.last, w.first+maxScan)
			if err := w.search(v, through, r); err != nil {
				return false, err
			}
			if r.Events != nil {
				w.first = r.Revision + 1
				w.delivered += len(r.Events)
				w.silent = false
				return true, nil
			}
			if w.first = through + 1; w.behind() {
				return false, nil
			}
		}
		w.next = max(w.next, w.last+1)
		reached := w.n.hub.Reached() // before Take, so that a revision up to reached is taken now
		if first, last := w.touched.Take(); last > 0 {
			w.first, w.last = max(first, w.next), last
			continue
		}
		// Every event up to reached was returned. A watch from a future revision is silent until then.
		report := w.silent && (!w.future() || reached >= w.from)
		w.silent = false
		if w.owed > 0 && w.owed <= reached {
			w.owed, report = 0, true
		}
		if report {
			*r = WatchResponse{Header: w.n.header(reached)}
			return true, nil
		}
		return false, w.n.life.Err()
	}
}

// behind reports whether the watch has more of the history to read.
func (w *cursor) behind() bool { return w.first <= w.last }

// future reports whether the watch begins later than the revision that was the next one when the watch was
// made. A watch that continues a read begins with the next one, and has nothing to wait for.
func (w *cursor) future() bool { return w.from > w.since+1 }

// wait returns when poll may return something. The end of ctx, that of the node and a change of the users and roles
// wake the watch like a change of its keys.
//
// The timer silence fires when a notification of progress is due. It is nil if the watch wants none.
func (w *cursor) wait(silence *time.Timer) error {
	var due <-chan time.Time
	if w.progress {
		due = silence.C
	}
	requests := w.requests
	if w.owed > 0 {
		requests = nil // one at a time, so that each has an answer
	}
	for {
		var lost <-chan time.Time
		var leaderChanged <-chan struct{}
		if w.leader {
			leaderChanged = w.n.lead.Changed()
			if without := w.n.lead.Vacant(); without > 0 {
				left := leaderGrace*w.n.cfg.ElectionTimeout - without
				if left <= 0 {
					return ErrNoLeader
				}
				lost = time.After(left)
			}
		}
		select {
		case <-w.touched.Wake():
		case <-due:
			w.silent = true
			silence.Reset(progressInterval)
		case _, open := <-requests:
			if !open {
				w.requests, requests = nil, nil
				continue
			}
			w.request()
		case <-lost:
			continue
		case <-leaderChanged:
			continue
		}
		return nil
	}
}

// owing reports whether poll can answer a request for progress. If the answer has to wait for a revision, the hub
// wakes the watch then.
func (w *cursor) owing() bool { return w.owed > 0 && w.n.hub.WakeAt(&w.touched, w.owed) }

// request makes poll report progress once every event up to the present revision was returned.
func (w *cursor) request() {
	if w.owed = w.n.views.Summary().Revision; w.future() {
		w.owed = max(w.owed, w.from)
	}
}

// search sets r to the result of find from w.first to a revision. Watches of the same keys share it.
func (w *cursor) search(v *state.View, last int64, r *WatchResponse) error {
	compacted := v.KV.CompactRevision()
	if w.first < compacted || w.first < 0 {
		return &CompactedError{Revision: max(compacted, 1)}
	}
	if !w.touched.Shared() {
		w.find(v, w.first, last, r)
		return nil
	}
	known := w.n.hub.findings.get(&w.scope, w.first, compacted)
	if known == nil {
		w.find(v, w.first, last, r)
		if r.Events != nil {
			w.n.hub.findings.put(&finding{scope: w.scope, first: w.first, compacted: compacted, revision: r.Revision, events: r.Events})
		}
		return nil
	}
	if known.revision <= last {
		*r = WatchResponse{Header: w.n.header(known.revision), Events: known.events}
	}
	return nil
}

// find sets r to the first revision from first to last that affects the watch, with its events. If there
// is none, r stays empty.
func (w *cursor) find(v *state.View, first, last int64, r *WatchResponse) {
	visit := func(rev int64, changes []mvcc.KeyValue) bool {
		if events := w.events(v, changes); len(events) > 0 {
			*r = WatchResponse{Header: w.n.header(rev), Events: events}
		}
		return r.Events == nil
	}
	if w.end != "" {
		v.KV.Changes(first, last, visit)
		return
	}
	// Usually the hub has reported the first revision because it changes the key. For the others, read the
	// history of the key, in which the revisions of other keys cost nothing.
	v.KV.Changes(first, first, visit)
	for r.Events == nil {
		kv, ok := v.KV.Next(w.key, first)
		if !ok || kv.ModRevision > last {
			break
		}
		first = kv.ModRevision
		v.KV.Changes(first, first, visit)
	}
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
