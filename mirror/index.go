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

	"github.com/coterie-kv/coterie"
)

// An Index is a typed copy of a prefix, and is kept current. Its methods are safe for concurrent use.
// Lookups take no lock and copy nothing.
type Index[T any] struct {
	// One goroutine writes newest and reached, in this order, and writes err before it closes done. The other fields
	// do not change.

	n        *coterie.Node
	prefix   string
	decode   func(coterie.KeyValue) (T, error)
	newest   atomic.Pointer[generation[T]]
	reached  atomic.Pointer[progress]
	requests chan struct{}           // for progress of the watch; a pending request covers later ones
	end      context.CancelCauseFunc // ends the goroutine
	done     chan struct{}           // closed when the goroutine has ended
	err      error                   // why it has ended
}

// A progress is the revision up to which the newest snapshot has every change of the prefix. It is higher than
// the revision of the snapshot if the revisions between did not touch the prefix.
type progress struct {
	rev  int64
	over chan struct{} // closed when there is a higher one
}

// A generation is a snapshot with a signal that a newer one exists.
type generation[T any] struct {
	Snapshot[T]
	over chan struct{} // closed when there is a newer one
}

// JSON decodes a value that is a JSON document. Use it as the decoder of [New].
func JSON[T any](kv coterie.KeyValue) (v T, err error) {
	err = json.Unmarshal([]byte(kv.Value), &v)
	return v, err
}

// New returns an index of the keys that begin with prefix, with the given Groupings. It starts with the
// state that the node has applied: it does not ask the cluster and does not block. After
// [coterie.Node.Ready] that state includes every write that was answered before. The index follows the
// prefix until [Index.Close], or until the node closes; it does not end with ctx.
//
// A goroutine decodes and applies each revision. Apart from decode, that takes a time that does not depend
// on the size of the prefix. The goroutine calls decode and the functions of the Groupings. While one of them
// blocks, this index does not change; nothing else is affected. If decode returns an error, or one of them
// panics, [Snapshot.DecodeErrors] has the error.
//
// Errors: coterie.ErrInvalidOption without a decoder, or for a Grouping without a function; ctx's cause; coterie.ErrClosed.
func New[T any](ctx context.Context, n *coterie.Node, prefix string,
	decode func(coterie.KeyValue) (T, error), groupings ...*Grouping[T],
) (*Index[T], error) {
	if decode == nil || slices.ContainsFunc(groupings, func(g *Grouping[T]) bool { return g == nil || g.of == nil }) {
		return nil, fmt.Errorf("%w: an index needs a decoder, and each Grouping a function", coterie.ErrInvalidOption)
	}
	seed := maphash.MakeSeed()
	first := Snapshot[T]{
		entries: trie[*Entry[T]]{seed: seed}, faults: trie[*DecodeError]{seed: seed}, by: slices.Clone(groupings),
		groups: make([]trie[*group[T]], len(groupings)),
	}
	for i := range first.groups {
		first.groups[i].seed = seed
	}
	x := &Index[T]{n: n, prefix: prefix, decode: decode, requests: make(chan struct{}, 1), done: make(chan struct{})}
	x.newest.Store(&generation[T]{first, make(chan struct{})})
	x.reached.Store(&progress{over: make(chan struct{})})
	if err := x.read(ctx); err != nil {
		return nil, err
	}
	ctx, x.end = context.WithCancelCause(context.WithoutCancel(ctx))
	go func() {
		x.err = x.follow(ctx)
		close(x.done)
	}()
	return x, nil
}

// follow applies the changes of the prefix until an error ends it.
func (x *Index[T]) follow(ctx context.Context) error {
	for {
		next := x.newest.Load().rev + 1
		for r, err := range x.n.Watch(ctx, x.prefix, coterie.WithPrefix(), coterie.WithRevision(next),
			coterie.WithProgressRequests(x.requests)) {
			if errors.Is(err, coterie.ErrCompacted) {
				break // the index or its node was slow; read the current state instead
			}
			if err != nil {
				return err
			}
			if len(r.Events) > 0 {
				x.apply(r)
			}
			x.reach(r.Revision)
		}
		if err := x.read(ctx); err != nil {
			return err
		}
	}
}

// apply publishes the snapshot of one revision.
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

// read brings the index to the current state of the node. Entries that have not changed stay as they are, so
// a key with a bad newest value keeps its good one.
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
	x.reach(r.Revision)
	return nil
}

// publish replaces the newest snapshot. Only New and the goroutine call it.
func (x *Index[T]) publish(s Snapshot[T]) {
	last := x.newest.Swap(&generation[T]{s, make(chan struct{})})
	close(last.over)
}

// reach notifies WaitRevision that the newest snapshot has everything up to a revision.
func (x *Index[T]) reach(rev int64) {
	last := x.reached.Load()
	if rev > last.rev {
		x.reached.Store(&progress{rev, make(chan struct{})})
		close(last.over)
	}
}

// Snapshot returns the newest snapshot. Use one snapshot for lookups that must fit together.
func (x *Index[T]) Snapshot() Snapshot[T] { return x.newest.Load().Snapshot }

// Get looks up a key in the newest snapshot. The key includes the prefix.
func (x *Index[T]) Get(key string) (T, bool) { return x.newest.Load().Get(key) }

// Follow yields the newest snapshot, and then each newer one. A slow loop skips the snapshots between; it
// delays nothing, and nothing is queued for it. [Snapshot.ChangesSince] finds the differences. Follow ends
// when ctx ends or the index has ended. Its last pair has the error.
func (x *Index[T]) Follow(ctx context.Context) iter.Seq2[Snapshot[T], error] {
	return func(yield func(Snapshot[T], error) bool) {
		for {
			g := x.newest.Load()
			if !yield(g.Snapshot, nil) {
				return
			}
			if err := x.await(ctx, g.over); err != nil {
				yield(Snapshot[T]{}, err)
				return
			}
		}
	}
}

// await blocks until over is closed.
func (x *Index[T]) await(ctx context.Context, over <-chan struct{}) error {
	select {
	case <-over:
		return nil
	case <-x.done:
		return x.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// WaitRevision blocks until the index has everything up to a revision of the store. After WaitRevision with the
// revision of a write, the index has the write. It first waits until the node has applied the revision,
// which never happens without a quorum. A revision that did not touch the prefix costs one message to the
// goroutine of the index, whatever the size of the prefix.
//
// Errors: ctx's cause; coterie.ErrClosed when the index or its node has closed.
func (x *Index[T]) WaitRevision(ctx context.Context, rev int64) error {
	if x.reached.Load().rev >= rev {
		return nil
	}
	if _, err := x.n.Get(ctx, "k", coterie.WithCountOnly(), coterie.WithWaitRevision(rev)); err != nil {
		return err
	}
	// The node has applied rev, so the answer has it. If the watch ends before it answers, the index reads the
	// prefix again, and has at least rev then.
	select {
	case x.requests <- struct{}{}:
	default:
	}
	for {
		p := x.reached.Load()
		if p.rev >= rev {
			return nil
		}
		if err := x.await(ctx, p.over); err != nil {
			return err
		}
	}
}

// Done returns a channel that is closed when the index has ended, after [Index.Close] or with its node. The
// newest snapshot stays, and is no longer kept current.
func (x *Index[T]) Done() <-chan struct{} { return x.done }

// Err returns why the index has ended, as an error that matches coterie.ErrClosed, and nil before.
func (x *Index[T]) Err() error {
	select {
	case <-x.done:
		return x.err
	default:
		return nil
	}
}

// Close ends the index, and returns when its goroutine has ended: it waits for a decoder that blocks, so
// the decoder must not call it. The newest snapshot stays. Close is idempotent.
func (x *Index[T]) Close() {
	x.end(fmt.Errorf("mirror: the index is closed: %w", coterie.ErrClosed))
	<-x.done
}
