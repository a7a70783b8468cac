// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// A Mutex is a lock among all that use its name, on any node: fair, in the order in which Lock
// was called. Its methods may be called concurrently. Alone it is advice: a holder may be stopped,
// and wake when another holds the lock. Writes to this store are safe with Guard as a condition of
// their transaction; others need the fencing token, which whatever is written to must compare.
type Mutex struct {
	s    *Session
	name string

	mu   sync.Mutex
	held *place // nil unless locked
	busy bool   // a Lock is under way
}

// NewMutex returns an unlocked Mutex; nothing is asked of the cluster. Two of one name exclude each
// other, on one session too: unlike etcd's, whose key is the session's. Different names are
// independent, also if one continues the other, as "a/b" continues "a". The lock's keys are name + "/"
// + the lease of a session in hex + "-" + 8 hex digits. Lock refuses an empty name.
func NewMutex(s *Session, name string) *Mutex { return &Mutex{s: s, name: name} }

// Lock waits until the lock is this Mutex's. When ctx ends first, the place in the queue is given
// up.
//
// Errors: ctx's cause, in a *HeldError if another has the lock as far as this node knows, and with
// ErrNoLeader when no leader was known; ErrSessionExpired when the session ended; ErrLocked when this very Mutex is
// locked, or being locked, already; ErrNotOwner when somebody removed the place from the queue;
// ErrInvalidOption for an empty name; ErrClosed.
func (m *Mutex) Lock(ctx context.Context) error {
	_, err := m.enter(ctx)
	return err
}

func (m *Mutex) enter(ctx context.Context) (*place, error) {
	return m.lock(func(p *place) error { return p.enter(ctx, NewHolder(p.s.Node()).Value(), p.wait) })
}

// TryLock takes the lock if nobody has it or waits for it, at once. It is a read, and a write and another
// read if the lock is free. Of several that find it free at the same moment one gets it.
//
// Errors: ErrLocked, in a *HeldError, and those of Lock. The lock is not taken then, and nothing is left behind.
func (m *Mutex) TryLock(ctx context.Context) error {
	_, err := m.lock(func(p *place) error {
		ahead, _, err := places(ctx, p.s.Node(), p.name, 1, WithSort(SortByCreateRevision, SortAscend))
		if err != nil {
			return err
		}
		if len(ahead) > 0 {
			return NewHeldError(p.name, ahead[0], ErrLocked)
		}
		return p.enter(ctx, NewHolder(p.s.Node()).Value(), p.try)
	})
	return err
}

func (m *Mutex) lock(enter func(*place) error) (*place, error) {
	m.mu.Lock()
	refused := m.busy || m.held != nil && m.s.Err() == nil
	if !refused {
		m.busy = true
	}
	m.mu.Unlock()
	if refused {
		return nil, fmt.Errorf("%w: this Mutex is locked already", ErrLocked)
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
func (m *Mutex) Guard() Comparison {
	p := m.place()
	if p == nil {
		p = &place{key: m.name + "/"}
	}
	return p.guard()
}

// Do locks, runs fn with a context that ends with ctx or with the session and with the fencing
// token, and unlocks what it locked, whatever fn did; [GuardFromContext] has the guard. It returns fn's error,
// joined with ErrSessionExpired if the session ended meanwhile. When fn's context has ended and no
// quorum answers, it does not wait for the lock to be free: that goes on in the background.
func (m *Mutex) Do(ctx context.Context, fn func(ctx context.Context, token int64) error) error {
	p, err := m.enter(ctx)
	if err != nil {
		return err
	}
	inner, cancel := m.s.WorkContext(withGuard(ctx, p.guard()))
	err = func() error {
		defer cancel()
		// The lock goes even if fn panics, and though ctx has ended.
		defer settle(inner, func() { m.release(p) })
		return fn(inner, p.rev)
	}()
	if lost := m.s.Err(); lost != nil {
		err = errors.Join(err, lost)
	}
	return err
}

// release frees the lock, and returns when that is done or the node has closed.
func (m *Mutex) release(p *place) {
	if err := p.leave(context.WithoutCancel(p.s.Context())); err != nil && !errors.Is(err, ErrNotOwner) {
		m.s.CleanUp(OpDelete(p.key))
	}
	m.freed(p)
}
