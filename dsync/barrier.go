// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"

	"github.com/coterie-kv/coterie"
)

// A Barrier blocks all callers of Wait, on any node, from the moment one caller raises it until another, or the
// same one, lifts it. Its methods may be called concurrently.
//
// A Barrier is a key. Raise and Lift are one write each, and each waiter receives one event. The barrier stays
// raised if the process that raised it crashes, unless it was raised with a lease. It is not a lock: many
// waiters pass at once, and it may be raised again directly after they passed.
type Barrier struct {
	n   *coterie.Node
	key string
}

// NewBarrier returns the Barrier that is stored in a key. It does not contact the cluster.
func NewBarrier(n *coterie.Node, key string) *Barrier { return &Barrier{n: n, key: key} }

// Raise raises the barrier. If it is raised already, Raise changes nothing. It blocks until the write is
// applied. With [coterie.WithLease] the barrier ends with a session.
//
// Errors: those of a transaction; after coterie.ErrMaybeApplied it may be called again.
func (b *Barrier) Raise(ctx context.Context, opts ...coterie.PutOption) error {
	_, err := b.n.Txn(ctx).If(coterie.Compare(coterie.CreateRevision(b.key), "=", 0)).
		Then(coterie.OpPut(b.key, coterie.NewHolder(b.n).Value(), opts...)).Commit()
	return err
}

// Lift lets all present and future waiters pass. If the barrier is not raised, Lift changes nothing. It blocks
// until the write is applied.
//
// Errors: those of Delete; after coterie.ErrMaybeApplied it may be called again.
func (b *Barrier) Lift(ctx context.Context) error {
	_, err := b.n.Delete(ctx, b.key)
	return err
}

// Wait returns when the barrier is lifted, or was lifted at some moment since the call. If it is not raised,
// Wait returns after one read.
//
// Errors: those of Get; if ctx ends while the barrier is raised, a *coterie.HeldError for its key.
func (b *Barrier) Wait(ctx context.Context) error {
	for {
		r, err := b.n.Get(ctx, b.key)
		if err != nil || len(r.KVs) == 0 {
			return err
		}
		for _, err := range b.n.Watch(ctx, b.key, coterie.WithRevision(r.Revision+1), coterie.WithFilterPut()) {
			if errors.Is(err, coterie.ErrCompacted) {
				break // read again
			}
			if err != nil && ctx.Err() != nil {
				return coterie.NewHeldError(b.key, r.KVs[0], b.n.ContextError(ctx))
			}
			return err
		}
	}
}
