// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/coterie-kv/coterie"
)

// An Item is one that its taker has, until Ack, Nack or the end of the Queue's session, with which
// work on it must stop: see Bind. Its methods may be called concurrently.
type Item struct {
	Value string
	Name  string // of [WithName]; "" is none

	q          *Queue
	key, claim string
	rev        int64 // that created the claim
}

func (q *Queue) item(kv coterie.KeyValue, rev int64) *Item {
	name := strings.SplitN(strings.TrimPrefix(kv.Key, q.keys.items), "/", 3)[2]
	return &Item{Value: kv.Value, Name: name, q: q, key: kv.Key, claim: q.claimOf(kv.Key), rev: rev}
}

// Token returns the fencing token, higher than that of every earlier taker of the item: the create
// revision of the claim.
func (i *Item) Token() int64 { return i.rev }

// Guard returns a condition for transactions that holds as long as the taker has the item: a write
// of one that has lost it, and does not know, is refused.
func (i *Item) Guard() coterie.Cmp {
	return coterie.Compare(coterie.CreateRevision(i.claim), "=", i.rev)
}

// Bind returns a context for the work on the item: it ends with ctx, with the returned function,
// which must be called, or with the session, before anybody else can have the item.
func (i *Item) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return bind(ctx, i.q.s)
}

// Ack removes the item from the queue, for it is done; the operations, which must not concern the
// queue's keys, are executed in the same transaction, and only if the taker has the item still. It
// blocks until that is applied: one write.
//
// Errors: coterie.ErrNotOwner when the taker does not have the item any more; those of a
// transaction. After coterie.ErrMaybeApplied call it again: while the session lives, ErrNotOwner
// then says that it has happened.
func (i *Item) Ack(ctx context.Context, ops ...coterie.Op) error {
	ops = append(ops[:len(ops):len(ops)], coterie.OpDelete(i.key), coterie.OpDelete(i.claim))
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
	return i.finish(ctx, coterie.OpDelete(i.claim))
}

func (i *Item) finish(ctx context.Context, ops ...coterie.Op) error {
	r, err := i.q.s.Node().Txn(ctx).If(i.Guard()).Then(ops...).Commit()
	if err == nil && !r.Succeeded {
		return fmt.Errorf("%w: an item of %s", coterie.ErrNotOwner, i.q.keys.items)
	}
	return err
}
