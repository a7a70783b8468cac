// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coterie-kv/coterie"
)

// An Index is a typed copy of a prefix, kept current. Its methods may be called concurrently;
// lookups take no lock and copy nothing.
type Index[T any] struct {
	n      *coterie.Node
	prefix string
	decode func(coterie.KeyValue) (T, error)
	newest atomic.Pointer[generation[T]]
	done   chan struct{}
	err    error // why it ended, once done is closed
}

// A generation is a snapshot while it is the newest.
type generation[T any] struct {
	Snapshot[T]
	over chan struct{} // closed when there is a newer one
}

// JSON decodes a value that is a JSON document: a decoder for [New].
func JSON[T any](kv coterie.KeyValue) (v T, err error) {
	err = json.Unmarshal([]byte(kv.Value), &v)
	return v, err
}

// New makes an index of the keys that begin with prefix, with the Groupings given, and keeps
// it current until ctx ends or the node closes. It begins with what the node has applied, without
// asking the cluster, and does not block; after [coterie.Node.Ready] that is all that was written
// before. A goroutine applies each revision in a time that does not depend on the size of the
// prefix, after the time that decode takes. That goroutine calls decode and the functions of the
// Groupings: while one of them blocks, the index stands still, and nothing else does. What decode
// refuses, or panics at, is told by [Snapshot.DecodeErrors].
//
// Errors: ErrInvalidOption without a decoder, or for a Grouping that is nil; ctx's cause; ErrClosed.
func New[T any](ctx context.Context, n *coterie.Node, prefix string,
	decode func(coterie.KeyValue) (T, error), by ...*Grouping[T],
) (*Index[T], error) {
	if decode == nil || slices.ContainsFunc(by, func(key *Grouping[T]) bool { return key == nil || key.of == nil }) {
		return nil, fmt.Errorf("%w: a mirror needs a decoder, and Groupings that GroupBy made of a function", coterie.ErrInvalidOption)
	}
	seed := maphash.MakeSeed()
	first := Snapshot[T]{
		entries: trie[*Entry[T]]{seed: seed}, faults: trie[*DecodeError]{seed: seed}, by: slices.Clone(by),
		groups: make([]trie[*group[T]], len(by)),
	}
	for i := range first.groups {
		first.groups[i].seed = seed
	}
	x := &Index[T]{n: n, prefix: prefix, decode: decode, done: make(chan struct{})}
	x.newest.Store(&generation[T]{first, make(chan struct{})})
	if err := x.read(ctx); err != nil {
		return nil, err
	}
	go func() {
		x.err = x.follow(ctx)
		close(x.done)
	}()
	return x, nil
}

// follow applies what happens until there is an error, which it returns.
func (x *Index[T]) follow(ctx context.Context) error {
	for {
		next := x.newest.Load().rev + 1
		for r, err := range x.n.Watch(ctx, x.prefix, coterie.WithPrefix(), coterie.WithRevision(next)) {
			if errors.Is(err, coterie.ErrCompacted) {
				break // it was slow, or its node was: what there is now is all that counts
			}
			if err != nil {
				return err
			}
			x.apply(r)
		}
		if err := x.read(ctx); err != nil {
			return err
		}
	}
}

func (x *Index[T]) apply(r coterie.WatchResponse) {
	s := x.newest.Load().draft()
	s.rev = r.Revision
	for _, e := range r.Events {
		if e.Type == coterie.EventDelete {
			s.remove(e.KV.Key)
		} else {
			s.put(e.KV, x.decode)
		}
	}
	x.publish(s)
}

// read brings the index to what the node has now. What has not changed stays as it is, so that a
// value which was kept although a newer one is bad is kept still.
func (x *Index[T]) read(ctx context.Context) error {
	r, err := x.n.Get(ctx, x.prefix, coterie.WithPrefix(), coterie.WithSerializable())
	if err != nil {
		return err
	}
	s := x.newest.Load().draft()
	s.rev = r.Revision
	there := make(map[string]bool, len(r.KVs))
	for _, kv := range r.KVs {
		there[kv.Key] = true
		if s.revision(kv.Key) != kv.ModRevision {
			s.put(kv, x.decode)
		}
	}
	known := x.newest.Load()
	for key := range known.All() {
		if !there[key] {
			s.remove(key)
		}
	}
	for fault := range known.DecodeErrors() {
		if !there[fault.Key] {
			s.remove(fault.Key)
		}
	}
	x.publish(s)
	return nil
}

// publish makes a snapshot the newest. There is one publisher at a time.
func (x *Index[T]) publish(s Snapshot[T]) {
	last := x.newest.Swap(&generation[T]{s, make(chan struct{})})
	close(last.over)
}

// Snapshot returns the newest snapshot: for several lookups that belong together.
func (x *Index[T]) Snapshot() Snapshot[T] { return x.newest.Load().Snapshot }

// Get looks up a key, with its prefix, in the newest snapshot.
func (x *Index[T]) Get(key string) (T, bool) { return x.newest.Load().Get(key) }

// Follow yields the newest snapshot, and then again whenever there is another. A slow loop misses
// snapshots that were between, delays nobody and queues nothing; [Snapshot.ChangesSince] tells what has
// changed. It ends only with ctx or the index, with a pair whose error says which.
func (x *Index[T]) Follow(ctx context.Context) iter.Seq2[Snapshot[T], error] {
	return func(yield func(Snapshot[T], error) bool) {
		for {
			g := x.newest.Load()
			if !yield(g.Snapshot, nil) {
				return
			}
			if err := x.await(ctx, g); err != nil {
				yield(Snapshot[T]{}, err)
				return
			}
		}
	}
}

// await returns when there is a newer snapshot, or why there will not be one.
func (x *Index[T]) await(ctx context.Context, g *generation[T]) error {
	select {
	case <-g.over:
		return nil
	case <-x.done:
		return x.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settleTime is how long an index that is behind is waited for before it is asked why.
const settleTime = time.Millisecond

// WaitRevision returns when the index has everything up to a revision of the store: with that of a
// write, anywhere, it then has the write. It blocks until the node has applied the revision, which
// without a quorum may be never, and the index, a moment later. A revision that did not touch the
// prefix, after which nothing did, is told by one walk over the prefix in the store.
//
// Errors: ctx's cause, or why the index has ended.
func (x *Index[T]) WaitRevision(ctx context.Context, rev int64) error {
	if x.newest.Load().rev >= rev {
		return nil
	}
	if _, err := x.n.Get(ctx, "k", coterie.WithCountOnly(), coterie.WithWaitRevision(rev)); err != nil {
		return err
	}
	for {
		g := x.newest.Load()
		if g.rev >= rev {
			return nil
		}
		// As a rule it has the revision in no time.
		moment, cancel := context.WithTimeout(ctx, settleTime)
		err := x.await(moment, g)
		cancel()
		if err == nil {
			continue
		}
		if moment.Err() == nil {
			return err
		}
		// If no key is newer than the snapshot, and there are as many, then they are the same.
		r, err := x.n.Get(ctx, x.prefix, coterie.WithPrefix(), coterie.WithMinModRevision(g.rev+1), coterie.WithLimit(1),
			coterie.WithKeysOnly(), coterie.WithSerializable())
		if err != nil {
			return err
		}
		if len(r.KVs) == 0 && r.Count == int64(g.keys) {
			return nil
		}
		if err := x.await(ctx, g); err != nil {
			return err
		}
	}
}

// Done is closed when the index has ended, with ctx or with the node: it is then no longer kept
// current. What it has stays.
func (x *Index[T]) Done() <-chan struct{} { return x.done }

// Err returns why the index has ended: ctx's cause, or ErrClosed; nil while it has not.
func (x *Index[T]) Err() error {
	select {
	case <-x.done:
		return x.err
	default:
		return nil
	}
}
