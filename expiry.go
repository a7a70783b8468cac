// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// An expirer keeps the deadlines of leases on the leader's monotonic clock, and proposes their
// expiry. On other nodes it knows none.
type expirer struct {
	n    *Node
	wake chan struct{} // has a value when the next deadline may have changed

	mu        sync.Mutex
	term      uint64 // in which the deadlines hold; 0: none do
	deadlines *lease.Deadlines
}

func newExpirer(n *Node) *expirer {
	return &expirer{n: n, wake: make(chan struct{}, 1), deadlines: lease.NewDeadlines()}
}

// maxExpire bounds the leases of one proposal; after a long outage many may have ended.
const maxExpire = 1000

// applied follows the leases that the log grants and ends, in the FSM's goroutine. When this
// leader's first command is applied, it gives every lease its full TTL.
func (e *expirer) applied(lead Leadership, v *state.View, changes []leaseChange) {
	if !lead.Self || v.Term != lead.Term {
		return
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term != lead.Term {
		e.term = lead.Term
		e.deadlines.Reset(v.Leases.All(), now)
		signal.Poke(e.wake)
		return
	}
	for _, c := range changes {
		if c.TTL > 0 {
			e.deadlines.Grant(c, now)
		} else {
			e.deadlines.Revoke(c.ID)
		}
	}
	if len(changes) > 0 {
		signal.Poke(e.wake)
	}
}

// hold reports whether the deadlines hold for a term.
func (e *expirer) hold(term uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.term == term
}

// demote forgets the deadlines: another leader has its own.
func (e *expirer) demote() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term = 0
	e.deadlines.Clear()
}

// run proposes the expiry of leases when they are due.
func (e *expirer) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		e.mu.Lock()
		now := time.Now()
		term, ids := e.term, e.deadlines.Expire(now, maxExpire, 2*e.n.cfg.ElectionTimeout)
		next, some := e.deadlines.Next()
		e.mu.Unlock()
		if len(ids) > 0 {
			e.n.apply(command.Single(&command.Proposal{
				Command: command.Command{Expire: &command.Expire{IDs: ids, Term: term}},
			}))
			continue
		}
		if !some {
			next = now.Add(time.Hour)
		}
		timer.Reset(next.Sub(now))
		select {
		case <-timer.C:
		case <-e.wake:
		case <-e.n.closing:
			return
		}
	}
}

// lead confirms that this node leads and that the deadlines hold for its term, and runs fn with
// both.
func (e *expirer) lead(ctx context.Context, fn func(now time.Time) (wait <-chan struct{}, err error)) (index uint64, err error) {
	for {
		p, err := e.n.reads.point(ctx)
		if err != nil {
			return 0, err
		}
		if _, err := e.n.await(ctx, p.reached); err != nil {
			return 0, err
		}
		e.mu.Lock()
		if p.term == 0 || e.term != p.term {
			e.mu.Unlock()
			return 0, errNotLeader
		}
		wait, err := fn(time.Now())
		e.mu.Unlock()
		if wait == nil || err != nil {
			return p.index, err
		}
		// Its expiry was proposed: the outcome answers.
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-e.n.closing:
			return 0, e.n.closedError()
		}
	}
}

// renew gives a lease another TTL, if this node leads.
func (e *expirer) renew(ctx context.Context, id LeaseID) (ttl time.Duration, err error) {
	_, err = e.lead(ctx, func(now time.Time) (<-chan struct{}, error) {
		var wait <-chan struct{}
		var ok bool
		if ttl, wait, ok = e.deadlines.Renew(int64(id), now); !ok {
			return nil, ErrLeaseNotFound
		}
		return wait, nil
	})
	return ttl, err
}

// remaining is what the leader knows of a lease.
type remaining struct {
	ttl, left time.Duration
	index     uint64 // of the log, at which it was so
}

// timeToLive looks at a lease's deadline, if this node leads.
func (e *expirer) timeToLive(ctx context.Context, id LeaseID) (r remaining, err error) {
	r.index, err = e.lead(ctx, func(now time.Time) (<-chan struct{}, error) {
		var ok bool
		if r.ttl, r.left, ok = e.deadlines.Remaining(int64(id), now); !ok {
			return nil, ErrLeaseNotFound
		}
		return nil, nil
	})
	return r, err
}

func leaseRequest(id LeaseID) []byte { return binary.AppendUvarint(nil, uint64(id)) }

// leaseFrom reads a lease request. What cannot be read is lease 0, which does not exist.
func leaseFrom(b []byte) LeaseID {
	id, err := uvarint(b, nil)
	if err != nil {
		return 0
	}
	return LeaseID(id)
}

func (r remaining) append(b []byte) []byte {
	b = wire.Int(b, 1, int64(r.ttl))
	b = wire.Int(b, 2, int64(r.left))
	return wire.Uint(b, 3, r.index)
}

func readRemaining(b []byte) (r remaining, err error) {
	fields := wire.NewReader(b)
	for fields.Next() {
		switch fields.Field() {
		case 1:
			r.ttl = time.Duration(fields.Int())
		case 2:
			r.left = time.Duration(fields.Int())
		case 3:
			r.index = fields.Uint()
		}
	}
	return r, fields.Err()
}
