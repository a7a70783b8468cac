// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/expiry"
	"github.com/coterie-kv/coterie/internal/leader"
	"github.com/coterie-kv/coterie/internal/state"
)

// The bounds of a TTL.
const (
	MinTTL = time.Second
	MaxTTL = 9_000_000_000 * time.Second
)

// A GrantResponse answers [Node.Grant].
type GrantResponse struct {
	Header
	ID  LeaseID       `json:"id"`
	TTL time.Duration `json:"ttl"`
}

// A RevokeResponse answers [Node.Revoke].
type RevokeResponse struct{ Header }

// A KeepAliveResponse answers [Node.KeepAliveOnce]. The revision of its header is this node's: renewals
// make no revision.
type KeepAliveResponse struct {
	Header
	ID  LeaseID       `json:"id"`
	TTL time.Duration `json:"ttl"`
}

// A TimeToLiveResponse answers [Node.TimeToLive].
type TimeToLiveResponse struct {
	Header
	ID LeaseID `json:"id"`
	// TTL is the time that the lease was granted for.
	TTL time.Duration `json:"ttl"`
	// Remaining is the part of it that was left when the leader answered.
	Remaining time.Duration `json:"remaining"`
	// Keys are the keys attached to the lease, in their order.
	Keys []string `json:"keys"`
}

// A LeasesResponse answers [Node.Leases].
type LeasesResponse struct {
	Header
	Leases []LeaseID `json:"leases"` // in their order
}

// A GrantOption is an option of [Node.Grant].
type GrantOption interface{ grant(*command.Grant) }

type grantID LeaseID

func (o grantID) grant(g *command.Grant) { g.ID = int64(o) }

// WithGrantID asks for a lease ID instead of a random one. 0 asks for a random one.
func WithGrantID(id LeaseID) GrantOption { return grantID(id) }

// Grant makes a lease: a time to live that keys can be attached to with [WithLease]. A lease
// that is not renewed expires after ttl, and its keys are deleted with it. Grant returns when this node has
// applied the lease. It may be called on any node, concurrently. The lease lives at least ttl, and may
// live longer: a new leader counts from its election.
//
// Unlike etcd, it never changes ttl silently.
//
// Errors: ErrTTLRange, ErrLeaseExists, ErrNoSpace, ErrOverloaded: nothing was changed.
// ErrMaybeApplied when ctx ended or the node closed while the outcome was open; ErrClosed.
func (n *Node) Grant(ctx context.Context, ttl time.Duration, opts ...GrantOption) (*GrantResponse, error) {
	return n.grant(ctx, nil, ttl, opts)
}

func (n *Node) grant(ctx context.Context, as *command.As, ttl time.Duration, opts []GrantOption) (*GrantResponse, error) {
	g := command.Grant{TTL: int64(ttl)}
	for _, opt := range opts {
		opt.grant(&g)
	}
	if ttl < MinTTL || ttl > MaxTTL {
		return nil, fmt.Errorf("%w: %v is not between %v and %v", ErrTTLRange, ttl, MinTTL, MaxTTL)
	}
	drawn := g.ID == 0
	for {
		if drawn {
			g.ID = rand.Int64N(1<<63-1) + 1
		}
		r, err := n.command(ctx, &command.Command{As: as, Grant: &g})
		switch {
		case err == nil:
			return &GrantResponse{Header: n.header(r.Revision), ID: LeaseID(g.ID), TTL: ttl}, nil
		case !drawn || !errors.Is(err, ErrLeaseExists):
			return nil, err
		}
	}
}

// Revoke ends a lease and deletes its keys, in one revision.
//
// Errors: ErrLeaseNotFound, ErrNoSpace when a disk is full, ErrOverloaded: nothing was changed.
// ErrMaybeApplied, ErrClosed.
func (n *Node) Revoke(ctx context.Context, id LeaseID) (*RevokeResponse, error) {
	return n.revoke(ctx, nil, id)
}

func (n *Node) revoke(ctx context.Context, as *command.As, id LeaseID) (*RevokeResponse, error) {
	r, err := n.command(ctx, &command.Command{As: as, Revoke: &command.Revoke{ID: int64(id)}})
	if err != nil {
		return nil, err
	}
	return &RevokeResponse{n.header(r.Revision)}, nil
}

// KeepAliveOnce renews a lease: it lives for another TTL, counted from a moment after the call began.
// A leader answers only after it has confirmed that it still leads, so an acknowledged renewal is never
// followed by an expiry that was decided before it. Renewals are not written to the log.
//
// Unlike clientv3, it fails for a lease that does not exist.
//
// Errors: ErrLeaseNotFound; ctx's cause, joined with ErrNoLeader if no leader was known; ErrClosed.
func (n *Node) KeepAliveOnce(ctx context.Context, id LeaseID) (*KeepAliveResponse, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	if id == 0 { // no lease has it, and the calls between nodes end their lists with it
		return nil, ErrLeaseNotFound
	}
	for {
		r, err := n.leases.renewals.Ask(ctx, int64(id))
		switch {
		case err != nil:
			return nil, err
		case r == expiry.Unknown:
			return nil, ErrLeaseNotFound
		case r != expiry.Ending:
			return &KeepAliveResponse{Header: n.header(n.views.Summary().Revision), ID: id, TTL: time.Duration(r)}, nil
		}
		outcome := time.NewTimer(leader.RetryAfter(n.cfg.ElectionTimeout))
		select {
		case <-outcome.C:
		case <-ctx.Done():
			outcome.Stop()
			return nil, n.contextError(ctx)
		case <-n.life.Closing():
			outcome.Stop()
			return nil, n.life.Err()
		}
	}
}

// KeepAlive renews a lease at once, and then about every third of its TTL, until ctx ends, the lease is
// gone or the node closes. It blocks, and retries a renewal that fails. Use a [Session] if the holder
// of the lease must know in time that it has ended.
//
// Unlike clientv3, it returns why it ended instead of a channel.
//
// Errors: ctx's cause, ErrLeaseNotFound, ErrClosed: never nil.
func (n *Node) KeepAlive(ctx context.Context, id LeaseID) error {
	return n.keepAlive(ctx, id, n.KeepAliveOnce)
}

// keepAlive renews a lease with once until that fails.
func (n *Node) keepAlive(ctx context.Context, id LeaseID, once func(context.Context, LeaseID) (*KeepAliveResponse, error)) error {
	for {
		l, err := once(ctx, id)
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

// TimeToLive returns the time that a lease has left, and the keys attached to it. It is linearizable.
//
// Unlike clientv3, it always returns the keys, and fails for a lease that does not exist.
//
// Errors: those of KeepAliveOnce.
func (n *Node) TimeToLive(ctx context.Context, id LeaseID) (*TimeToLiveResponse, error) {
	return n.timeToLive(ctx, nil, id)
}

func (n *Node) timeToLive(ctx context.Context, as *command.As, id LeaseID) (*TimeToLiveResponse, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	if as != nil {
		if err := codeError(n.views.Summary().Auth.Guard(as).User()); err != nil {
			return nil, err
		}
	}
	if id == 0 { // as for KeepAliveOnce
		return nil, ErrLeaseNotFound
	}
	left, err := n.leases.lifetimes.Ask(ctx, int64(id))
	if err != nil {
		return nil, err
	}
	if left.TTL == 0 {
		return nil, ErrLeaseNotFound
	}
	v, err := n.views.AwaitView(ctx, func(v *state.Summary) bool { return v.Index >= left.Index })
	if err == nil && as != nil {
		err = codeError(v.Auth.Guard(as).Keys(command.Read, v.Leases.Keys(int64(id))))
	}
	if err != nil {
		return nil, err
	}
	return &TimeToLiveResponse{
		Header: n.header(v.KV.Revision()), ID: id, TTL: left.TTL, Remaining: left.Left,
		Keys: slices.Collect(v.Leases.Keys(int64(id))),
	}, nil
}

// Leases returns the IDs of all leases. Unlike etcd's, it is linearizable.
//
// Errors: ctx's cause, joined with ErrNoLeader if no leader was known; ErrClosed.
func (n *Node) Leases(ctx context.Context) (*LeasesResponse, error) {
	v, err := n.latest(ctx)
	if err != nil {
		return nil, err
	}
	return n.leasesOf(v), nil
}

func (n *Node) leasesOf(v *state.View) *LeasesResponse {
	r := &LeasesResponse{Header: n.header(v.KV.Revision())}
	for l := range v.Leases.All() {
		r.Leases = append(r.Leases, LeaseID(l.ID))
	}
	return r
}

// latest returns a view that has everything that was answered before the call.
func (n *Node) latest(ctx context.Context) (*state.View, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	return n.reads.linearizable(ctx)
}
