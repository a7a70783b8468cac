// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/state"
)

// A LeaseID identifies a lease. It is printed in hex, as etcdctl does.
type LeaseID int64

func (id LeaseID) String() string { return strconv.FormatUint(uint64(id), 16) }

// A Lease is a time to live that keys can be attached to: when it expires or is revoked, they are
// deleted with it.
type Lease struct {
	ID LeaseID
	// TTL is what the lease was granted.
	TTL time.Duration
	// Remaining is what was left of it when the leader answered.
	Remaining time.Duration
	// Keys are attached to it, in their order; only TimeToLive sets it.
	Keys []string
}

// The bounds of a TTL.
const (
	MinTTL = time.Second
	MaxTTL = 9_000_000_000 * time.Second
)

// A GrantOption fits [Node.Grant].
type GrantOption interface{ grant(*command.Grant) }

type leaseOption LeaseID

func (o leaseOption) grant(g *command.Grant) { g.ID = int64(o) }

// WithGrantID asks for a lease ID instead of a random one. 0 is a random one.
func WithGrantID(id LeaseID) GrantOption { return leaseOption(id) }

// Grant makes a lease that expires after ttl without a renewal. It returns when this node has
// applied it; it may be called on any node, concurrently. The lease lives at least ttl, and may
// live longer: a new leader counts from its election.
//
// Errors: ErrTTLRange, never a silent change of ttl, as etcd makes; ErrLeaseExists;
// ErrNoSpace, ErrOverloaded, ErrMaybeApplied, ErrClosed.
func (n *Node) Grant(ctx context.Context, ttl time.Duration, opts ...GrantOption) (Lease, error) {
	g := command.Grant{TTL: int64(ttl)}
	for _, opt := range opts {
		opt.grant(&g)
	}
	if ttl < MinTTL || ttl > MaxTTL {
		return Lease{}, fmt.Errorf("%w: %v is not between %v and %v", ErrTTLRange, ttl, MinTTL, MaxTTL)
	}
	drawn := g.ID == 0
	for {
		if drawn {
			g.ID = rand.Int64N(1<<63-1) + 1
		}
		r, err := n.propose(ctx, &command.Command{Grant: &g})
		if err == nil {
			err = resultError(r)
		}
		switch {
		case err == nil:
			return Lease{ID: LeaseID(g.ID), TTL: ttl, Remaining: ttl}, nil
		case !drawn || !errors.Is(err, ErrLeaseExists):
			return Lease{}, err
		}
	}
}

// Revoke ends a lease and deletes its keys, in one revision.
//
// Errors: ErrLeaseNotFound; ErrNoSpace when a disk is full; ErrOverloaded; ErrMaybeApplied, ErrClosed.
func (n *Node) Revoke(ctx context.Context, id LeaseID) error {
	r, err := n.propose(ctx, &command.Command{Revoke: &command.Revoke{ID: int64(id)}})
	if err != nil {
		return err
	}
	return resultError(r)
}

// KeepAliveOnce renews a lease: it lives for another TTL, counted from a moment after the call
// began. Only a leader that has just made sure of being one answers, so an acknowledged renewal is
// never followed by an expiry that was decided before it. Renewals are not written to the log.
//
// Errors: ErrLeaseNotFound; ctx's cause, joined with ErrNoLeader when none was known; ErrClosed.
func (n *Node) KeepAliveOnce(ctx context.Context, id LeaseID) (Lease, error) {
	if err := n.alive(ctx); err != nil {
		return Lease{}, err
	}
	for {
		r, err := n.renewals.ask(ctx, id)
		switch {
		case err != nil:
			return Lease{}, err
		case r == leaseUnknown:
			return Lease{}, ErrLeaseNotFound
		case r != leaseEnding:
			return Lease{ID: id, TTL: time.Duration(r), Remaining: time.Duration(r)}, nil
		}
		outcome := time.NewTimer(n.retryAfter())
		select {
		case <-outcome.C:
		case <-ctx.Done():
			outcome.Stop()
			return Lease{}, n.contextError(ctx)
		case <-n.life.Closing():
			outcome.Stop()
			return Lease{}, n.life.Err()
		}
	}
}

// KeepAlive renews a lease, at once and then about every third of its TTL, until ctx ends, the lease
// is gone or the node closes. It blocks; a renewal that fails is tried again. See [Session] for a
// lease whose holder must know in time that it has ended.
//
// Errors: ctx's cause, ErrLeaseNotFound, ErrClosed: never nil.
func (n *Node) KeepAlive(ctx context.Context, id LeaseID) error {
	for {
		l, err := n.KeepAliveOnce(ctx, id)
		if err != nil {
			return err
		}
		timer := time.NewTimer(renewIn(l.TTL))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-n.life.Closing():
			timer.Stop()
			return n.life.Err()
		}
	}
}

// TimeToLive tells what is left of a lease, and the keys attached to it. It is linearizable.
//
// Errors: those of KeepAliveOnce.
func (n *Node) TimeToLive(ctx context.Context, id LeaseID) (Lease, error) {
	if err := n.alive(ctx); err != nil {
		return Lease{}, err
	}
	left, err := n.lifetimes.ask(ctx, id)
	if err != nil {
		return Lease{}, err
	}
	if left.ttl == 0 {
		return Lease{}, ErrLeaseNotFound
	}
	v, err := n.views.Await(ctx, func(v *state.View) bool { return v.Index >= left.index })
	if err != nil {
		return Lease{}, err
	}
	return Lease{ID: id, TTL: left.ttl, Remaining: left.left, Keys: slices.Collect(v.Leases.Keys(int64(id)))}, nil
}

// Leases returns the IDs of all leases, in their order. It is linearizable, unlike etcd's.
func (n *Node) Leases(ctx context.Context) ([]LeaseID, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	v, err := n.linearizableView(ctx)
	if err != nil {
		return nil, err
	}
	var ids []LeaseID
	for l := range v.Leases.All() {
		ids = append(ids, LeaseID(l.ID))
	}
	return ids, nil
}
