// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/coterie-kv/coterie"
)

// A system does the parts that it is ordered to do.
type system struct {
	name    string
	session *coterie.Session
	step    time.Duration // time for a quarter of a part
	stuck   int           // percent at which it gets stuck, for the demo; 0 means never
}

// join makes a system visible to the others. It is up until its session ends, or for a TTL after a crash.
func join(ctx context.Context, node *coterie.Node, name string, ttl time.Duration) (*system, error) {
	session, err := coterie.NewSession(ctx, node, coterie.WithTTL(ttl))
	if err != nil {
		return nil, err
	}
	if _, err := node.Put(ctx, systems+name, node.Status().Addr, coterie.WithLease(session.Lease())); err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return &system{name: name, session: session}, nil
}

// serve does one order after the other until ctx or the session ends. It begins with existing orders: a system of this
// name may have crashed.
func (s *system) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.session.Context(), func() { cancel(coterie.ErrSessionExpired) })()
	node, own := s.session.Node(), orders+s.name+"/"
	old, err := node.Get(ctx, own, coterie.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range old.KVs {
		if err := s.do(ctx, kv); err != nil {
			return err
		}
	}
	next := coterie.WithRevision(old.Revision + 1)
	for r, err := range node.Watch(ctx, own, coterie.WithPrefix(), coterie.WithFilterDelete(), next) {
		if err != nil {
			return err
		}
		for _, e := range r.Events {
			if err := s.do(ctx, e.KV); err != nil {
				return err
			}
		}
	}
	return nil
}

// do does the rest of a part, and writes its progress while the order belongs to this system. After the order was given to
// another system, it writes nothing more.
func (s *system) do(ctx context.Context, order coterie.KeyValue) error {
	part := order.Key[len(orders+s.name+"/"):]
	own := coterie.Compare(coterie.CreateRevision(order.Key), "=", order.CreateRevision)
	percent, err := strconv.Atoi(order.Value)
	if err != nil {
		return err
	}
	for ; ; percent += 25 {
		ops := []coterie.Op{coterie.OpPut(progress+part, strconv.Itoa(percent), coterie.WithLease(s.session.Lease()))}
		if percent >= 100 {
			ops = []coterie.Op{coterie.OpDelete(order.Key), coterie.OpDelete(progress + part), coterie.OpPut(done+part, s.name)}
		}
		r, err := s.session.Node().Txn(ctx).If(own).Then(ops...).Commit()
		if err != nil || !r.Succeeded || percent >= 100 {
			return err
		}
		pause := time.After(s.step)
		if percent == s.stuck && s.stuck > 0 {
			pause = nil
		}
		select {
		case <-pause:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
