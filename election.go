// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"sync"
	"time"
)

// An Election chooses one among all who campaign under its prefix, on any node, in the order in
// which they did. Its methods may be called concurrently. See [RunAsLeader] for the usual case.
type Election struct {
	s      *Session
	prefix string

	mu   sync.Mutex
	won  *place // nil unless this Election leads
	busy bool   // a Campaign is under way
}

// NewElection returns an Election that does not lead.
func NewElection(s *Session, prefix string) *Election { return &Election{s: s, prefix: prefix} }

// Campaign waits until this Election leads, with val for all to see. When it leads already, it
// proclaims val. When it fails, no candidacy is left behind.
//
// Errors: ctx's cause; ErrSessionExpired when the session ended, ErrNotOwner when somebody removed
// the candidacy: it never returns nil without leading; ErrLocked when another Campaign of this
// Election is under way; ErrClosed.
func (e *Election) Campaign(ctx context.Context, val string) error {
	e.mu.Lock()
	won, busy := e.won, e.busy
	e.busy = true
	e.mu.Unlock()
	if busy {
		return ErrLocked
	}
	err := ErrNotOwner
	if won != nil {
		err = e.Proclaim(ctx, val)
	}
	if errors.Is(err, ErrNotOwner) {
		won, err = e.campaign(ctx, val)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy = false
	if err == nil {
		e.won = won
	}
	return err
}

func (e *Election) campaign(ctx context.Context, val string) (*place, error) {
	p := newPlace(e.s, e.prefix)
	if _, err := p.take(ctx, val); err != nil {
		return nil, err
	}
	if err := p.wait(ctx); err != nil {
		p.abandon()
		return nil, err
	}
	return p, nil
}

// place returns what the Election leads by: nil if it does not.
func (e *Election) place() *place {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.won
}

// Proclaim changes the leader's value.
//
// Errors: ErrNotOwner when this Election does not lead, or no longer; those of a write.
func (e *Election) Proclaim(ctx context.Context, val string) error {
	p := e.place()
	if p == nil {
		return ErrNotOwner
	}
	if err := e.s.Err(); err != nil {
		return err
	}
	r, err := e.s.Node().Txn(ctx).If(p.guard()).Then(OpPut(p.key, val, WithLease(e.s.Lease()))).Commit()
	if err != nil {
		return err
	}
	if !r.Succeeded {
		e.lost(p)
		return ErrNotOwner
	}
	return nil
}

// Resign gives leadership up; the next candidate leads then. After an error other than ErrNotOwner
// it may be called again.
//
// Errors: ErrNotOwner when this Election does not lead, or no longer: the leadership of another is
// never touched. Those of a write.
func (e *Election) Resign(ctx context.Context) error {
	p := e.place()
	if p == nil {
		return ErrNotOwner
	}
	err := p.leave(ctx)
	if err == nil || errors.Is(err, ErrNotOwner) {
		e.lost(p)
	}
	return err
}

func (e *Election) lost(p *place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.won == p {
		e.won = nil
	}
}

// Token returns the fencing token: a number higher than that of every earlier leader; 0 when this
// Election does not lead.
func (e *Election) Token() int64 {
	if p := e.place(); p != nil {
		return p.rev
	}
	return 0
}

// Guard returns a condition that holds as long as this Election leads, as [Mutex.Guard] does.
func (e *Election) Guard() Cmp {
	p := e.place()
	if p == nil {
		p = &place{key: e.prefix + "/"}
	}
	return p.guard()
}

// retryPause is how long RunAsLeader waits after a failure before it tries again.
const retryPause = 100 * time.Millisecond

// RunAsLeader campaigns under prefix, with val for all to see, and runs fn as the leader, with a
// context that ends before anyone else can lead, and the fencing token of this leadership. When
// leadership is lost it campaigns again, once fn has returned, until ctx ends, fn returns as the
// leader, or the node closes. It has a session of its own, and resigns when it returns.
//
// A body that returns when its context ends never overlaps with another's. One that may be stopped
// for long, as processes are, must guard what it writes: with the token, or in this store with
// [GuardOf]. To stop an instance, end ctx and wait for RunAsLeader before the node is closed: a node
// that is closed revokes nothing, and the next leader has to wait for the lease.
//
// It returns what fn returned as the leader; else ctx's cause, ErrClosed, ErrTTLRange, or ErrTooLarge
// when val is. With an error fn has not returned as the leader if it leads no more, whether it was told
// or has found out by a write that the guard refused.
func RunAsLeader(ctx context.Context, n *Node, prefix, val string,
	fn func(ctx context.Context, token int64) error, opts ...SessionOption,
) error {
	for {
		done, err := runOnce(ctx, n, prefix, val, fn, opts)
		switch {
		case done:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrClosed), errors.Is(err, ErrTTLRange), errors.Is(err, ErrTooLarge), errors.Is(err, ErrInvalidOption):
			return err
		}
		// A lease that was given is gone by now.
		opts = append(opts[:len(opts):len(opts)], WithSessionLease(0))
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		case <-n.Done():
		}
	}
}

// runOnce campaigns and runs fn once. done says that fn returned as the leader, and err is what it
// returned then; else err is why it did not come to lead.
func runOnce(ctx context.Context, n *Node, prefix, val string,
	fn func(context.Context, int64) error, opts []SessionOption,
) (done bool, err error) {
	s, err := NewSession(ctx, n, opts...)
	if err != nil {
		return false, err
	}
	defer settle(ctx, func() { s.Close() })
	e := NewElection(s, prefix)
	if err := e.Campaign(ctx, val); err != nil {
		return false, err
	}
	p := e.place()
	bound, unbind := s.Bind(withGuard(ctx, p.guard()))
	defer unbind()
	inner, cancel := context.WithCancelCause(bound)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(p.lost(inner)) })
	err = fn(inner, p.rev)
	done = inner.Err() == nil && s.Err() == nil
	if done && err != nil {
		// A write that its guard refused may have told fn sooner than the watch tells here.
		done = p.held(inner)
	}
	cancel(nil)
	watching.Wait()
	if !done {
		err = nil // fn's, which must not be taken for a reason to campaign no more
	}
	return done, err
}
