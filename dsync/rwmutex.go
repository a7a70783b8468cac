// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"

	"github.com/coterie-kv/coterie"
)

// An RWMutex is a lock for one writer or many readers, shared by all that use its name, on any node.
//
// It is fair: requests are granted in the order in which they were made, so neither readers nor writers
// starve. Readers with no writer between them hold the lock together.
//
// An RWMutex value has state, as a [coterie.Mutex] has: it holds at most one lock at a time, for reading or for
// writing, and it makes one request at a time. A second request returns coterie.ErrLocked at once. Goroutines
// that compete need an RWMutex each; those of one name exclude each other, on one session too. A read
// lock cannot be turned into a write lock: unlock it first. The methods may be called concurrently.
//
// A lock costs two writes, to take it and to release it, and a read. Each waiter watches one key. If a holder
// crashes, those behind it wait until its session's lease ends. Alone the lock is advice: a process may be
// stopped and resume when another holds the lock. Writes to this store are safe with [RWMutex.Guard] as a
// condition of their transaction; other stores must compare [RWMutex.Token]. Reads of this store alone need
// no lock: a transaction, or one read of many keys, sees a single revision.
type RWMutex struct {
	hold         hold
	all, writers line
	read, write  string // prefixes of the places
}

// NewRWMutex returns an unlocked RWMutex. It does not contact the cluster. The lock ends with the session.
// Its keys are below name + "/read/" and name + "/write/". All calls reject an empty name with
// coterie.ErrInvalidOption.
func NewRWMutex(s *coterie.Session, name string) *RWMutex {
	read, write := name+"/read/", name+"/write/"
	return &RWMutex{
		hold: hold{s: s, name: name}, read: read, write: write,
		all: line{name + "/", []string{read, write}}, writers: newLine(write),
	}
}

// Lock locks for writing: it waits until every lock that was requested earlier is released, and excludes
// readers and writers. If it fails, it gives up its place in the queue.
//
// Errors:
//   - ctx's cause, in a *coterie.HeldError if this node knows of an earlier request, and with
//     coterie.ErrNoLeader if no leader was known;
//   - coterie.ErrLocked if this RWMutex already holds or requests a lock;
//   - coterie.ErrSessionExpired if the session has ended;
//   - coterie.ErrNotOwner if the key of this request was deleted;
//   - coterie.ErrInvalidOption for an empty name;
//   - coterie.ErrNoSpace, coterie.ErrOverloaded, coterie.ErrClosed.
func (m *RWMutex) Lock(ctx context.Context) error { return m.wait(ctx, m.write, m.all) }

// TryLock locks for writing if nobody holds the lock or waits for it. It costs a read, and then the same as
// Lock if the lock is free. If several calls find it free at the same moment, one of them gets it.
//
// Errors: coterie.ErrLocked, in a *coterie.HeldError, if the lock is not free, and those of Lock. The lock is
// not taken then, and no key is left behind.
func (m *RWMutex) TryLock(ctx context.Context) error { return m.try(ctx, m.write, m.all) }

// RLock locks for reading: it waits until every write lock that was requested earlier is released, and
// excludes writers. If it fails, it gives up its place in the queue.
//
// Errors: those of Lock.
func (m *RWMutex) RLock(ctx context.Context) error { return m.wait(ctx, m.read, m.writers) }

// TryRLock locks for reading if no writer holds the lock or waits for it.
//
// Errors: coterie.ErrLocked, in a *coterie.HeldError, if a writer does, and those of Lock.
func (m *RWMutex) TryRLock(ctx context.Context) error { return m.try(ctx, m.read, m.writers) }

// Unlock releases the write lock: one write. It blocks until that write is applied. After an error other than
// ErrNotOwner the RWMutex still counts as locked, and Unlock may be called again. Without another call the lock is
// released when the session ends.
//
// Errors: coterie.ErrNotOwner if this RWMutex does not hold the write lock, or lost it earlier, for example
// with its session; a newer lock is never released. Those of a transaction. After coterie.ErrMaybeApplied,
// ErrNotOwner from the next call says that the lock had been released.
func (m *RWMutex) Unlock(ctx context.Context) error { return m.hold.release(ctx, m.write) }

// RUnlock releases the read lock, as Unlock releases the write lock.
//
// Errors: those of Unlock.
func (m *RWMutex) RUnlock(ctx context.Context) error { return m.hold.release(ctx, m.read) }

// Key returns the key of the lock that is held, or "" if none is. It is attached to the session's lease.
func (m *RWMutex) Key() string { return m.hold.key() }

// Token returns the fencing token of the lock that is held, or 0 if none is: the create revision of its
// key, higher than that of every lock of this name that was requested earlier.
//
// A store that compares tokens rejects a writer if it has seen a higher token. That rule does not work
// among readers, which hold the lock together: a reader with a lower token may still hold its lock. Such a
// store can compare the reader's token with that of the last writer. In this store use [RWMutex.Guard].
func (m *RWMutex) Token() int64 { return m.hold.token() }

// Guard returns a condition for transactions that holds until the lock is released or lost: with it, a write is rejected
// if its holder lost the lock and does not know. If no lock is held, the condition never holds.
func (m *RWMutex) Guard() coterie.Comparison { return m.hold.guard() }

// WorkContext returns a context for the work that the lock protects. It ends with ctx, with the returned
// function, which must be called, or with the session, before the lock can be granted to another. It does not
// end with Unlock. It carries the guard: see [coterie.GuardFromContext]. If no lock is held, the context has ended
// already, with coterie.ErrNotOwner.
func (m *RWMutex) WorkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return m.hold.workContext(ctx)
}

// wait takes a place under a prefix and waits for all earlier places of a line.
func (m *RWMutex) wait(ctx context.Context, prefix string, l line) error {
	return m.hold.acquire(func() (*place, error) {
		return m.enter(ctx, prefix, l, func(ctx context.Context, p *place) error { return p.await(ctx, l) })
	})
}

// try takes a place under a prefix if a line is empty.
func (m *RWMutex) try(ctx context.Context, prefix string, l line) error {
	return m.hold.acquire(func() (*place, error) {
		n := m.hold.s.Node()
		free, err := l.empty(ctx, n)
		if err != nil {
			return nil, err
		}
		if !free {
			return nil, l.heldError(ctx, n, m.hold.name, nil, coterie.ErrLocked)
		}
		return m.enter(ctx, prefix, l, func(ctx context.Context, p *place) error {
			before, _, err := p.before(ctx, l)
			if before != "" {
				err = coterie.ErrLocked
			}
			return err
		})
	})
}

func (m *RWMutex) enter(ctx context.Context, prefix string, l line, wait func(context.Context, *place) error) (*place, error) {
	return m.hold.enter(ctx, l, prefix, coterie.NewHolder(m.hold.s.Node()).Value(), wait)
}
