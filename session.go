// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Session keeps a lease alive, for locks and leadership that must be free when their holder is
// gone. Its methods may be called concurrently.
type Session struct {
	n   *Node
	id  LeaseID
	ctx context.Context
	end context.CancelCauseFunc

	mu       sync.Mutex
	deadline time.Time   // until which the lease cannot have ended elsewhere
	expiry   *time.Timer // runs expire then
}

// A SessionOption fits [NewSession] and, as a [LeaderOption], [RunAsLeader].
type SessionOption func(*sessionOptions)

type sessionOptions struct {
	ttl   time.Duration
	lease LeaseID
}

// WithTTL sets how long the lease outlives its holder. Defaults to 15 s. One of less than several
// election timeouts may end with the cluster's leader, before another is elected.
func WithTTL(ttl time.Duration) SessionOption { return func(o *sessionOptions) { o.ttl = ttl } }

// WithExistingLease continues a lease, one of an orphaned session for instance, instead of granting
// another.
func WithExistingLease(id LeaseID) SessionOption { return func(o *sessionOptions) { o.lease = id } }

const defaultTTL = 15 * time.Second

// errSessionOver is why the context of a session ends that was closed or orphaned.
var errSessionOver = fmt.Errorf("%w: closed by its owner", ErrSessionExpired)

// NewSession grants a lease and renews it, about every third of its TTL, until Close, Orphan, or the
// node's Close. ctx bounds the grant alone; without a quorum it blocks until ctx ends.
//
// Errors: ErrTTLRange; with WithExistingLease ErrLeaseNotFound; those of Grant.
func NewSession(ctx context.Context, n *Node, opts ...SessionOption) (*Session, error) {
	o := sessionOptions{ttl: defaultTTL}
	for _, opt := range opts {
		opt(&o)
	}
	sent := time.Now()
	var l Lease
	var err error
	if o.lease != 0 {
		l, err = n.KeepAliveOnce(ctx, o.lease)
	} else {
		l, err = n.Grant(ctx, o.ttl)
	}
	if err != nil {
		return nil, err
	}
	s := &Session{n: n, id: l.ID}
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	s.renewed(sent, l.TTL)
	n.keeper.add(s, l.TTL)
	return s, nil
}

// renewed notes that a renewal was acknowledged that was sent at some time: the leader's own
// deadline is a TTL after that or later. A twentieth is for clocks that do not run alike.
func (s *Session) renewed(sent time.Time, ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = sent.Add(ttl - ttl/20)
	switch left := time.Until(s.deadline); {
	case s.expiry == nil:
		s.expiry = time.AfterFunc(left, s.expire)
	case s.ctx.Err() == nil:
		s.expiry.Reset(left)
	}
}

// expire ends a session that was not renewed in time.
func (s *Session) expire() {
	if s.late() {
		s.finish(fmt.Errorf("%w: %w", ErrSessionExpired, s.n.unanswered(context.DeadlineExceeded)))
	}
}

// late reports whether the lease may have ended elsewhere.
func (s *Session) late() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !time.Now().Before(s.deadline)
}

// finish ends the session, once, and with it the renewals of its lease.
func (s *Session) finish(cause error) {
	s.end(cause)
	s.mu.Lock()
	s.expiry.Stop()
	s.mu.Unlock()
	s.n.keeper.drop(s)
}

// Err returns why the session is over, and nil while it lives: by the clock, for a process that was
// stopped may ask before the timer of Context has run.
func (s *Session) Err() error {
	if s.late() {
		s.finish(ErrSessionExpired)
	}
	return context.Cause(s.ctx)
}

// Node returns the node that renews the session's lease.
func (s *Session) Node() *Node { return s.n }

// Lease returns the session's lease, to attach keys to.
func (s *Session) Lease() LeaseID { return s.id }

// Context returns a context that ends, with a cause that matches ErrSessionExpired, when the
// session does: by Close or Orphan, when the lease is found gone, and, when renewals fail, before
// the lease can expire anywhere else. What the session protects must stop with it. After the
// process was stopped for long it ends as soon as its timers run: [Session.Err] is sooner, and whoever
// must know at the instant of a write uses a guard.
func (s *Session) Context() context.Context { return s.ctx }

// WorkContext returns a context that ends with ctx, with the returned function, which must be called, or with
// the session: then with its cause, before anybody else can have what belongs to the session.
func (s *Session) WorkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if ended := s.Err(); ended != nil {
		cancel(ended) // at once, and not when the goroutine of AfterFunc comes to it
	}
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// CommitOrUndo commits a transaction that gives the session something, as a key with its lease, and returns
// when the outcome is known, or when the Txn's ctx or the session ends: with an error, the session has
// nothing. What was done all the same, or is done later, the operations of undo take back as soon as that
// is known, and not before, for they might come before it. They must do no harm when there is nothing to
// take back, and be no larger than the transaction.
//
//	key := fmt.Sprintf("jobs/%v-%08x", s.Lease(), rand.Uint32())
//	s.CommitOrUndo(n.Txn(ctx).Then(coterie.OpPut(key, "", coterie.WithLease(s.Lease()))), coterie.OpDelete(key))
//
// Errors: ctx's cause, with ErrNoLeader when none was known; ErrSessionExpired when the session has ended,
// or its lease is gone;
// ErrLeaseNotFound when another lease is; those of [Txn.Commit].
func (s *Session) CommitOrUndo(t *Txn, undo ...Op) (*TxnResponse, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	for _, t := range []*Txn{t, s.n.Txn(s.ctx).Then(undo...)} {
		if err := t.check(); err != nil {
			return nil, err
		}
	}
	ctx := t.ctx
	if ctx.Err() != nil {
		return nil, s.n.contextError(ctx)
	}
	t.ctx = context.WithoutCancel(ctx)
	type outcome struct {
		*TxnResponse
		err error
	}
	known, left := make(chan outcome), make(chan struct{})
	defer close(left)
	go func() {
		r, err := t.Commit()
		select {
		case known <- outcome{r, err}:
		case <-left:
			if err == nil || errors.Is(err, ErrMaybeApplied) {
				s.CleanUp(undo...)
			}
		}
	}()
	var o outcome
	select {
	case o = <-known:
	case <-ctx.Done():
		return nil, s.n.contextError(ctx)
	case <-s.ctx.Done():
		return nil, context.Cause(s.ctx)
	}
	switch {
	case errors.Is(o.err, ErrLeaseNotFound):
		// The transaction may name other leases.
		if _, err := s.n.KeepAliveOnce(ctx, s.id); errors.Is(err, ErrLeaseNotFound) {
			s.finish(fmt.Errorf("%w: %w", ErrSessionExpired, err))
			return nil, context.Cause(s.ctx)
		}
	case errors.Is(o.err, ErrMaybeApplied):
		go s.CleanUp(undo...)
	}
	return o.TxnResponse, o.err
}

// CleanUp executes operations in one transaction, for what the session gives up and nobody would give up
// later, as a place in a line, which would be waited for as long as the session lives. It blocks until
// that is applied: while the node has no room, and without a quorum. It tries in vain only when the node
// closes, or the operations can never be. It works when the session is over, too, for the lease may live
// on.
func (s *Session) CleanUp(ops ...Op) {
	_ = s.insist(context.WithoutCancel(s.ctx), func(ctx context.Context) error {
		_, err := s.n.Txn(ctx).Then(ops...).Commit()
		return err
	})
}

// Orphan ends the session and lets the lease live on until it expires, or another session continues
// it.
func (s *Session) Orphan() { s.finish(errSessionOver) }

// revokeTime is how long Close tries to revoke a lease that should have ended by itself: a new
// leader may have given it another TTL.
const revokeTime = 2 * time.Second

// Close ends the session and revokes the lease, with which its keys go. Without a quorum, or when the
// node takes no writes, it tries until the lease would have ended, and for two seconds at least; then it
// leaves that to the lease.
// It is idempotent.
func (s *Session) Close() error {
	s.Orphan()
	s.mu.Lock()
	left := max(time.Until(s.deadline), revokeTime)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	err := s.insist(ctx, func(ctx context.Context) error { return s.n.Revoke(ctx, s.id) })
	if errors.Is(err, ErrLeaseNotFound) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// insist runs a write again as long as the node refuses it for lack of space or of places, or cannot
// tell its outcome, until ctx ends or the node closes: for what has to be given up, which nobody would
// give up later, and which does no harm when it is done twice.
func (s *Session) insist(ctx context.Context, write func(context.Context) error) error {
	for {
		err := write(ctx)
		if !slices.ContainsFunc([]error{ErrOverloaded, ErrNoSpace, ErrMaybeApplied}, func(e error) bool { return errors.Is(err, e) }) {
			return err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.n.Done():
			return err
		}
	}
}
