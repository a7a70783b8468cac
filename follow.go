// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
)

// A PrefixState is everything that is stored under a prefix at one revision. [Follow] yields it.
type PrefixState struct {
	Revision int64 `json:"revision"`
	// KVs has the key-values by key. The receiver owns it, and may keep and change it.
	KVs map[string]KeyValue `json:"kvs"`
	// Events are the changes since the PrefixState before, with PrevKV where the key existed. The first
	// PrefixState has none. If the loop was so slow that history was compacted meanwhile, they are the
	// difference between the two states, in the order of keys.
	Events []Event `json:"events"`
}

// Follow yields the whole state of a prefix, even if it is empty, and yields it again after each revision that
// changes it: one loop keeps, for example, shared configuration current. It does not fall far behind: if
// history was compacted while the loop was busy, Follow reads the whole state again by itself. Each PrefixState
// is a copy, at a cost proportional to the size of the prefix. For a prefix with many thousands of keys, use
// [Node.Watch] or package mirror. The sequence may be used once. It ends only with ctx or the node, with a pair
// that has the error.
//
// Errors: ctx's cause; ErrClosed.
func Follow(ctx context.Context, n *Node, prefix string) iter.Seq2[PrefixState, error] {
	return func(yield func(PrefixState, error) bool) {
		f := follower{n: n, prefix: prefix}
		err := f.run(ctx, func(events []Event) bool {
			return yield(PrefixState{Revision: f.rev, KVs: maps.Clone(f.kvs), Events: events}, nil)
		})
		if err != nil {
			yield(PrefixState{}, err)
		}
	}
}

// A follower holds the state of a prefix for one Follow.
type follower struct {
	n      *Node
	prefix string
	rev    int64               // of kvs
	kvs    map[string]KeyValue // nil before the first read
}

// run calls yield for the present state and after each change. It returns nil when yield returned false.
func (f *follower) run(ctx context.Context, yield func([]Event) bool) error {
	for {
		first := f.kvs == nil
		events, err := f.read(ctx)
		if err != nil {
			return err
		}
		if (first || len(events) > 0) && !yield(events) {
			return nil
		}
		for r, err := range f.n.Watch(ctx, f.prefix, WithPrefix(), WithRevision(f.rev+1)) {
			if errors.Is(err, ErrCompacted) {
				break // read everything again
			}
			if err != nil {
				return err
			}
			if !yield(f.apply(r)) {
				return nil
			}
		}
	}
}

// read reads the whole state and returns its differences from the state before.
func (f *follower) read(ctx context.Context) (events []Event, err error) {
	r, err := f.n.Get(ctx, f.prefix, WithPrefix())
	if err != nil {
		return nil, err
	}
	old := f.kvs
	f.rev, f.kvs = r.Revision, make(map[string]KeyValue, len(r.KVs))
	for _, kv := range r.KVs {
		f.kvs[kv.Key] = kv
	}
	if old == nil {
		return nil, nil
	}
	for _, kv := range r.KVs {
		if prev, ok := old[kv.Key]; !ok || prev.ModRevision != kv.ModRevision {
			events = append(events, Event{Type: EventPut, KV: kv, PrevKV: lookup(old, kv.Key)})
		}
	}
	for key := range old {
		if _, ok := f.kvs[key]; !ok {
			events = append(events, Event{Type: EventDelete, KV: KeyValue{Key: key, ModRevision: f.rev}, PrevKV: lookup(old, key)})
		}
	}
	slices.SortFunc(events, func(a, b Event) int { return strings.Compare(a.KV.Key, b.KV.Key) })
	return events, nil
}

// apply brings the state to the revision of a response. It returns the events with PrevKV.
func (f *follower) apply(r WatchResponse) []Event {
	f.rev = r.Revision
	events := slices.Clone(r.Events) // other watches share those of the response
	for i := range events {
		e := &events[i]
		e.PrevKV = lookup(f.kvs, e.KV.Key)
		if e.Type == EventDelete {
			delete(f.kvs, e.KV.Key)
		} else {
			f.kvs[e.KV.Key] = e.KV
		}
	}
	return events
}

func lookup(kvs map[string]KeyValue, key string) *KeyValue {
	if kv, ok := kvs[key]; ok {
		return &kv
	}
	return nil
}
