// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Mutex is a lock shared by all sessions that use its name, on any node. It is fair: callers get it in
// the order in which they called Lock. Its methods may be called concurrently.
//
// A Mutex alone is advisory. If the process of a holder is suspended, the holder may wake up after its session
// has expired, when another holder has the lock. Make [Mutex.Guard] a condition of each transaction on this store that
// the lock protects. Other systems must compare [Mutex.Token] with the highest token they have seen.
//
// A Mutex differs from the one of clientv3/concurrency: two Mutexes of one session exclude each other
// (there the key, and so the lock, belongs to the session), and a Lock leaves no key after its ctx has ended.
type Mutex struct {
	s    *Session
	name string
	turn chan struct{} // holds a value while a Locker of this Mutex has it

	mu   sync.Mutex // guards held and busy
	held *place     // nil unless locked
	busy bool       // a Lock is in progress
}

// NewMutex returns an unlocked Mutex. It does not contact the cluster. Locks of different names are
// independent, even if one name continues the other, as "a/b" continues "a". The keys of a lock are name +
// "/" + the lease of a session in hex + "-" + 8 hex digits. Lock rejects an empty name.
func NewMutex(s *Session, name string) *Mutex {
	return &Mutex{s: s, name: name, turn: make(chan struct{}, 1)}
}

// Lock waits until this Mutex has the lock. If it fails, it gives up its place in the queue.
//
// Errors: ctx's cause, in a *HeldError if this node knows of another holder, and with ErrNoLeader if no
// leader was known; ErrSessionExpired if the session has ended; ErrLocked if this Mutex is locked, or
// being locked, already; ErrNotOwner if the place was removed from the queue by deleting its key;
// ErrInvalidOption for an empty name; ErrClosed; those of [Txn.Commit].
func (m *Mutex) Lock(ctx context.Context) error {
	_, err := m.enter(ctx)
	return err
}

func (m *Mutex) enter(ctx context.Context) (*place, error) {
	return m.lock(func(p *place) error { return p.enter(ctx, NewHolder(p.s.Node()).Value(), p.wait) })
}

// TryLock takes the lock if it is free and no caller waits for it. It costs one read, and if the lock is
// free a write. If several callers find the lock free at the same moment, one gets it. If
// TryLock fails, it leaves nothing behind.
//
// Errors: ErrLocked, in a *HeldError, if the lock is not free; those of Lock.
func (m *Mutex) TryLock(ctx context.Context) error {
	_, err := m.lock(func(p *place) error {
		first, found, _, err := head(ctx, p.s.Node(), p.name)
		if err != nil {
			return err
		}
		if found {
			return NewHeldError(p.name, first, ErrLocked)
		}
		return p.enter(ctx, NewHolder(p.s.Node()).Value(), p.try)
	})
	return err
}

// lock runs enter for a new place, unless this Mutex is locked or being locked.
func (m *Mutex) lock(enter func(*place) error) (*place, error) {
	m.mu.Lock()
	rejected := m.busy || m.held != nil && m.s.Err() == nil
	if !rejected {
		m.busy = true
	}
	m.mu.Unlock()
	if rejected {
		return nil, fmt.Errorf("%w: this Mutex of %q is locked, or being locked, already", ErrLocked, m.name)
	}
	p, err := newPlace(m.s, m.name)
	if err == nil {
		err = enter(p)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = false
	if err != nil {
		return nil, err
	}
	m.held = p
	return p, nil
}

// Unlock frees the lock. After an error other than ErrNotOwner it may be called again.
//
// Errors: ErrNotOwner if the Mutex is not locked, or has lost the lock: Unlock never frees the lock of a
// later holder. ErrMaybeApplied and the other errors of [Txn.Commit].
func (m *Mutex) Unlock(ctx context.Context) error {
	p := m.place()
	if p == nil {
		return fmt.Errorf("%w: this Mutex of %q is not locked", ErrNotOwner, m.name)
	}
	err := p.leave(ctx)
	if err == nil || errors.Is(err, ErrNotOwner) {
		m.freed(p)
	}
	return err
}

// place returns the place by which the Mutex has the lock, or nil if it is not locked.
func (m *Mutex) place() *place {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

// freed marks the Mutex as unlocked, unless it was locked again meanwhile.
func (m *Mutex) freed(p *place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held == p {
		m.held = nil
	}
}

// Key returns the key by which this Mutex has the lock, and "" if it is not locked. Deleting the key
// frees the lock. In clientv3/concurrency an unlocked Mutex may return the key of its last lock.
func (m *Mutex) Key() string {
	if p := m.place(); p != nil {
		return p.key
	}
	return ""
}

// Token returns the fencing token: the create revision of the lock's key, which is higher than that of
// every earlier holder. It is 0 if the Mutex is not locked.
func (m *Mutex) Token() int64 {
	if p := m.place(); p != nil {
		return p.rev
	}
	return 0
}

// Guard returns a condition for transactions that holds as long as this Mutex has the lock. With it, the
// store rejects a transaction of a holder that has lost the lock and does not know yet. If the Mutex is
// not locked, the condition never holds.
func (m *Mutex) Guard() Comparison {
	p := m.place()
	if p == nil {
		p = &place{key: m.name + "/"}
	}
	return p.guard()
}

// IsOwner returns [Mutex.Guard], under the name that it has in clientv3/concurrency. There the condition
// may hold for a Mutex that was never locked; here it does not.
func (m *Mutex) IsOwner() Comparison { return m.Guard() }

// WorkContext returns a context for the work that the lock protects. It ends with ctx, with the returned
// function, which must be called, or with the session, before another holder can get the lock. It does not
// end with Unlock, nor if the lock's key is deleted. It carries the guard: see [GuardFromContext]. If the Mutex
// is not locked, the context has ended already, with ErrNotOwner.
func (m *Mutex) WorkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return workContext(ctx, m.place())
}

// Do locks, runs fn with the fencing token, and unlocks, even if fn panics. The context of fn is that of
// [Mutex.WorkContext]. Do returns fn's error, joined with ErrSessionExpired if the session ended meanwhile. If
// fn's context has ended and no quorum answers, Do does not wait for the lock to be free; freeing it continues
// in the background. If fn calls Unlock and the Mutex is locked again, Do leaves that later lock alone.
// [RunWithLock] does the same with a session of its own.
//
// Errors: those of Lock, if fn was not called.
func (m *Mutex) Do(ctx context.Context, fn func(ctx context.Context, token int64) error) error {
	p, err := m.enter(ctx)
	if err != nil {
		return err
	}
	inner, cancel := workContext(ctx, p)
	err = func() error {
		defer cancel()
		// Deferred, because the lock must be freed even if fn panics and though ctx has ended.
		defer settle(inner, func() { _ = m.release(p) })
		return fn(inner, p.rev)
	}()
	if lost := m.s.Err(); lost != nil {
		err = errors.Join(err, lost)
	}
	return err
}

// release frees the lock. It returns when that is done or the node has closed, with ErrNotOwner if the
// lock was lost before.
func (m *Mutex) release(p *place) error {
	defer m.freed(p)
	err := p.leave(context.WithoutCancel(p.s.Context()))
	if err == nil || errors.Is(err, ErrNotOwner) {
		return err
	}
	m.s.CleanUp(OpDelete(p.key))
	return nil
}

// Locker returns this Mutex as a [sync.Locker], for code that cannot handle errors, as concurrency.NewLocker
// does. All Lockers of a Mutex are alike. Unlike the Mutex itself, a
// Locker may be shared by goroutines: they take turns, and each has the lock alone. Do not mix it with
// Lock, TryLock and Unlock of the same Mutex.
//
// Lock waits as long as the session lives. It tries again while the node is overloaded or has no space, and
// after an unknown outcome. It panics, with an error that wraps the one of [Mutex.Lock], if the lock
// cannot be had: the session has ended, the name is empty, or the place in the queue was removed.
//
// Unlock blocks until the lock is free or the node has closed, without a quorum too. It panics, with an
// error that matches ErrNotOwner or ErrSessionExpired, if the lock was not held, or was lost before the
// call: then another holder may have run at the same time as the code before Unlock. That code does not
// notice by itself, so it must use Guard, or [Session.WorkContext]. In clientv3/concurrency, Unlock does
// not report a lost lock.
func (m *Mutex) Locker() sync.Locker { return locker{m} }

type locker struct{ m *Mutex }

func (l locker) Lock() {
	m := l.m
	m.turn <- struct{}{}
	for {
		err := m.Lock(m.s.Context())
		if err == nil {
			return
		}
		if !passes(err) {
			<-m.turn
			panic(fmt.Errorf("coterie: Locker of %q: %w", m.name, err))
		}
		select {
		case <-time.After(retryPause):
		case <-m.s.Done():
		}
	}
}

func (l locker) Unlock() {
	p := l.m.place()
	if p == nil {
		panic(fmt.Errorf("coterie: Locker of %q: Unlock without Lock: %w", l.m.name, ErrNotOwner))
	}
	lost := l.m.s.Err()
	if err := l.m.release(p); lost == nil {
		lost = err
	}
	<-l.m.turn
	if lost != nil {
		panic(fmt.Errorf("coterie: Locker of %q: the lock was lost: %w", l.m.name, lost))
	}
}

// RunWithLock gets a session, locks name as a [Mutex] does, runs fn, and frees the lock. It calls fn at most
// once:
//
//   - Until fn is called, RunWithLock does not give up: if it loses its session or its place in the queue, or
//     the node rejects a write for now, it tries again after 0.1 s, with another session and as the last in
//     the queue.
//   - Once fn is called, RunWithLock never calls it again, whatever happens. If the lock is lost while fn runs,
//     the context of fn ends, RunWithLock waits until fn has returned, and returns fn's error joined with the
//     reason, which matches ErrSessionExpired or ErrNotOwner.
//   - If fn panics, RunWithLock frees the lock, and the panic continues in the caller.
//
// So if RunWithLock returns nil, fn ran once, returned nil, and had the lock all the time; only a key that is
// deleted by hand shortly before fn returns may go unnoticed. An error that matches ErrSessionExpired or
// ErrNotOwner means that fn has run, and that another holder may have had the lock before fn returned. To run
// fn again after that is the caller's decision.
//
// The context of fn ends with ctx, with the session, before another holder can have the lock, and when the
// lock's key is deleted, after which the next holder may run already. It carries the guard for
// transactions on this store: see [GuardFromContext]. Other systems need the fencing token. Writes without
// either may come after those of the next holder, if the process is suspended.
//
// RunWithLock calls fn on the caller's goroutine. When it returns, the lock is free, with two exceptions: if
// ctx has ended, the lock is being freed in the background; without a quorum, it becomes free when the lease
// expires. opts are options of the session. Only the first session uses the lease of [WithExistingLease],
// and revokes it at its end.
//
// Errors: fn's; ErrSessionExpired and ErrNotOwner, as above. Without a call of fn: ctx's cause, in a
// *HeldError if this node knows of another holder, and with ErrNoLeader if no leader was known; ErrClosed;
// ErrTTLRange, ErrInvalidOption for an empty name, ErrTooLarge for one that is too long.
func RunWithLock(ctx context.Context, n *Node, name string,
	fn func(ctx context.Context, token int64) error, opts ...SessionOption,
) error {
	for {
		called, err := lockOnce(ctx, n, name, fn, opts)
		switch {
		case called, !errors.Is(err, ErrSessionExpired) && hopeless(err):
			return err
		case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
			return err
		case ctx.Err() != nil:
			return n.ContextError(ctx)
		}
		opts = withNewLease(opts)
		sleep(ctx, n, retryPause)
	}
}

// lockOnce runs fn under a lock if it gets the lock with one session.
func lockOnce(ctx context.Context, n *Node, name string,
	fn func(context.Context, int64) error, opts []SessionOption,
) (called bool, err error) {
	s, err := NewSession(ctx, n, opts...)
	if err != nil {
		return false, err
	}
	// The lock goes with the session, so there is no Unlock. Deferred for a panic of fn.
	defer settle(ctx, func() { s.Close() })
	p, err := NewMutex(s, name).enter(ctx)
	if err != nil {
		return false, err
	}
	lost, err := p.run(ctx, fn)
	switch {
	case errors.Is(lost, ErrSessionExpired), errors.Is(lost, ErrNotOwner):
		err = errors.Join(err, lost)
	case lost != nil && ctx.Err() == nil: // the node closes, and ends the session
		err = errors.Join(err, fmt.Errorf("%w: %w", ErrSessionExpired, lost))
	}
	return true, err
}

type guardKey struct{}

// ContextWithGuard returns a copy of ctx that carries a guard for [GuardFromContext]. It is for recipes of your own,
// as the locks of package dsync are: it makes the context of their work the same as that of a [Mutex].
func ContextWithGuard(ctx context.Context, guard Comparison) context.Context {
	return context.WithValue(ctx, guardKey{}, guard)
}

// GuardFromContext returns the guard of a lock or a leadership: a condition for transactions that holds as long
// as the lock or the leadership lasts. ctx is the context that [Mutex.Do], [RunWithLock] or [RunAsLeader] passes
// to its function, one of [Mutex.WorkContext] or [Election.WorkContext], or one of [ContextWithGuard]. For any
// other context GuardFromContext returns a condition that never holds.
func GuardFromContext(ctx context.Context) Comparison {
	if guard, ok := ctx.Value(guardKey{}).(Comparison); ok {
		return guard
	}
	return (&place{key: "none"}).guard()
}
