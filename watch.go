// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/state"
)

// An EventType is what happened to a key.
type EventType uint8

// The types of events. An expired lease deletes its keys like any other deletion.
const (
	EventPut EventType = iota
	EventDelete
)

func (t EventType) String() string {
	if t == EventDelete {
		return "DELETE"
	}
	return "PUT"
}

// An Event is one change of one key.
type Event struct {
	Type EventType
	// KV is the key-value after the change; of a deletion, only Key and ModRevision are set.
	KV KeyValue
	// PrevKV is the key-value before it, with WithPrevKV; nil for a key that was created, or whose
	// previous revision has been compacted.
	PrevKV *KeyValue
}

// IsCreate reports whether the event created the key.
func (e Event) IsCreate() bool { return e.Type == EventPut && e.KV.CreateRevision == e.KV.ModRevision }

// IsModify reports whether the event changed a key that existed.
func (e Event) IsModify() bool { return e.Type == EventPut && !e.IsCreate() }

// A WatchResponse carries the events of one revision, Header.Revision, all of them and in the order
// in which they were made. Without events it tells progress: every event up to Header.Revision has
// been seen.
type WatchResponse struct {
	Header
	Created bool // the first response, with WithCreatedNotify
	Events  []Event
}

// A WatchResult is what [Node.WatchChan] sends: a response, or the error that ended the watch.
type WatchResult struct {
	WatchResponse
	Err error
}

type watchOptions struct {
	keys     keyRange
	from     int64
	prevKV   bool
	progress bool
	created  bool
	noPut    bool
	noDelete bool
	leader   bool
}

// progressInterval is how long a watch with WithProgressNotify may be silent; etcd's default.
const progressInterval = 10 * time.Minute

// Watch yields the changes of a key or, with a range option, of keys, from those after this node's
// applied revision at the time of the call, or from the revision of [WithRevision]. Every change is
// yielded once, in order, each revision whole. The loop runs on the caller's goroutine and reads
// the store's history, so a slow one delays nobody and loses nothing, unless compaction overtakes
// it: then it ends with a *CompactedError that tells where to resume. The sequence may be used
// once. It ends with a pair whose error is not nil, unless the loop breaks: ctx's cause, ErrClosed,
// *CompactedError, ErrNoLeader with [WithRequireLeader], or ErrEmptyKey or ErrInvalidOption at
// once.
//
// Unlike clientv3, no response spans revisions, and the error comes in the loop's header.
func (n *Node) Watch(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[WatchResponse, error] {
	w, err := n.newWatch(ctx, key, opts)
	return func(yield func(WatchResponse, error) bool) {
		if err == nil {
			err = w.run(yield)
		}
		if err != nil {
			yield(WatchResponse{}, err)
		}
	}
}

// WatchChan is Watch for a select statement. The last value carries the error that ended the watch;
// then the channel is closed. A goroutine serves it until ctx ends or the node closes, whether or
// not anybody receives.
func (n *Node) WatchChan(ctx context.Context, key string, opts ...WatchOption) <-chan WatchResult {
	results := make(chan WatchResult, 1)
	seq, ended := n.Watch(ctx, key, opts...), ctx.Done()
	go func() {
		defer close(results)
		for r, err := range seq {
			select {
			case results <- WatchResult{r, err}:
				continue
			case <-ended:
			case <-n.life.Done():
			}
			if err != nil {
				// Nobody may ever receive: the reason takes the place of what was not received.
				select {
				case <-results:
				default:
				}
				results <- WatchResult{Err: err}
			}
		}
	}()
	return results
}

// A cursor is where a watch is in the history. It holds no queue: see run.
type cursor struct {
	n        *Node
	ctx      context.Context
	key, end string
	next     int64 // the first revision not yet looked at
	since    int64 // the revision at which the watch was made
	watchOptions
}

func (n *Node) newWatch(ctx context.Context, key string, opts []WatchOption) (*cursor, error) {
	w := &cursor{n: n, ctx: ctx}
	for _, opt := range opts {
		opt.watch(&w.watchOptions)
	}
	var err error
	if w.key, w.end, err = w.keys.bounds(key); err != nil {
		return nil, err
	}
	if w.end != "" && w.end != allKeys && w.end <= w.key {
		return nil, fmt.Errorf("%w: the range to watch is empty", ErrInvalidOption)
	}
	w.since = n.views.Load().KV.Revision()
	w.next = w.from
	if w.from == 0 {
		w.next = w.since + 1
	}
	return w, nil
}

// run yields until the loop breaks (nil) or the watch ends (the reason). The hub remembers, from
// the moment the watch is added to it, which revisions touch its keys; so the watch looks at what
// was there before once, and then only at what it is told of. It is told of a revision after the
// view that has it was published.
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
			w.n.count(MetricWatchEvents, len(r.Events))
		}
		return yield(r, nil)
	}

	first, last := w.next, w.n.views.Load().KV.Revision()
	for {
		for first = max(first, w.next); first <= last; {
			// Each time in the newest view: one that was held while the caller is busy would hold
			// all it has from being compacted.
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
		silent, err := w.wait(touched.Wake(), silence.C)
		if err != nil {
			return err
		}
		told := w.n.hub.Reached()
		if first, last = touched.Take(); last > 0 {
			continue
		}
		// Nothing up to told touches the watch, for that was read before the hub was asked. A watch
		// from a future revision is silent until then.
		if silent && (w.from <= w.since+1 || told >= w.from) {
			if !send(WatchResponse{Header: w.n.header(told)}) {
				return nil
			}
		}
	}
}

// wait returns when the watch was told of something (false), or was silent for long (true), or with
// the reason why it ends.
func (w *cursor) wait(told <-chan struct{}, silence <-chan time.Time) (bool, error) {
	for {
		var lost <-chan time.Time
		var leaderChanged <-chan struct{}
		if w.leader {
			leaderChanged = w.n.lead.Changed()
			if without := w.n.lead.Vacant(); without > 0 {
				left := leaderGrace*w.n.cfg.ElectionTimeout - without
				if left <= 0 {
					return false, ErrNoLeader
				}
				lost = time.After(left)
			}
		}
		select {
		case <-told:
			return false, nil
		case <-silence:
			return true, nil
		case <-lost:
		case <-leaderChanged:
		case <-w.ctx.Done():
			return false, context.Cause(w.ctx)
		case <-w.n.life.Done():
			return false, w.n.life.Err()
		}
	}
}

// find returns the first revision from first to last that touches the watch, with its events, which
// are nil if there is none.
func (w *cursor) find(v *state.View, first, last int64) (r WatchResponse, err error) {
	if err := context.Cause(w.ctx); err != nil {
		return r, err
	}
	if first < v.KV.CompactRevision() || first < 0 {
		return r, &CompactedError{Revision: max(v.KV.CompactRevision(), 1)}
	}
	looked := 0
	visit := func(rev int64, changes []*mvcc.KeyValue) bool {
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
	// A key knows its own revisions, so those of other keys cost nothing.
	for r.Events == nil {
		kv := v.KV.Next(w.key, first-1)
		if kv == nil || kv.ModRevision > last {
			break
		}
		v.KV.Changes(kv.ModRevision, kv.ModRevision, visit)
		first = kv.ModRevision + 1
	}
	return r, nil
}

func (w *cursor) events(v *state.View, changes []*mvcc.KeyValue) []Event {
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
			if prev := v.KV.Previous(kv); prev != nil {
				kv := keyValue(prev)
				e.PrevKV = &kv
			}
		}
		events = append(events, e)
	}
	return events
}
