// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/coterie-kv/coterie"
)

// An Item is one that its taker has, until Ack, Nack or the end of the Queue's session, with which
// work on it must stop: see WorkContext. Its methods may be called concurrently.
type Item struct {
	Value string
	Name  string // of [WithName]; "" is none

	q   *Queue
	id  string
	rev int64 // that created the claim
}

// item returns an item that a claim of a revision has, or nil if somebody has deleted it.
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

// Token returns the fencing token, higher than that of every earlier taker of the item: the create
// revision of the claim.
func (i *Item) Token() int64 { return i.rev }

// Guard returns a condition for transactions that holds as long as the taker has the item: a write
// of one that has lost it, and does not know, is refused.
func (i *Item) Guard() coterie.Comparison {
	return coterie.Compare(coterie.CreateRevision(i.q.keys.claims+i.id), "=", i.rev)
}

// WorkContext returns a context for the work on the item. It ends with ctx, with the returned function, which must
// be called, or with the session, before another taker can get the item.
func (i *Item) WorkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return i.q.s.WorkContext(ctx)
}

// Ack removes the item from the queue, for it is done; the operations, which must not concern the
// queue's keys, are executed in the same transaction, and only if the taker has the item still. It
// blocks until that is applied: one write.
//
// Errors: coterie.ErrNotOwner when the taker does not have the item any more; those of a
// transaction. After coterie.ErrMaybeApplied call it again: while the session lives, ErrNotOwner
// then says that it has happened.
func (i *Item) Ack(ctx context.Context, ops ...coterie.Op) error {
	ops = append(ops[:len(ops):len(ops)], coterie.OpDelete(i.q.keys.items+i.id), coterie.OpDelete(i.q.keys.claims+i.id))
	if i.Name != "" {
		ops = append(ops, coterie.OpDelete(i.q.keys.names+i.Name))
	}
	return i.finish(ctx, ops...)
}

// Nack gives the item back, to its old place: whoever takes next has it. It blocks until that is
// applied: one write.
//
// Errors: those of Ack.
func (i *Item) Nack(ctx context.Context) error {
	return i.finish(ctx, i.q.release(i.id)...)
}

func (i *Item) finish(ctx context.Context, ops ...coterie.Op) error {
	r, err := i.q.s.Node().Txn(ctx).If(i.Guard()).Then(ops...).Commit()
	if err == nil && !r.Succeeded {
		return fmt.Errorf("%w: an item of %s", coterie.ErrNotOwner, i.q.keys.all)
	}
	return err
}
