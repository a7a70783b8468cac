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
	name         string
	all, writers line
	read, write  string // prefixes of the places
}

// NewRWMutex returns an RWMutex of a name; nothing is asked of the cluster. What it holds goes with
// the session. Its keys are below name + "/read/" and name + "/write/". An empty name is refused by all
// calls, with coterie.ErrInvalidOption.
func NewRWMutex(s *coterie.Session, name string) *RWMutex {
	read, write := name+"/read/", name+"/write/"
	return &RWMutex{s: s, name: name, all: line{name + "/", []string{read, write}}, writers: newLine(write), read: read, write: write}
}

// Lock waits until everybody who asked before has released the lock, and returns the writer's Hold,
// which excludes everybody else's. When it fails, the place in the line is given up.
//
// Errors: ctx's cause, in a *coterie.HeldError if another stands before this call as far as this node
// knows, and with coterie.ErrNoLeader when no leader was known; coterie.ErrSessionExpired; coterie.ErrNotOwner when somebody deleted the
// place; coterie.ErrInvalidOption for an empty name; ErrNoSpace, ErrOverloaded, ErrClosed.
func (m *RWMutex) Lock(ctx context.Context) (*Hold, error) { return m.wait(ctx, m.write, m.all) }

// TryLock is Lock for when nobody holds the lock or waits for it: a read, and Lock's calls if so. Of
// several that find it free at the same moment one gets it.
//
// Errors: coterie.ErrLocked, in a *coterie.HeldError, when somebody does, and those of Lock.
func (m *RWMutex) TryLock(ctx context.Context) (*Hold, error) { return m.try(ctx, m.write, m.all) }

// RLock waits until every writer that asked before has released the lock, and returns a reader's
// Hold, which excludes writers. When it fails, the place in the line is given up.
//
// Errors: those of Lock.
func (m *RWMutex) RLock(ctx context.Context) (*Hold, error) { return m.wait(ctx, m.read, m.writers) }

// TryRLock is RLock for when no writer holds the lock or waits for it.
//
// Errors: coterie.ErrLocked, in a *coterie.HeldError, when one does, and those of Lock.
func (m *RWMutex) TryRLock(ctx context.Context) (*Hold, error) { return m.try(ctx, m.read, m.writers) }

// wait takes a place under a prefix and waits for those that were in a line before.
func (m *RWMutex) wait(ctx context.Context, prefix string, l line) (*Hold, error) {
	if err := checkName(m.name); err != nil {
		return nil, err
	}
	return enter(ctx, m.s, m.name, l, prefix, coterie.NewHolder(m.s.Node()).Value(),
		func(ctx context.Context, p *place) error { return p.await(ctx, l) })
}

// try takes a place under a prefix if nobody is in a line.
func (m *RWMutex) try(ctx context.Context, prefix string, l line) (*Hold, error) {
	if err := checkName(m.name); err != nil {
		return nil, err
	}
	free, err := l.empty(ctx, m.s.Node())
	if err != nil {
		return nil, err
	}
	if !free {
		return nil, l.held(ctx, m.s.Node(), m.name, nil, coterie.ErrLocked)
	}
	return enter(ctx, m.s, m.name, l, prefix, coterie.NewHolder(m.s.Node()).Value(), func(ctx context.Context, p *place) error {
		before, _, err := p.before(ctx, l)
		if before != "" {
			err = coterie.ErrLocked
		}
		return err
	})
}
