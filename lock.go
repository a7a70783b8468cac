// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// A Session keeps a lease alive, for locks and leadership that must be free when their holder is
// gone. Its methods may be called concurrently.
type Session struct {
	n      *Node
	id     LeaseID
	ctx    context.Context
	end    context.CancelCauseFunc
	ending sync.WaitGroup // renewal

	mu       sync.Mutex
	ttl      time.Duration
	deadline time.Time // until which the lease cannot have ended elsewhere
}

// A SessionOption fits [NewSession] and [RunAsLeader].
type SessionOption func(*sessionOptions)

type sessionOptions struct {
	ttl   time.Duration
	lease LeaseID
}

// WithTTL sets how long the lease outlives its holder. Defaults to 15 s. One of less than several
// election timeouts may end with the cluster's leader, before another is elected.
func WithTTL(ttl time.Duration) SessionOption { return func(o *sessionOptions) { o.ttl = ttl } }

// WithSessionLease continues a lease, one of an orphaned session for instance, instead of granting
// another.
func WithSessionLease(id LeaseID) SessionOption { return func(o *sessionOptions) { o.lease = id } }

const defaultTTL = 15 * time.Second

// errSessionOver is why the context of a session ends that was closed or orphaned.
var errSessionOver = fmt.Errorf("%w: closed by its owner", ErrSessionExpired)

// NewSession grants a lease and renews it, every third of its TTL, until Close, Orphan, or the
// node's Close. ctx bounds the grant alone; without a quorum it blocks until ctx ends.
//
// Errors: ErrTTLRange; with WithSessionLease ErrLeaseNotFound; those of Grant.
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
	s.renewed(sent, l.TTL)
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(ctx))
	s.ending.Go(s.renew)
	return s, nil
}

// renewed notes that a renewal was acknowledged that was sent at some time: the leader's own
// deadline is a TTL after that or later. A twentieth is for clocks that do not run alike.
func (s *Session) renewed(sent time.Time, ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ttl, s.deadline = ttl, sent.Add(ttl-ttl/20)
}

// renew keeps the lease until the session ends, or can no longer be sure of it.
func (s *Session) renew() {
	for {
		s.mu.Lock()
		wait, deadline := s.ttl/3, s.deadline
		s.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.ctx.Done():
		case <-s.n.Done():
		}
		timer.Stop()
		// It tries until it succeeds or is too late.
		ctx, cancel := context.WithDeadline(s.ctx, deadline)
		sent := time.Now()
		l, err := s.n.KeepAliveOnce(ctx, s.id)
		cancel()
		if err != nil {
			s.end(fmt.Errorf("%w: %w", ErrSessionExpired, err))
			return
		}
		s.renewed(sent, l.TTL)
	}
}

// alive returns why the session is over, if it is: by the clock, for a process that was stopped may
// use it before its timers have run.
func (s *Session) alive() error {
	s.mu.Lock()
	late := !time.Now().Before(s.deadline)
	s.mu.Unlock()
	if late {
		s.end(ErrSessionExpired)
	}
	return context.Cause(s.ctx)
}

// bind returns a context that ends with ctx or with the session, with the cause of either.
func (s *Session) bind(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return ctx, func(cause error) {
		stop()
		cancel(cause)
	}
}

// Node returns the node that renews the session's lease.
func (s *Session) Node() *Node { return s.n }

// Lease returns the session's lease, to attach keys to.
func (s *Session) Lease() LeaseID { return s.id }

// Context returns a context that ends, with a cause that matches ErrSessionExpired, when the
// session does: by Close or Orphan, when the lease is found gone, and, when renewals fail, before
// the lease can expire anywhere else. What the session protects must stop with it. After the
// process was stopped for long it ends as soon as its timers run: whoever must know at an instant
// uses a guard.
func (s *Session) Context() context.Context { return s.ctx }

// Orphan ends the session and lets the lease live on until it expires, or another session continues
// it.
func (s *Session) Orphan() {
	s.end(errSessionOver)
	s.ending.Wait()
}

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

// insist runs a write again as long as the node refuses it for lack of space or of places, until ctx
// ends or the node closes: for what has to be given up, and nobody would give up later.
func (s *Session) insist(ctx context.Context, write func(context.Context) error) error {
	for {
		err := write(ctx)
		if !errors.Is(err, ErrOverloaded) && !errors.Is(err, ErrNoSpace) {
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

// A place is a session's place in a queue: a key under a prefix, attached to its lease. The oldest
// is at the head. It is the mechanism of Mutex and Election.
type place struct {
	s      *Session
	prefix string
	key    string
	rev    int64 // that created the key, once the place is taken
}

// newPlace chooses a key of its own under a prefix, so that two places of one session differ.
func newPlace(s *Session, prefix string) *place {
	prefix += "/"
	return &place{s: s, prefix: prefix, key: fmt.Sprintf("%s%v-%08x", prefix, s.id, rand.Uint32())}
}

// take takes the last place, if the condition holds. When it is given up while the outcome is open,
// the key goes as soon as the outcome is known: a deletion before that might come before the put.
func (p *place) take(ctx context.Context, val string, cond ...Cmp) (bool, error) {
	if err := p.s.alive(); err != nil {
		return false, err
	}
	type outcome struct {
		*TxnResponse
		err error
	}
	known, left := make(chan outcome), make(chan struct{})
	defer close(left)
	go func() {
		r, err := p.s.n.Txn(context.WithoutCancel(ctx)).If(append(cond, Compare(CreateRevision(p.key), "=", 0))...).
			Then(OpPut(p.key, val, WithLease(p.s.id))).Commit()
		select {
		case known <- outcome{r, err}:
		case <-left:
			p.remove()
		}
	}()
	var o outcome
	select {
	case o = <-known:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-p.s.ctx.Done():
		return false, context.Cause(p.s.ctx)
	}
	switch {
	case errors.Is(o.err, ErrLeaseNotFound):
		p.s.end(fmt.Errorf("%w: %w", ErrSessionExpired, o.err))
		return false, context.Cause(p.s.ctx)
	case o.err != nil:
		p.abandon()
		return false, o.err
	}
	if o.Succeeded {
		p.rev = o.Revision
	}
	return o.Succeeded, nil
}

// wait returns when the place is at the head and, by a read of that moment, still there.
func (p *place) wait(ctx context.Context) error {
	ctx, cancel := p.s.bind(ctx)
	defer cancel(nil)
	for {
		r, err := p.s.n.Txn(ctx).Then(
			OpGet(p.key),
			OpGet(p.prefix, WithPrefix(), WithMaxCreateRev(p.rev-1), WithSort(SortByCreateRevision, SortDescend), WithLimit(1)),
		).Commit()
		if err != nil {
			return err
		}
		if own := r.Responses[0].Get.KVs; len(own) == 0 || own[0].CreateRevision != p.rev {
			return fmt.Errorf("%w: %s was removed", ErrNotOwner, p.key)
		}
		ahead := r.Responses[1].Get.KVs
		if len(ahead) == 0 {
			return p.s.alive()
		}
		for _, err := range p.s.n.Watch(ctx, ahead[0].Key, WithRev(r.Revision+1), WithFilterPut()) {
			if err != nil && !errors.Is(err, ErrCompacted) {
				return err
			}
			break // it is gone, or it is time to look again
		}
	}
}

// guard holds while the place is there; for a place that was not taken, never.
func (p *place) guard() Cmp {
	if p.rev == 0 {
		return Compare(CreateRevision(p.key), "<", 0)
	}
	return Compare(CreateRevision(p.key), "=", p.rev)
}

// leave gives the place up. ErrNotOwner says that it was lost before.
func (p *place) leave(ctx context.Context) error {
	r, err := p.s.n.Txn(ctx).If(p.guard()).Then(OpDelete(p.key)).Commit()
	switch {
	case err != nil:
		return err
	case !r.Succeeded:
		return ErrNotOwner
	}
	return nil
}

// abandon sees to it that the key goes, though whoever wanted it has gone already, and though the
// session may be over: its lease may live on.
func (p *place) abandon() { go p.remove() }

// remove deletes the key. It blocks until that is done or the node closes: a place that were left,
// while the session lives, would be waited for by all behind it.
func (p *place) remove() {
	_ = p.s.insist(context.WithoutCancel(p.s.ctx), func(ctx context.Context) error {
		_, err := p.s.n.Delete(ctx, p.key)
		return err
	})
}

// A Mutex is a lock among all who know its prefix, on any node: fair, in the order in which Lock
// was called. Its methods may be called concurrently. Alone it is advice: a holder may be stopped,
// and wake when another holds the lock. Writes to this store are safe with Guard as a condition of
// their transaction; others need the fencing token, which whatever is written to must compare.
type Mutex struct {
	s      *Session
	prefix string

	mu   sync.Mutex
	held *place // nil unless locked
	busy bool   // a Lock is under way
}

// NewMutex returns an unlocked Mutex. Two of one prefix exclude each other, on one session too:
// unlike etcd's, whose key is the session's. Keys below prefix + "/" are the lock's; so the prefixes
// of two locks, or elections, must not lie within each other, as "a" and "a/b" do.
func NewMutex(s *Session, prefix string) *Mutex { return &Mutex{s: s, prefix: prefix} }

// Lock waits until the lock is this Mutex's. When ctx ends first, the place in the queue is given
// up.
//
// Errors: ctx's cause; ErrSessionExpired when the session ended; ErrLocked when this very Mutex is
// locked, or being locked, already; ErrNotOwner when somebody removed the place from the queue;
// ErrClosed.
func (m *Mutex) Lock(ctx context.Context) error {
	_, err := m.enter(ctx)
	return err
}

func (m *Mutex) enter(ctx context.Context) (*place, error) {
	return m.lock(func(p *place) error {
		if _, err := p.take(ctx, ""); err != nil {
			return err
		}
		if err := p.wait(ctx); err != nil {
			p.abandon()
			return err
		}
		return nil
	})
}

// TryLock takes the lock if nobody has it or waits for it, at once.
//
// Errors: ErrLocked, and those of Lock. The lock is not taken then, and nothing is left behind.
func (m *Mutex) TryLock(ctx context.Context) error {
	_, err := m.lock(func(p *place) error {
		free, err := p.take(ctx, "", Compare(CreateRevision(p.prefix), "=", 0).WithPrefix())
		if err == nil && !free {
			err = ErrLocked
		}
		return err
	})
	return err
}

func (m *Mutex) lock(enter func(*place) error) (*place, error) {
	m.mu.Lock()
	refused := m.busy || m.held != nil && m.s.alive() == nil
	if !refused {
		m.busy = true
	}
	m.mu.Unlock()
	if refused {
		return nil, fmt.Errorf("%w: this Mutex is locked already", ErrLocked)
	}
	p := newPlace(m.s, m.prefix)
	err := enter(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = false
	if err != nil {
		return nil, err
	}
	m.held = p
	return p, nil
}

// place returns what the Mutex holds: nil if it is not locked.
func (m *Mutex) place() *place {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

// Unlock frees the lock. After an error other than ErrNotOwner it may be called again.
//
// Errors: ErrNotOwner when the Mutex is not locked, or lost the lock before: a newer lock is never
// freed. ErrMaybeApplied and others of a write.
func (m *Mutex) Unlock(ctx context.Context) error {
	p := m.place()
	if p == nil {
		return ErrNotOwner
	}
	err := p.leave(ctx)
	if err == nil || errors.Is(err, ErrNotOwner) {
		m.freed(p)
	}
	return err
}

func (m *Mutex) freed(p *place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held == p {
		m.held = nil
	}
}

// Token returns the fencing token: a number higher than that of every earlier holder; 0 when the
// Mutex is not locked. It is the create revision of the lock's key.
func (m *Mutex) Token() int64 {
	if p := m.place(); p != nil {
		return p.rev
	}
	return 0
}

// Guard returns a condition that holds as long as this Mutex has the lock: with it, a transaction
// of a holder that lost the lock, and does not know, is refused. It never holds if the Mutex is not
// locked.
func (m *Mutex) Guard() Cmp {
	p := m.place()
	if p == nil {
		p = &place{key: m.prefix + "/"}
	}
	return p.guard()
}

// Do locks, runs fn with a context that ends with ctx or with the session and with the fencing
// token, and unlocks what it locked, whatever fn did; [GuardOf] has the guard. It returns fn's error,
// joined with ErrSessionExpired if the session ended meanwhile. When fn's context has ended and no
// quorum answers, it does not wait for the lock to be free: that goes on in the background.
func (m *Mutex) Do(ctx context.Context, fn func(ctx context.Context, token int64) error) error {
	p, err := m.enter(ctx)
	if err != nil {
		return err
	}
	inner, cancel := m.s.bind(withGuard(ctx, p.guard()))
	err = func() error {
		defer cancel(nil)
		// The lock goes even if fn panics, and though ctx has ended.
		defer settle(inner, func() { m.release(p) })
		return fn(inner, p.rev)
	}()
	if lost := m.s.alive(); lost != nil {
		err = errors.Join(err, lost)
	}
	return err
}

// release frees the lock, and returns when that is done or the node has closed.
func (m *Mutex) release(p *place) {
	if err := p.leave(context.WithoutCancel(p.s.ctx)); err != nil && !errors.Is(err, ErrNotOwner) {
		p.remove()
	}
	m.freed(p)
}

// settleTime is how long a call whose ctx has ended waits for what it leaves behind.
const settleTime = 5 * time.Millisecond

// settle runs fn and waits for it as long as ctx lasts, and a moment more: then fn goes on alone.
func settle(ctx context.Context, fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	moment := time.NewTimer(settleTime)
	defer moment.Stop()
	select {
	case <-done:
	case <-moment.C:
	}
}

type guardKey struct{}

func withGuard(ctx context.Context, guard Cmp) context.Context {
	return context.WithValue(ctx, guardKey{}, guard)
}

// GuardOf returns the guard of the lock or the leadership under which [Mutex.Do] or [RunAsLeader]
// runs the body that ctx was given to: a condition for transactions that holds as long as it is this
// holder's. For any other context it returns one that never holds.
func GuardOf(ctx context.Context) Cmp {
	if guard, ok := ctx.Value(guardKey{}).(Cmp); ok {
		return guard
	}
	return (&place{key: "none"}).guard()
}
