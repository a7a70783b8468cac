// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A Builder makes a State of data that no log has: keys with their revisions, leases, users and roles. It checks
// them as Read checks a snapshot.
type Builder struct{ in restore }

// NewBuilder returns a Builder for a state with these revisions.
func NewBuilder(revision, compacted int64) (*Builder, error) {
	b := &Builder{restore{state: New()}}
	return b, b.in.begin(revision, compacted)
}

// Grant adds a lease.
func (b *Builder) Grant(l lease.Lease) error {
	if !b.in.state.leases.Grant(l) {
		return fmt.Errorf("%w: lease %x comes twice", errSnapshot, l.ID)
	}
	return nil
}

// Add adds the next version of a key: first those before the compact revision in the order of keys, then the others
// in the order of revisions.
func (b *Builder) Add(kv mvcc.KeyValue) error { return b.in.loader.Add(kv) }

// Auth returns the loader of the users and roles.
func (b *Builder) Auth() *auth.Loader { return &b.in.auth }

// State returns the state. The Builder must not be used afterwards.
func (b *Builder) State() (*State, error) { return b.in.finish() }
