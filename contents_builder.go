// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/state"
)

// A ContentsBuilder makes [Contents] of data from another store, so that a cluster can begin with it: keys keep
// their revisions, versions and leases. Add all leases, then the versions in the order of [Contents.Versions].
//
//	b, err := coterie.NewContentsBuilder(revision, compactRevision)
//	…
//	err = b.AddVersion(coterie.KeyValue{Key: "k", Value: "v", CreateRevision: 2, ModRevision: 2, Version: 1})
//	…
//	c, err := b.Contents()
//	…
//	err = c.WriteBackup(ctx, file) // for coterie.RestoreBackup
//
// A ContentsBuilder belongs to one goroutine. After an error it is of no more use.
type ContentsBuilder struct{ b *state.Builder }

// NewContentsBuilder returns a ContentsBuilder for contents with these revisions. An empty store has revision 1. The
// compact revision is that of [Contents.CompactRevision], -1 if all history is added. Every revision after it, and
// every one from 2 on if it is -1, must have a change.
//
// Errors: ErrInvalidOption for revisions that no store has.
func NewContentsBuilder(revision, compactRevision int64) (*ContentsBuilder, error) {
	b, err := state.NewBuilder(revision, compactRevision)
	if err != nil {
		return nil, invalidContents(err)
	}
	return &ContentsBuilder{b}, nil
}

func invalidContents(err error) error { return fmt.Errorf("%w: %w", ErrInvalidOption, err) }

// AddLease adds a lease.
//
// Errors: ErrTTLRange; ErrInvalidOption for an ID that is 0 or was added before.
func (b *ContentsBuilder) AddLease(l Lease) error {
	if l.TTL < MinTTL || l.TTL > MaxTTL {
		return fmt.Errorf("%w: lease %v has %v", ErrTTLRange, l.ID, l.TTL)
	}
	if l.ID == 0 {
		return fmt.Errorf("%w: a lease has the ID 0", ErrInvalidOption)
	}
	if err := b.b.Grant(lease.Lease{ID: int64(l.ID), TTL: l.TTL}); err != nil {
		return invalidContents(err)
	}
	return nil
}

// AddVersion adds a version of a key, or a deletion, in the form and the order of [Contents.Versions].
//
// Errors: ErrInvalidOption for a version that no store could have after the earlier ones.
func (b *ContentsBuilder) AddVersion(kv KeyValue) error {
	err := b.b.Add(mvcc.KeyValue{
		Key: kv.Key, Value: kv.Value, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version, Lease: int64(kv.Lease),
	})
	if err != nil {
		return invalidContents(err)
	}
	return nil
}

// SetAuth adds the users and roles. Call it once, or not at all.
//
// Errors: ErrInvalidOption for names or permissions that are out of order, for a user with a role that does not
// exist, and for a second call.
func (b *ContentsBuilder) SetAuth(a AuthContents) error {
	l := b.b.Auth()
	err := l.Store((&auth.Store{Revision: a.Revision, Enabled: a.Enabled}).Append(nil))
	for _, r := range a.Roles {
		role := auth.Role{Name: r.Name}
		for _, p := range r.Permissions {
			role.Permissions = append(role.Permissions, command.Permission{Access: command.Access(p.Type), Key: p.Key, End: p.RangeEnd})
		}
		if err == nil {
			err = l.Role(role.Append(nil))
		}
	}
	for _, u := range a.Users {
		user := auth.User{Name: u.Name, Roles: u.Roles, Hash: string(u.PasswordHash), NoPassword: u.NoPassword}
		if err == nil {
			err = l.User(user.Append(nil))
		}
	}
	if err == nil {
		_, err = l.Finish()
	}
	if err != nil {
		return invalidContents(err)
	}
	return nil
}

// Contents returns the contents. The builder is of no more use.
//
// Errors: ErrInvalidOption if revisions have no change, or a key has a lease that was not added.
func (b *ContentsBuilder) Contents() (*Contents, error) {
	s, err := b.b.State()
	if err != nil {
		return nil, invalidContents(err)
	}
	return &Contents{s.View()}, nil
}
