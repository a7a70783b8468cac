// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie"
)

// contendForLock lets two nodes contend for one lock. A holder that has lost the lock cannot write under it any
// more, even if the holder does not know of the loss.
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
		return fmt.Errorf("node2 should find it locked: %v", err)
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
	say("node2 locks", "fencing token %d; a write of node1 under its old lock is rejected", second.Token())
	return second.Unlock(ctx)
}

// register attaches a key to a lease, does not renew it, and waits until the key is deleted.
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
	say("a registration", "is deleted %v after its owner stopped; its lease had a TTL of %v", since(begin), lease.TTL)
	return nil
}

// A term is the time in which one node leads. Its resign ends that node's campaign.
type term struct {
	node   *coterie.Node
	token  int64
	resign context.CancelFunc
}

// electLeader lets every node campaign. The first leader resigns, so the next one follows at once. The second
// leader's node is closed without resigning, as after a crash, so the third one follows when the session expires.
func electLeader(ctx context.Context, s *shop) error {
	terms, ended := make(chan term), make(chan error, len(s.nodes))
	for _, n := range s.nodes {
		ctx, resign := context.WithCancel(ctx)
		defer resign()
		go func() {
			ended <- coterie.RunAsLeader(ctx, n, "leader", n.Status().Name, func(ctx context.Context, token int64) error {
				select {
				case terms <- term{n, token, resign}:
					<-ctx.Done() // the leader's work goes here, and ends with ctx
				case <-ctx.Done():
				}
				return context.Cause(ctx)
			}, coterie.WithTTL(3*time.Second))
		}()
	}
	first := <-terms
	say("leader", "%s, fencing token %d; it resigns", first.node.Status().Name, first.token)
	begin := time.Now()
	first.resign()
	second := <-terms
	say("next leader", "%s, fencing token %d, %v later; its node is closed without resigning", second.node.Status().Name, second.token, since(begin))
	begin = time.Now()
	if err := second.node.Close(); err != nil {
		return err
	}
	third := <-terms
	say("last leader", "%s, fencing token %d, %v later: the session had a TTL of 3s", third.node.Status().Name, third.token, since(begin))
	if first.node == second.node || second.node == third.node || first.token >= second.token || second.token >= third.token {
		return fmt.Errorf("tokens %d, %d and %d do not rise from leader to leader", first.token, second.token, third.token)
	}
	third.resign()
	for range s.nodes {
		if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, coterie.ErrClosed) {
			return err
		}
	}
	return nil
}
