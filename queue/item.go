// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/coterie-kv/coterie"
)

// An Item belongs to the consumer that took it, until Ack, Nack or the end of the Queue's session. Work on the item
// must stop with the session; WorkContext returns a context for it. The methods may be called concurrently.
type Item struct {
	Value string
	Name  string // set by [WithName]; "" if the item has no name

	q   *Queue
	id  string
	rev int64 // create revision of the claim
}

// item returns an item that was claimed at a revision, or nil if the item's key was deleted.
func (q *Queue) item(ctx context.Context, id string, rev int64) (*Item, error) {
	_, name, _ := strings.Cut(id, "/")
	_, name, _ = strings.Cut(name, "/")
	i := &Item{Name: name, q: q, id: id, rev: rev}
	r, err := q.s.Node().Get(context.WithoutCancel(ctx), q.keys.items+id, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	if len(r.KVs) == 0 {
		return nil, i.finish(ctx, coterie.OpDelete(q.keys.claims+id))
	}
	i.Value = r.KVs[0].Value
	return i, nil
}

// Token returns the fencing token: the create revision of the claim, higher than the token of every earlier consumer
// of the item.
func (i *Item) Token() int64 { return i.rev }

// Guard returns a condition for transactions that holds while this consumer has the item: with it, a write is rejected
// if the consumer has lost the item and does not know.
func (i *Item) Guard() coterie.Comparison {
	return coterie.Compare(coterie.CreateRevision(i.q.keys.claims+i.id), "=", i.rev)
}

// WorkContext returns a context for the work on the item. It ends with ctx, with the returned function, which must
// be called, or with the session, before another consumer can get the item. It carries the guard: see
// [coterie.GuardFromContext].
func (i *Item) WorkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return i.q.s.WorkContext(coterie.ContextWithGuard(ctx, i.Guard()))
}

// Ack acknowledges the item as done and removes it from the queue: one write. The operations are executed in the same
// transaction, only if the consumer still has the item. They must not concern the queue's keys. Ack blocks until the
// write is applied.
//
// Errors: coterie.ErrNotOwner if the consumer does not have the item any more; those of a transaction. After
// coterie.ErrMaybeApplied call it again: while the session lives, ErrNotOwner then says that the first call has
// succeeded.
func (i *Item) Ack(ctx context.Context, ops ...coterie.Op) error {
	ops = append(ops[:len(ops):len(ops)], coterie.OpDelete(i.q.keys.items+i.id), coterie.OpDelete(i.q.keys.claims+i.id))
	if i.Name != "" {
		ops = append(ops, coterie.OpDelete(i.q.keys.names+i.Name))
	}
	return i.finish(ctx, ops...)
}

// Nack gives the item back, to its old place in the queue: one write. The next consumer takes it. Nack blocks until
// the write is applied.
//
// Errors: those of Ack.
func (i *Item) Nack(ctx context.Context) error {
	return i.finish(ctx, i.q.release(i.id)...)
}

// finish ends the claim with some operations, if the consumer still has the item.
func (i *Item) finish(ctx context.Context, ops ...coterie.Op) error {
	r, err := i.q.s.Node().Txn(ctx).If(i.Guard()).Then(ops...).Commit()
	if err == nil && !r.Succeeded {
		return fmt.Errorf("%w: an item of %q", coterie.ErrNotOwner, i.q.name)
	}
	return err
}
