// SPDX-License-Identifier: Apache-2.0

// Package expiry ends leases. The leader of a cluster keeps their deadlines on its monotonic clock, renews
// them, and proposes the end of leases that have expired.
package expiry

import (
	"context"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/signal"
)

// A Host is the node of an Expirer.
type Host interface {
	// Confirm returns an index of the log at or after every write that was answered before, once this node
	// has applied it, and the term in which this node led all the while; 0 if another node leads.
	Confirm(ctx context.Context) (index, term uint64, err error)
	// Expire proposes that leases end. The proposal is void in another term, and may be dropped.
	Expire(ids []int64, term uint64)
	// Closing returns a channel that is closed when Run has to return.
	Closing() <-chan struct{}
}

// An Expirer keeps the deadlines of leases while its node leads. On other nodes it knows none. Its methods
// may be called concurrently.
type Expirer struct {
	host  Host
	retry time.Duration // after which a proposal without an outcome is repeated
	wake  chan struct{} // has a value when the next deadline may have changed

	mu        sync.Mutex // guards the fields below
	term      uint64     // in which the deadlines hold; 0: none do
	deadlines *lease.Deadlines
}

// maxExpire bounds the leases of one proposal; after a long outage many may have ended.
const maxExpire = 1000

// New returns an Expirer. It repeats a proposal if it does not learn the outcome within retry.
func New(host Host, retry time.Duration) *Expirer {
	return &Expirer{host: host, retry: retry, wake: make(chan struct{}, 1), deadlines: lease.NewDeadlines()}
}

// Applied follows the leases that a batch of the log grants or, without a TTL, ends. Call it only if this
// node leads and has applied a command of its term; the first time in a term, it gives every lease its full
// TTL. Call it before the view is published, because a call that has waited for the view asks for the
// deadlines.
func (e *Expirer) Applied(term uint64, all *lease.View, changes []lease.Lease) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term != term {
		e.term = term
		e.deadlines.Reset(all.All(), now)
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

// Demote forgets the deadlines: another leader has its own.
func (e *Expirer) Demote() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term = 0
	e.deadlines.Clear()
}

// Run proposes the expiry of leases when they are due, until the node closes.
func (e *Expirer) Run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		e.mu.Lock()
		now := time.Now()
		term, ids := e.term, e.deadlines.Expire(now, maxExpire, e.retry)
		next, some := e.deadlines.Next()
		e.mu.Unlock()
		if len(ids) > 0 {
			e.host.Expire(ids, term)
			continue
		}
		if !some {
			next = now.Add(time.Hour)
		}
		timer.Reset(next.Sub(now))
		select {
		case <-timer.C:
		case <-e.wake:
		case <-e.host.Closing():
			return
		}
	}
}

// lead confirms that this node leads and that the deadlines hold for its term, and calls fn for each lease,
// all at one moment. It returns the index of the log at which that was so.
//
// Errors: fault.ErrNotLeader; the host's.
func (e *Expirer) lead(ctx context.Context, ids []int64, fn func(i int, id int64, now time.Time)) (index uint64, err error) {
	index, term, err := e.host.Confirm(ctx)
	if err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if term == 0 || e.term != term {
		return 0, fault.ErrNotLeader
	}
	now := time.Now()
	for i, id := range ids {
		fn(i, id, now)
	}
	return index, nil
}

// Renew gives leases another TTL, if this node leads. It does not wait for the outcome of an expiry: with a
// slow disk that would hold up the renewals of all leases.
func (e *Expirer) Renew(ctx context.Context, ids []int64) ([]Renewal, error) {
	renewals := make([]Renewal, len(ids))
	_, err := e.lead(ctx, ids, func(i int, id int64, now time.Time) {
		switch ttl, ending, ok := e.deadlines.Renew(id, now); {
		case !ok:
			renewals[i] = Unknown
		case ending:
			renewals[i] = Ending
		default:
			renewals[i] = Renewal(ttl)
		}
	})
	return renewals, err
}

// TimeToLive returns the deadlines of leases, if this node leads.
func (e *Expirer) TimeToLive(ctx context.Context, ids []int64) ([]Lifetime, error) {
	all := make([]Lifetime, len(ids))
	index, err := e.lead(ctx, ids, func(i int, id int64, now time.Time) {
		all[i].TTL, all[i].Left, _ = e.deadlines.Remaining(id, now)
	})
	for i := range all {
		all[i].Index = index
	}
	return all, err
}
