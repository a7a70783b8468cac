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

// A Session keeps a lease alive. Locks and leadership belong to a session, so that they become free when
// their holder is gone. Its methods may be called concurrently.
type Session struct {
	// The node's keeper renews the lease and reports each renewal. A timer of the session itself ends it if
	// renewals do not arrive.

	n   *Node
	id  LeaseID
	ctx context.Context // ends with the session
	end context.CancelCauseFunc

	mu       sync.Mutex  // guards deadline and expiry
	deadline time.Time   // before it, the lease cannot expire on any leader
	expiry   *time.Timer // runs expire at the deadline
}

// A SessionOption is an option of [NewSession] and [RunWithLock] and, as a [LeaderOption], of [RunAsLeader].
type SessionOption func(*sessionOptions)

type sessionOptions struct {
	ttl   time.Duration
	lease LeaseID
}

// WithTTL sets the TTL of the session's lease: how long the lease outlives its holder. The default is
// 15 s. A lease with a TTL of less than several election timeouts may expire after the leader of the
// cluster fails, before another is elected.
func WithTTL(ttl time.Duration) SessionOption { return func(o *sessionOptions) { o.ttl = ttl } }

// WithExistingLease makes the session continue a lease, for example that of an orphaned session or of the
// process before a restart, instead of granting a new one. Its keys live on. Leadership can be resumed with
// [ResumeElection]. A [Mutex] cannot: a lock of that lease stays locked, for this session too, until its key is
// deleted or the lease ends. If id is 0, the session grants a lease. The option corresponds to
// concurrency.WithLease.
func WithExistingLease(id LeaseID) SessionOption { return func(o *sessionOptions) { o.lease = id } }

const defaultTTL = 15 * time.Second

// errSessionOver is the cause of the context of a session that was closed or orphaned.
var errSessionOver = fmt.Errorf("%w: closed by its owner", ErrSessionExpired)

// NewSession grants a lease and renews it, about every third of its TTL, until Close, Orphan, or the
// node's Close. ctx bounds only the call, and not the life of the session as in clientv3/concurrency.
// Without a quorum NewSession blocks until ctx ends.
//
// Errors: ErrTTLRange; ErrLeaseNotFound with WithExistingLease; those of [Node.Grant].
func NewSession(ctx context.Context, n *Node, opts ...SessionOption) (*Session, error) {
	o := sessionOptions{ttl: defaultTTL}
	for _, opt := range opts {
		opt(&o)
	}
	sent := time.Now()
	id, ttl, err := o.leaseOf(ctx, n)
	if err != nil {
		return nil, err
	}
	s := &Session{n: n, id: id}
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	s.renewed(sent, ttl)
	n.keeper.add(s, ttl)
	return s, nil
}

// leaseOf renews the lease that the session is to use, or grants one, and returns it with its TTL.
func (o *sessionOptions) leaseOf(ctx context.Context, n *Node) (LeaseID, time.Duration, error) {
	if o.lease != 0 {
		r, err := n.KeepAliveOnce(ctx, o.lease)
		if err != nil {
			return 0, 0, err
		}
		return r.ID, r.TTL, nil
	}
	r, err := n.Grant(ctx, o.ttl)
	if err != nil {
		return 0, 0, err
	}
	return r.ID, r.TTL, nil
}

// renewed records that the leader acknowledged a renewal that was sent at the given time. The leader's
// deadline is a TTL after that time or later. A twentieth is subtracted, because clocks differ in rate.
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

// late reports whether the lease may have expired on the leader.
func (s *Session) late() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !time.Now().Before(s.deadline)
}

// finish ends the session, and with it the renewals of its lease. Only the first cause counts.
func (s *Session) finish(cause error) {
	s.end(cause)
	s.mu.Lock()
	s.expiry.Stop()
	s.mu.Unlock()
	s.n.keeper.drop(s)
}

// Node returns the node that renews the session's lease.
func (s *Session) Node() *Node { return s.n }

// Lease returns the session's lease. Keys that belong to the session are attached to it.
func (s *Session) Lease() LeaseID { return s.id }

// Err returns the reason why the session has ended, and nil while it lives. It compares the clock with the
// lease's deadline, because after a long suspension of the process a caller may ask before the timer that
// ends Context has run.
func (s *Session) Err() error {
	if s.late() {
		s.finish(ErrSessionExpired)
	}
	return context.Cause(s.ctx)
}

// Done returns a channel that is closed when the session ends: [Session.Context] as a channel, with the
// same limits. [Session.Err] has the reason. In clientv3/concurrency the channel closes when renewals
// stop, which may be after the lease has expired.
func (s *Session) Done() <-chan struct{} { return s.ctx.Done() }

// Context returns a context that ends when the session ends, with a cause that matches ErrSessionExpired.
// The session ends with Close, Orphan, or the node; when the lease is found to be gone; and, if renewals
// fail, before the lease can expire on the leader. The work that the session protects must stop then.
//
// If the process was suspended for long, the context ends only when the timers of the process run again.
// [Session.Err] notices earlier. A write that must never happen after the session's end needs a guard:
// see [Mutex.Guard].
func (s *Session) Context() context.Context { return s.ctx }

// WorkContext returns a context for work that the session protects. It ends with ctx, with the returned
// function, which must be called, or with the session: then with the session's cause, before another
// session can get what belongs to this one.
func (s *Session) WorkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if ended := s.Err(); ended != nil {
		cancel(ended) // do not wait for the goroutine of AfterFunc
	}
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// CommitOrUndo commits a transaction that gives the session something, such as a key with its lease. The
// ctx of the Txn bounds this call, but not the transaction: the write continues after ctx has ended, so
// that its outcome becomes known. CommitOrUndo returns when the outcome is known, or when ctx or the
// session ends.
//
// If CommitOrUndo returns an error, the session has nothing. If the transaction is applied all the same,
// at once or later, the operations of undo reverse it. They run once the outcome is known, because earlier
// they could be applied before the transaction. They must do no harm if there is nothing to reverse, and
// must be no larger than the transaction. If t is a transaction of a [Namespace], so is that of undo.
//
//	key := fmt.Sprintf("jobs/%v-%08x", s.Lease(), rand.Uint32())
//	s.CommitOrUndo(n.Txn(ctx).Then(coterie.OpPut(key, "", coterie.WithLease(s.Lease()))), coterie.OpDelete(key))
//
// Errors: ctx's cause, with ErrNoLeader if no leader was known; ErrSessionExpired if the session has ended
// or its lease is gone; ErrLeaseNotFound if another lease is gone; those of [Txn.Commit].
func (s *Session) CommitOrUndo(t *Txn, undo ...Op) (*TxnResponse, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	for _, t := range []*Txn{t, s.n.Txn(s.ctx).Then(undo...)} {
		op, err := t.op()
		if err == nil {
			err = s.n.cfg.checkOp(&op.op)
		}
		if err != nil {
			return nil, err
		}
	}
	if t.ctx.Err() != nil {
		return nil, s.n.contextError(t.ctx)
	}
	type outcome struct {
		*TxnResponse
		err error
	}
	known, left := make(chan outcome), make(chan struct{})
	defer close(left)
	go func() {
		r, err := t.commit(context.WithoutCancel(t.ctx))
		select {
		case known <- outcome{r, err}:
		case <-left:
			if err == nil || errors.Is(err, ErrMaybeApplied) {
				s.cleanUp(t.doer, undo)
			}
		}
	}()
	var o outcome
	select {
	case o = <-known:
	case <-t.ctx.Done():
		return nil, s.n.contextError(t.ctx)
	case <-s.ctx.Done():
		return nil, context.Cause(s.ctx)
	}
	switch {
	case errors.Is(o.err, ErrLeaseNotFound):
		// The transaction may name other leases.
		if _, err := s.n.KeepAliveOnce(t.ctx, s.id); errors.Is(err, ErrLeaseNotFound) {
			s.finish(fmt.Errorf("%w: %w", ErrSessionExpired, err))
			return nil, context.Cause(s.ctx)
		}
	case errors.Is(o.err, ErrMaybeApplied):
		go s.cleanUp(t.doer, undo)
	}
	return o.TxnResponse, o.err
}

// CleanUp executes operations in one transaction, and retries until the transaction is applied. It is for what
// the session gives up and nothing else would remove, such as a place in a queue: others would wait for it as
// long as the session lives. CleanUp blocks while the node has no space and while there is no quorum. Only if
// the node closes, or the operations can never be applied, it returns without having applied them. It works
// after the session has ended, too, because the lease may live on.
func (s *Session) CleanUp(ops ...Op) { s.cleanUp(s.n, ops) }

func (s *Session) cleanUp(d Doer, ops []Op) {
	_ = s.insist(context.WithoutCancel(s.ctx), func(ctx context.Context) error {
		_, err := NewTxn(ctx, d).Then(ops...).Commit()
		return err
	})
}

// Orphan ends the session, but not its lease, which lives on until it expires. Another session may
// continue it: see [WithExistingLease].
func (s *Session) Orphan() { s.finish(errSessionOver) }

// revokeTime is the least time for which Close tries to revoke a lease, even if the lease should have
// expired by itself: a new leader may have extended it.
const revokeTime = 2 * time.Second

// Close ends the session and revokes the lease, which deletes its keys. Without a quorum, or while the node
// rejects writes, it tries until the lease would have expired, and for at least two seconds; then it leaves
// the keys to the expiry of the lease. Close is idempotent.
func (s *Session) Close() error {
	s.Orphan()
	s.mu.Lock()
	left := max(time.Until(s.deadline), revokeTime)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	err := s.insist(ctx, func(ctx context.Context) error { _, err := s.n.Revoke(ctx, s.id); return err })
	if errors.Is(err, ErrLeaseNotFound) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// insist repeats a write while the node rejects it for lack of space or because it is overloaded, and while
// its outcome is unknown, until ctx ends or the node closes. The write must do no harm when it is applied
// twice.
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
