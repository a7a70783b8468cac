// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/coterie-kv/coterie"
)

// A system does what it is ordered.
type system struct {
	name    string
	session *coterie.Session
	step    time.Duration // how long a quarter of a part takes
	stuck   int           // the percent at which it gets stuck, to show what happens then; 0: it does not
}

// join has a system appear to the others. It is there until its session ends, or a TTL after a crash.
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

// serve does one order after another, until ctx or the session ends. Those that are there already may
// be of a system of this name that has crashed.
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

// do does a part, from where others have left it, and tells of its progress; as long as it is this
// system's: of an order that was given to another, nothing more is written.
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
