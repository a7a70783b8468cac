// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/signal"
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

// applied follows the leases that the log grants and ends, in the FSM's goroutine. When the first command
// of this leader's term is applied, it gives every lease its full TTL.
func (e *expirer) applied(b appliedBatch) {
	if !b.lead.Self || b.view.Term != b.lead.Term {
		return
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term != b.lead.Term {
		e.term = b.lead.Term
		e.deadlines.Reset(b.view.Leases.All(), now)
		signal.Poke(e.wake)
		return
	}
	for _, c := range b.effects.leases {
		if c.TTL > 0 {
			e.deadlines.Grant(c, now)
		} else {
			e.deadlines.Revoke(c.ID)
		}
	}
	if len(b.effects.leases) > 0 {
		signal.Poke(e.wake)
	}
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
		case <-e.n.life.Closing():
			return
		}
	}
}

// lead confirms that this node leads and that the deadlines hold for its term, and calls fn for each
// lease, all at one moment. It returns the index of the log at which that was so.
func (e *expirer) lead(ctx context.Context, ids []LeaseID, fn func(i int, id int64, now time.Time)) (index uint64, err error) {
	p, err := e.n.reads.point(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := e.n.views.Await(ctx, p.reached); err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p.term == 0 || e.term != p.term {
		return 0, errNotLeader
	}
	now := time.Now()
	for i, id := range ids {
		fn(i, int64(id), now)
	}
	return p.index, nil
}

// A renewal is the answer to one: the TTL that the lease has again, or why it has none.
type renewal time.Duration

const (
	leaseUnknown renewal = 0 // there is no such lease
	leaseEnding  renewal = 1 // its expiry was proposed: ask again when the outcome is known
)

// renew gives leases another TTL, if this node leads. It waits for no outcome of an expiry: with a
// slow disk that would hold up the renewals of all leases.
func (e *expirer) renew(ctx context.Context, ids []LeaseID) ([]renewal, error) {
	renewals := make([]renewal, len(ids))
	_, err := e.lead(ctx, ids, func(i int, id int64, now time.Time) {
		switch ttl, ending, ok := e.deadlines.Renew(id, now); {
		case !ok:
			renewals[i] = leaseUnknown
		case ending:
			renewals[i] = leaseEnding
		default:
			renewals[i] = renewal(ttl)
		}
	})
	return renewals, err
}

// remaining is what the leader knows of a lease.
type remaining struct {
	ttl, left time.Duration // a TTL of 0: there is no such lease
	index     uint64        // of the log, at which it was so
}

// timeToLive looks at the deadlines of leases, if this node leads.
func (e *expirer) timeToLive(ctx context.Context, ids []LeaseID) ([]remaining, error) {
	all := make([]remaining, len(ids))
	index, err := e.lead(ctx, ids, func(i int, id int64, now time.Time) {
		all[i].ttl, all[i].left, _ = e.deadlines.Remaining(id, now)
	})
	for i := range all {
		all[i].index = index
	}
	return all, err
}
