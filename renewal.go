// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/expiry"
	"github.com/coterie-kv/coterie/internal/leader"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/signal"
)

// leases asks the leader about leases, and answers if this node leads.
type leases struct {
	expirer   *expiry.Expirer // keeps the deadlines while this node leads
	renewals  *leader.Rounds[int64, expiry.Renewal]
	lifetimes *leader.Rounds[int64, expiry.Lifetime]
	call      func(ctx context.Context, to MemberID, method byte, req []byte) ([]byte, error)
}

func newLeases(n *Node) *leases {
	h := host{n.life, n}
	l := &leases{expirer: expiry.New(h, 2*n.cfg.ElectionTimeout), call: n.transport.call}
	l.renewals = leader.NewRounds(h, l.expirer.Renew, l.callRenew)
	l.lifetimes = leader.NewRounds(h, l.expirer.TimeToLive, l.callTimeToLive)
	return l
}

// A keeper renews the leases of all sessions of a node, in one goroutine and with many leases a call. A
// goroutine for each session would cost far more than the renewal itself.
type keeper struct {
	host   host
	leases *leases
	retry  time.Duration // after which a renewal without an answer is repeated
	wake   chan struct{} // has a value when the next renewal may be due sooner

	mu       sync.Mutex       // guards the fields below
	due      *lease.Deadlines // by which each lease has to be renewed
	sessions map[LeaseID][]*Session
	closed   bool
}

func newKeeper(n *Node) *keeper {
	return &keeper{
		host: host{n.life, n}, leases: n.leases, retry: leader.RetryAfter(n.cfg.ElectionTimeout),
		wake: make(chan struct{}, 1), due: lease.NewDeadlines(), sessions: map[LeaseID][]*Session{},
	}
}

// renewIn returns after how long to renew a lease: about a third of its TTL. The times are random, so that
// leases that were granted at one moment are not all renewed at another. They lie on a grid, so that the
// renewals of one step share a call to the leader.
func renewIn(ttl time.Duration) time.Duration {
	ttl = max(ttl, MinTTL)
	wait, step := ttl/3-rand.N(ttl/15), ttl/60
	return wait - time.Duration(time.Now().Add(wait).UnixNano())%step
}

// add begins to renew a session's lease.
func (k *keeper) add(s *Session, ttl time.Duration) {
	k.mu.Lock()
	closed := k.closed
	if !closed && s.ctx.Err() == nil { // otherwise it has ended already
		k.sessions[s.id] = append(k.sessions[s.id], s)
		k.schedule(s.id, ttl)
	}
	k.mu.Unlock()
	if closed {
		k.end(s)
	}
	signal.Poke(k.wake)
}

// end ends a session because the node closes.
func (k *keeper) end(s *Session) {
	s.finish(fmt.Errorf("%w: %w", ErrSessionExpired, k.host.Err()))
}

// schedule sets when a lease is renewed next. It is called with k.mu held.
func (k *keeper) schedule(id LeaseID, ttl time.Duration) {
	k.due.Revoke(int64(id))
	k.due.Grant(lease.Lease{ID: int64(id), TTL: renewIn(ttl)}, time.Now())
}

// drop stops renewing for a session that has ended.
func (k *keeper) drop(s *Session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	rest := slices.DeleteFunc(k.sessions[s.id], func(other *Session) bool { return other == s })
	if len(rest) > 0 {
		k.sessions[s.id] = rest
		return
	}
	delete(k.sessions, s.id)
	k.due.Revoke(int64(s.id))
}

// run renews leases when they are due. It ends all sessions when the node closes.
func (k *keeper) run() {
	defer k.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		changed := k.host.LeaderChanged()
		ids, next := k.next()
		if len(ids) > 0 && k.renew(ids) {
			continue
		}
		if len(ids) > 0 {
			next = k.retry
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-k.wake:
		case <-changed:
		case <-k.host.Closing():
			return
		}
	}
}

// next returns the leases that are due, and how long it takes until another is. A lease that is not renewed
// soon is due again.
func (k *keeper) next() (ids []int64, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	ids = k.due.Expire(now, leader.MaxQuestions, k.retry)
	if at, some := k.due.Next(); some {
		return ids, at.Sub(now)
	}
	return ids, time.Hour
}

// renew renews leases, and reports whether the leader answered. One call renews all of them, unless the
// leader is of an earlier version.
func (k *keeper) renew(ids []int64) bool {
	for len(ids) > 0 {
		sent := time.Now()
		renewals, err := leader.AskOnce(k.host.Context(), k.host,
			func(ctx context.Context) ([]expiry.Renewal, error) { return k.leases.expirer.Renew(ctx, ids) },
			func(ctx context.Context, leader uint64) ([]expiry.Renewal, error) {
				return k.leases.callRenew(ctx, leader, ids)
			})
		if err != nil {
			return false
		}
		for i, r := range renewals {
			k.renewed(LeaseID(ids[i]), r, sent)
		}
		ids = ids[len(renewals):]
	}
	return true
}

// renewed notes the answer to a renewal.
func (k *keeper) renewed(id LeaseID, r expiry.Renewal, sent time.Time) {
	k.mu.Lock()
	sessions := k.sessions[id]
	if r > expiry.Ending && len(sessions) > 0 {
		k.schedule(id, time.Duration(r))
	}
	k.mu.Unlock()
	for _, s := range sessions {
		switch r {
		case expiry.Ending: // the lease is due again soon
		case expiry.Unknown:
			s.finish(fmt.Errorf("%w: %w", ErrSessionExpired, ErrLeaseNotFound))
		default:
			s.renewed(sent, time.Duration(r))
		}
	}
}

// close ends all sessions. Those that are added later end at once.
func (k *keeper) close() {
	k.mu.Lock()
	k.closed = true
	var all []*Session
	for _, sessions := range k.sessions {
		all = append(all, sessions...)
	}
	k.mu.Unlock()
	for _, s := range all {
		k.end(s)
	}
}

// The calls between nodes about leases.

func (l *leases) callRenew(ctx context.Context, leader uint64, ids []int64) ([]expiry.Renewal, error) {
	b, err := l.call(ctx, MemberID(leader), methodRenew, expiry.Request(ids))
	switch {
	case errors.Is(err, ErrLeaseNotFound): // the answer for a single lease
		return []expiry.Renewal{expiry.Unknown}, nil
	case err != nil:
		return nil, err
	}
	return expiry.ReadRenewals(b, len(ids))
}

func (l *leases) answerRenew(ctx context.Context, req []byte) ([]byte, error) {
	ids, single := expiry.ReadRequest(req, leader.MaxQuestions)
	renewals, err := l.expirer.Renew(ctx, ids)
	switch {
	case err != nil:
		return nil, err
	case single && renewals[0] == expiry.Unknown:
		return nil, ErrLeaseNotFound
	case single && renewals[0] == expiry.Ending:
		return nil, errNotLeader // the caller asks again
	}
	return expiry.AppendRenewals(nil, renewals), nil
}

func (l *leases) callTimeToLive(ctx context.Context, leader uint64, ids []int64) ([]expiry.Lifetime, error) {
	b, err := l.call(ctx, MemberID(leader), methodTimeToLive, expiry.Request(ids))
	switch {
	case errors.Is(err, ErrLeaseNotFound): // the answer for a single lease
		return []expiry.Lifetime{{}}, nil
	case err != nil:
		return nil, err
	}
	return expiry.ReadLifetimes(b, len(ids))
}

func (l *leases) answerTimeToLive(ctx context.Context, req []byte) ([]byte, error) {
	ids, single := expiry.ReadRequest(req, leader.MaxQuestions)
	all, err := l.expirer.TimeToLive(ctx, ids)
	switch {
	case err != nil:
		return nil, err
	case single && all[0].TTL == 0:
		return nil, ErrLeaseNotFound
	}
	return expiry.AppendLifetimes(nil, all, single), nil
}
