// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/coterie-kv/coterie"
)

// alternatives is how many items a claim names: the first of them that is free when it is applied
// is claimed. So takers that have seen the same line at the same moment are served by one write
// each, and hundreds do not all fail but one.
const alternatives = 8

// claim claims the first of some items that is free, and returns nil if none is any more. When ctx
// ends while the outcome is open, what was claimed is given back as soon as that is known: to do so
// at once might come before the claim.
func (q *Queue) claim(ctx context.Context, free []coterie.KeyValue) (*Item, error) {
	if err := context.Cause(q.s.Context()); err != nil {
		return nil, err
	}
	mark := fmt.Sprintf("%016x", rand.Uint64())
	type outcome struct {
		*coterie.TxnResponse
		err error
	}
	known, left := make(chan outcome), make(chan struct{})
	defer close(left)
	go func() {
		cond, then, els := q.choice(free, mark)
		r, err := q.s.Node().Txn(context.WithoutCancel(ctx)).If(cond...).Then(then...).Else(els...).Commit()
		select {
		case known <- outcome{r, err}:
		case <-left:
			if maybe(err) {
				q.disclaim(free, mark)
			}
		}
	}()
	var o outcome
	select {
	case o = <-known:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if errors.Is(o.err, coterie.ErrLeaseNotFound) {
		return nil, fmt.Errorf("%w: %w", coterie.ErrSessionExpired, o.err)
	}
	if o.err != nil {
		if maybe(o.err) {
			go q.disclaim(free, mark)
		}
		return nil, o.err
	}
	for r := o.TxnResponse; len(free) > 0; free = free[1:] {
		if r.Succeeded {
			return q.item(free[0], o.Revision), nil
		}
		if len(r.Responses) > 0 {
			r = r.Responses[0].Txn
		}
	}
	return nil, nil
}

// maybe reports whether a write may have been applied that ended so: only then is there something to
// give back.
func maybe(err error) bool { return err == nil || errors.Is(err, coterie.ErrMaybeApplied) }

// choice makes the branches of a transaction that claims the first of some items that is free.
func (q *Queue) choice(free []coterie.KeyValue, mark string) (cond []coterie.Cmp, then, els []coterie.Op) {
	kv, claim := free[0], q.claimOf(free[0].Key)
	if len(free) > 1 {
		els = []coterie.Op{coterie.OpTxn(q.choice(free[1:], mark))}
	}
	return []coterie.Cmp{coterie.Compare(coterie.CreateRevision(kv.Key), "=", kv.CreateRevision), missing(claim)},
		[]coterie.Op{coterie.OpPut(claim, mark, coterie.WithLease(q.s.Lease()))}, els
}

// disclaim gives back what a claim with a mark may have claimed, as soon as the node takes writes,
// unless it closes: nobody else would, as long as the session lives.
func (q *Queue) disclaim(items []coterie.KeyValue, mark string) {
	var ops []coterie.Op
	for _, kv := range items {
		claim := q.claimOf(kv.Key)
		ours := coterie.Compare(coterie.Value(claim), "=", mark)
		ops = append(ops, coterie.OpTxn([]coterie.Cmp{ours}, []coterie.Op{coterie.OpDelete(claim)}, nil))
	}
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		if _, err := q.s.Node().Txn(context.Background()).Then(ops...).Commit(); err == nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-q.s.Node().Done():
			return
		}
	}
}

// claimOf returns the key that says who has an item.
func (q *Queue) claimOf(item string) string {
	return q.keys.claims + strings.TrimPrefix(item, q.keys.items)
}

// missing holds while there is no such key.
func missing(key string) coterie.Cmp { return coterie.Compare(coterie.CreateRevision(key), "=", 0) }

// bind returns a context that ends with ctx or with the session, with the cause of either.
func bind(ctx context.Context, s *coterie.Session) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if ended := context.Cause(s.Context()); ended != nil {
		cancel(ended) // at once, and not when the goroutine of AfterFunc comes to it
	}
	stop := context.AfterFunc(s.Context(), func() { cancel(context.Cause(s.Context())) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
