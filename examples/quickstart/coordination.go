// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie"
)

// contendForLock has two nodes ask for one lock. Whoever lost it cannot write any more, even if it
// does not know.
func contendForLock(ctx context.Context, s *shop) error {
	var sessions [2]*coterie.Session
	for i := range sessions {
		session, err := coterie.NewSession(ctx, s.nodes[i], coterie.WithTTL(5*time.Second))
		if err != nil {
			return err
		}
		defer session.Close()
		sessions[i] = session
	}
	first, second := coterie.NewMutex(sessions[0], "locks/stock"), coterie.NewMutex(sessions[1], "locks/stock")
	if err := first.Lock(ctx); err != nil {
		return err
	}
	if err := second.TryLock(ctx); !errors.Is(err, coterie.ErrLocked) {
		return fmt.Errorf("node2 should find the lock taken: %v", err)
	}
	stale, staleGuard := first.Token(), first.Guard()
	say("node1 locks", "fencing token %d; node2 finds it locked", stale)

	waiting := make(chan error, 1)
	go func() { waiting <- second.Lock(ctx) }()
	if err := first.Unlock(ctx); err != nil {
		return err
	}
	if err := <-waiting; err != nil {
		return err
	}
	if second.Token() <= stale {
		return fmt.Errorf("token %d is not above %d", second.Token(), stale)
	}
	r, err := s.nodes[0].Txn(ctx).If(staleGuard).Then(coterie.OpPut("stock/42", "from the stale holder")).Commit()
	if err != nil {
		return err
	}
	if r.Succeeded {
		return errors.New("a stale holder wrote")
	}
	say("node2 locks", "fencing token %d; a write of node1 under its old lock is refused", second.Token())
	return second.Unlock(ctx)
}

// register ties a key to a lease that is not renewed, and waits until it is gone.
func register(ctx context.Context, s *shop) error {
	const key = "registry/orders/10.0.0.7:8080"
	lease, err := s.nodes[0].Grant(ctx, 2*time.Second)
	if err != nil {
		return err
	}
	watch := s.nodes[2].WatchChan(ctx, key)
	if _, err := s.nodes[0].Put(ctx, key, `{"zone": "a"}`, coterie.WithLease(lease.ID)); err != nil {
		return err
	}
	begin := time.Now()
	for _, want := range []coterie.EventType{coterie.EventPut, coterie.EventDelete} {
		r := <-watch
		if r.Err != nil {
			return r.Err
		}
		if r.Events[0].Type != want {
			return fmt.Errorf("%v where %v was expected", r.Events[0].Type, want)
		}
	}
	if lived := time.Since(begin); lived < 2*time.Second-50*time.Millisecond {
		return fmt.Errorf("the registration lived only %v of its 2s", lived)
	}
	say("a registration", "whose owner stopped renewing is gone after %v; its lease was of %v", since(begin), lease.TTL)
	return nil
}

// A term is a node that begins to lead.
type term struct {
	node  *coterie.Node
	token int64
}

// electLeader has every node ask to lead, closes the one that does, and waits for the next.
func electLeader(ctx context.Context, s *shop) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	terms, ended := make(chan term), make(chan error, len(s.nodes))
	for _, n := range s.nodes {
		go func() {
			ended <- coterie.RunAsLeader(ctx, n, "leader", n.Status().Name, func(ctx context.Context, token int64) error {
				terms <- term{n, token}
				<-ctx.Done() // the work of a leader, until it leads no more
				return context.Cause(ctx)
			}, coterie.WithTTL(3*time.Second))
		}()
	}
	first := <-terms
	say("leader", "%s, fencing token %d; it is closed now", first.node.Status().Name, first.token)
	begin := time.Now()
	if err := first.node.Close(); err != nil {
		return err
	}
	second := <-terms
	if second.node == first.node || second.token <= first.token {
		return fmt.Errorf("%s with token %d follows %s with %d", second.node.Status().Name, second.token, first.node.Status().Name, first.token)
	}
	say("next leader", "%s, fencing token %d, %v later", second.node.Status().Name, second.token, since(begin))
	cancel()
	for range s.nodes {
		if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, coterie.ErrClosed) {
			return err
		}
	}
	return nil
}
