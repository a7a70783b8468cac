// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"

	"github.com/coterie-kv/coterie"
)

// An RWMutex is a lock of one writer or many readers, among all who know its name, on any node. It
// is fair: writers and readers come in the order in which they asked, so neither starves; readers
// that no writer stands between hold it together. Its methods may be called concurrently, and each
// call is a contender of its own: whoever asks again for what it holds waits for itself, and a read
// lock cannot be turned into a write lock.
//
// A lock costs two writes, to take and to release it, and a read. Those who wait watch one key
// each. A holder that crashes holds up those behind it until its session's lease ends. Do not use
// it to protect something outside from writers without comparing [Hold.Token], nor for reads of
// this store alone: a transaction, or a read of many keys, is of one moment anyway.
type RWMutex struct {
	s            *coterie.Session
	all, writers string // prefixes of the places
	readers      string
}

// NewRWMutex returns an RWMutex of a name; nothing is asked of the cluster. What it holds goes with
// the session. Keys below name + "/" are its own.
func NewRWMutex(s *coterie.Session, name string) *RWMutex {
	return &RWMutex{s: s, all: name + "/", writers: name + "/write/", readers: name + "/read/"}
}

// Lock waits until everybody who asked before has released the lock, and returns the writer's Hold,
// which excludes everybody else's. When it fails, the place in the line is given up.
//
// Errors: ctx's cause; coterie.ErrSessionExpired; coterie.ErrNotOwner when somebody deleted the
// place; ErrNoSpace, ErrOverloaded, ErrClosed.
func (m *RWMutex) Lock(ctx context.Context) (*Hold, error) {
	return enter(ctx, m.s, m.writers, "", m.after(m.all))
}

// TryLock is Lock for when nobody holds the lock or waits for it.
//
// Errors: coterie.ErrLocked when somebody does, and those of Lock.
func (m *RWMutex) TryLock(ctx context.Context) (*Hold, error) {
	return enter(ctx, m.s, m.writers, "", m.after(m.all), vacant(m.all))
}

// RLock waits until every writer that asked before has released the lock, and returns a reader's
// Hold, which excludes writers. When it fails, the place in the line is given up.
//
// Errors: those of Lock.
func (m *RWMutex) RLock(ctx context.Context) (*Hold, error) {
	return enter(ctx, m.s, m.readers, "", m.after(m.writers))
}

// TryRLock is RLock for when no writer holds the lock or waits for it.
//
// Errors: coterie.ErrLocked when one does, and those of Lock.
func (m *RWMutex) TryRLock(ctx context.Context) (*Hold, error) {
	return enter(ctx, m.s, m.readers, "", m.after(m.writers), vacant(m.writers))
}

func (m *RWMutex) after(prefix string) func(context.Context, *place) error {
	return func(ctx context.Context, p *place) error { return p.await(ctx, prefix) }
}

// vacant holds while there is no key under a prefix.
func vacant(prefix string) coterie.Cmp {
	return coterie.Compare(coterie.CreateRevision(prefix), "=", 0).WithPrefix()
}
