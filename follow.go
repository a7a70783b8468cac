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

// A PrefixState is all that is stored under a prefix, at a revision.
type PrefixState struct {
	Revision int64
	// KVs has the key-values by their keys. It is the receiver's, to keep and to change.
	KVs map[string]KeyValue
	// Events are what changed since the PrefixState before, with PrevKV where there was one; none in the
	// first. After a compaction that was missed they are the difference, in the order of keys, at
	// this revision.
	Events []Event
}

// Follow yields the whole state of a prefix, also if it is empty, and then again after each
// revision that changes it: shared configuration, kept current in one loop. It is never behind for
// long, and when history was compacted under a slow loop it reads the state anew by itself. Each
// PrefixState is a copy, at a cost in proportion to the prefix: for one with many thousands of keys see
// Watch. The sequence may be used once; it ends only with ctx or the node, with a pair whose error
// says which.
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

type follower struct {
	n      *Node
	prefix string
	rev    int64
	kvs    map[string]KeyValue // nil before the first read
}

// run returns nil when yield returned false.
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
				break // read it all again
			}
			if err != nil {
				return err
			}
			f.apply(r)
			if !yield(r.Events) {
				return nil
			}
		}
	}
}

// read reads the state and returns how it differs from what was known.
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

// apply brings the state to the revision of a response, and completes its events.
func (f *follower) apply(r WatchResponse) {
	f.rev = r.Revision
	for i := range r.Events {
		e := &r.Events[i]
		e.PrevKV = lookup(f.kvs, e.KV.Key)
		if e.Type == EventDelete {
			delete(f.kvs, e.KV.Key)
		} else {
			f.kvs[e.KV.Key] = e.KV
		}
	}
}

func lookup(kvs map[string]KeyValue, key string) *KeyValue {
	if kv, ok := kvs[key]; ok {
		return &kv
	}
	return nil
}
