// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/coterie-kv/coterie/internal/backup"
	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/state"
)

// Contents are everything that a cluster stores, at one moment: keys with their history, leases, users and roles.
// They are for programs that convert, compare or export data. Contents never change, and any number of goroutines
// may read them. They keep the memory of their versions in use until they are garbage.
//
// Contents come from [Node.Contents], from [ReadBackup], or from a [ContentsBuilder].
type Contents struct{ view *state.View }

// A Lease is a lease as [Contents] have it. The time that is left of it is no part of them: a restored lease begins
// its TTL again.
type Lease struct {
	ID  LeaseID       `json:"id"`
	TTL time.Duration `json:"ttl"`
}

// AuthContents are the users and roles of [Contents].
type AuthContents struct {
	Enabled bool `json:"enabled"`
	// Revision counts the changes of users and roles, from 1.
	Revision uint64         `json:"revision"`
	Users    []UserContents `json:"users"` // in the order of their names
	Roles    []RoleContents `json:"roles"` // in the order of their names
}

// A UserContents is a user with the hash of the password.
type UserContents struct {
	Name         string   `json:"name"`
	PasswordHash []byte   `json:"passwordHash"` // as given to [WithPasswordHash]
	NoPassword   bool     `json:"noPassword"`   // no password authenticates the user
	Roles        []string `json:"roles"`        // in their order
}

// A RoleContents is a role with its permissions.
type RoleContents struct {
	Name        string       `json:"name"`
	Permissions []Permission `json:"permissions"` // in the order of their keys, then of the ends of their ranges
}

// Contents returns the contents that this node has applied at one moment, while writes continue. It copies nothing,
// and asks no other node: call [Node.Ready] first if everything that was answered until then must be included.
//
// Errors: ctx's cause, ErrClosed.
func (n *Node) Contents(ctx context.Context) (*Contents, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	return &Contents{n.views.Load()}, nil
}

// ReadBackup reads the output of [Node.Backup] to its end. It returns Contents only if every byte is valid.
//
// Errors: ErrCorrupt for a backup that is damaged or cut off; ErrFormat for one of another version; those of r;
// ctx's cause.
func ReadBackup(ctx context.Context, r io.Reader) (*Contents, error) {
	b, err := readBackup(ctx, r)
	if err != nil {
		return nil, err
	}
	return &Contents{b.State.View()}, nil
}

// WriteBackup writes the contents as a backup, which [RestoreBackup] accepts. Equal contents make equal backups,
// which do not name a cluster or a time.
//
// Errors: those of w, ctx's cause.
func (c *Contents) WriteBackup(ctx context.Context, w io.Writer) error {
	return backup.Write(breakable.Writer{Writer: w, Broken: breakable.By(ctx)}, backup.Head{}, c.view.Snapshot())
}

// Revision returns the newest revision.
func (c *Contents) Revision() int64 { return c.view.KV.Revision() }

// CompactRevision returns the oldest revision that can be read; -1 before the first compaction.
func (c *Contents) CompactRevision() int64 { return c.view.KV.CompactRevision() }

// Leases yields the leases in the order of their IDs.
func (c *Contents) Leases() iter.Seq[Lease] {
	return func(yield func(Lease) bool) {
		c.view.Leases.All()(func(l lease.Lease) bool { return yield(Lease{LeaseID(l.ID), l.TTL}) })
	}
}

// Versions yields every version of every key: first the versions from before CompactRevision that can be read at
// it, in the order of their keys, then all changes since, in the order in which they were made. A deletion is a
// KeyValue with a Key and a ModRevision alone; its Version is 0.
func (c *Contents) Versions() iter.Seq[KeyValue] {
	return func(yield func(KeyValue) bool) {
		more := true
		c.view.KV.Base(func(kv mvcc.KeyValue) bool {
			more = yield(keyValue(kv))
			return more
		})
		c.view.KV.Changes(0, c.Revision(), func(_ int64, changes []mvcc.KeyValue) bool {
			for _, kv := range changes {
				if more = more && yield(keyValue(kv)); !more {
					break
				}
			}
			return more
		})
	}
}

// Auth returns the users and roles. The caller owns the result.
func (c *Contents) Auth() AuthContents {
	auth := AuthContents{
		Enabled: c.view.Auth.Enabled, Revision: c.view.Auth.Revision, Users: []UserContents{}, Roles: []RoleContents{},
	}
	for _, u := range c.view.Auth.Users() {
		auth.Users = append(auth.Users, UserContents{
			Name: u.Name, PasswordHash: []byte(u.Hash), NoPassword: u.NoPassword, Roles: append([]string{}, u.Roles...),
		})
	}
	for _, r := range c.view.Auth.Roles() {
		role := RoleContents{Name: r.Name, Permissions: []Permission{}}
		for _, p := range r.Permissions {
			role.Permissions = append(role.Permissions, Permission{PermissionType(p.Access), p.Key, p.End})
		}
		auth.Roles = append(auth.Roles, role)
	}
	return auth
}
