// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie"
)

// A Condition says when a [Gate] opens by itself. Every Gate can also be opened with [Gate.Open].
type Condition struct {
	count int64
	name  string
}

// WhenCount opens a gate when n items wait.
func WhenCount(n int64) Condition { return Condition{count: max(n, 1)} }

// WhenNamed opens a gate when an item of this name is in the queue.
func WhenNamed(name string) Condition { return Condition{name: name} }

// WhenOpened opens a gate only by [Gate.Open].
func WhenOpened() Condition { return Condition{} }

// A Gate holds consumers of a Queue back until there is a reason to begin. An open gate is open for all consumers, on
// any node, until it is closed, even if its condition does not hold any more. Its methods may be called concurrently.
//
// Open and Close are one write each. Waiters read again when an item arrives. A gate affects only its own Dequeue:
// [Queue.Dequeue] ignores it. To exclude consumers permanently, use a [coterie.Mutex].
type Gate struct {
	q    *Queue
	when Condition
}

// NewGate returns the Gate of a Queue; a Queue has one. It does not contact the cluster. All users must give the same
// condition: the gate opens when any of them is met.
func NewGate(q *Queue, when Condition) *Gate { return &Gate{q: q, when: when} }

// Open opens the gate. If the gate is open, Open changes nothing. It blocks until the write is applied.
//
// Errors: those of a transaction; after coterie.ErrMaybeApplied it may be called again.
func (g *Gate) Open(ctx context.Context) error {
	if err := g.q.check(); err != nil {
		return err
	}
	open := g.q.keys.open
	_, err := g.q.s.Node().Txn(ctx).If(missing(open)).Then(coterie.OpPut(open, "")).Commit()
	return err
}

// Close closes the gate for consumers that call Wait or Dequeue later. If the condition holds, the next
// such call opens the gate again. Close blocks until the write is applied.
//
// Errors: those of Delete; after coterie.ErrMaybeApplied it may be called again.
func (g *Gate) Close(ctx context.Context) error {
	if err := g.q.check(); err != nil {
		return err
	}
	_, err := g.q.s.Node().Delete(ctx, g.q.keys.open)
	return err
}

// Wait returns when the gate is open. If the gate is closed but its condition holds, Wait opens it.
//
// Errors: those of a transaction; ctx's cause, with a text that says that the gate is closed.
func (g *Gate) Wait(ctx context.Context) error {
	if err := g.q.check(); err != nil {
		return err
	}
	q := g.q
	ops := []coterie.Op{
		coterie.OpGet(q.keys.open, coterie.WithCountOnly()),
		count(q.keys.items),
		count(q.keys.claims),
		coterie.OpGet(q.keys.names+g.when.name, coterie.WithCountOnly()),
	}
	for {
		r, err := q.s.Node().Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return err
		}
		found := func(i int) int64 { return r.Responses[i].Get.Count }
		switch {
		case found(0) > 0:
			return nil
		case g.when.count > 0 && found(1)-found(2) >= g.when.count, g.when.name != "" && found(3) > 0:
			return g.Open(ctx)
		}
		if err := q.watch(ctx, r.Revision, g.concerned); err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("%w: the gate of %q is closed", q.s.Node().ContextError(ctx), q.name)
			}
			return err
		}
	}
}

// concerned reports whether the gate may be open after some events.
func (g *Gate) concerned(events []coterie.Event) bool {
	opened := func(e coterie.Event) bool { return e.KV.Key == g.q.keys.open && e.Type == coterie.EventPut }
	return slices.ContainsFunc(events, opened) || g.when != Condition{} && g.q.frees(events)
}

// Dequeue waits until the gate is open, and then calls Dequeue of the Queue.
//
// Errors: those of [Queue.Dequeue].
func (g *Gate) Dequeue(ctx context.Context) (*Item, error) {
	ctx, cancel := g.q.s.WorkContext(ctx)
	defer cancel()
	if err := g.Wait(ctx); err != nil {
		return nil, err
	}
	return g.q.Dequeue(ctx)
}
