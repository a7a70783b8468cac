// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"

	"github.com/coterie-kv/coterie"
)

// A Barrier holds up all who wait at it, on any node, from when somebody raises it until somebody,
// who need not be the same, lifts it. Its methods may be called concurrently.
//
// It is a key: to raise or to lift it is one write, and who waits is told by one event. It stays
// when who raised it crashes, unless it was raised with a lease. Do not use it as a lock: many pass
// at once, and it may be raised again right behind them.
type Barrier struct {
	n   *coterie.Node
	key string
}

// NewBarrier returns the Barrier that is a key; nothing is asked of the cluster.
func NewBarrier(n *coterie.Node, key string) *Barrier { return &Barrier{n: n, key: key} }

// Raise raises the barrier; if it is raised already, nothing is changed. It blocks until that is
// applied. With [coterie.WithLease] the barrier goes with a session.
//
// Errors: those of a transaction; after coterie.ErrMaybeApplied it may be called again.
func (b *Barrier) Raise(ctx context.Context, opts ...coterie.PutOption) error {
	_, err := b.n.Txn(ctx).If(coterie.Compare(coterie.CreateRevision(b.key), "=", 0)).
		Then(coterie.OpPut(b.key, coterie.NewHolder(b.n).Value(), opts...)).Commit()
	return err
}

// Lift lets all pass who wait, and who come. If the barrier is not raised, nothing is changed. It
// blocks until that is applied.
//
// Errors: those of Delete; after coterie.ErrMaybeApplied it may be called again.
func (b *Barrier) Lift(ctx context.Context) error {
	_, err := b.n.Delete(ctx, b.key)
	return err
}

// Wait returns when the barrier is not raised, or was not at some moment since the call: at once,
// with one read, if it is lifted.
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
				break // it is time to look again
			}
			if err != nil && ctx.Err() != nil {
				return coterie.NewHeldError(b.key, r.KVs[0], b.n.ContextError(ctx))
			}
			return err
		}
	}
}
