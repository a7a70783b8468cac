// SPDX-License-Identifier: Apache-2.0

// Package auth implements users, roles and permissions by etcd's rules, as a part of the replicated state.
// A [Store] is immutable: a change makes another one. The package neither hashes nor compares passwords.
package auth

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie/internal/command"
)

// Root is the name of the user that a store needs before its checks can be enabled, and of the role that
// allows everything.
const Root = "root"

// A Store has the users and roles at one index of the log. It is immutable.
type Store struct {
	Enabled  bool
	Revision uint64 // counts the changes; 1 before the first
	Secret   string // signs tokens; empty until it is needed, and again when the checks are disabled

	users []*User // in the order of their names
	roles []*Role // the same
}

// A User is a user at one revision. It is immutable.
type User struct {
	Name       string
	Roles      []string // in their order
	Hash       string   // of the password
	NoPassword bool     // the user cannot authenticate with a password
	Since      uint64   // the revision that added the user, or changed the password
}

// A Role is a role at one revision. It is immutable.
type Role struct {
	Name        string
	Permissions []command.Permission // in the order of their keys, then of their ends

	read, write ranges // of the permissions
}

// New returns the store before the first change.
func New() *Store { return &Store{Revision: 1} }

// Initial reports whether the store is that of New. One that was built of other data may have users at revision 1.
func (s *Store) Initial() bool {
	return s.Revision == 1 && !s.Enabled && len(s.users) == 0 && len(s.roles) == 0
}

// User returns a user, or nil.
func (s *Store) User(name string) *User {
	if i, ok := s.findUser(name); ok {
		return s.users[i]
	}
	return nil
}

// Role returns a role, or nil.
func (s *Store) Role(name string) *Role {
	if i, ok := s.findRole(name); ok {
		return s.roles[i]
	}
	return nil
}

// Users returns the users in the order of their names. Callers must not change the slice.
func (s *Store) Users() []*User { return s.users }

// Roles returns the roles in the order of their names. Callers must not change the slice.
func (s *Store) Roles() []*Role { return s.roles }

// HasRole reports whether a role is granted to the user. A nil user has none.
func (u *User) HasRole(name string) bool {
	return u != nil && slices.Contains(u.Roles, name)
}

func (s *Store) findUser(name string) (int, bool) {
	return slices.BinarySearchFunc(s.users, name, func(u *User, name string) int { return strings.Compare(u.Name, name) })
}

func (s *Store) findRole(name string) (int, bool) {
	return slices.BinarySearchFunc(s.roles, name, func(r *Role, name string) int { return strings.Compare(r.Name, name) })
}

// newRole returns a role with permissions that are in their order.
func newRole(name string, permissions []command.Permission) *Role {
	r := &Role{Name: name, Permissions: permissions}
	for _, p := range permissions {
		if p.Access != command.Write {
			r.read = r.read.with(p.Key, p.End)
		}
		if p.Access != command.Read {
			r.write = r.write.with(p.Key, p.End)
		}
	}
	return r
}

func (r *Role) find(key, end string) (int, bool) {
	return slices.BinarySearchFunc(r.Permissions, command.Permission{Key: key, End: end}, comparePermissions)
}

func comparePermissions(a, b command.Permission) int {
	return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.End, b.End))
}

// Check verifies the invariants of the store.
func (s *Store) Check() error {
	if s.Revision < 1 {
		return fmt.Errorf("auth: revision %d", s.Revision)
	}
	for i, r := range s.roles {
		if r.Name == "" || i > 0 && r.Name <= s.roles[i-1].Name {
			return fmt.Errorf("auth: role %q is out of order", r.Name)
		}
		for j, p := range r.Permissions {
			if !valid(p) || j > 0 && comparePermissions(r.Permissions[j-1], p) >= 0 {
				return fmt.Errorf("auth: permission on %q to %q of role %q is invalid or out of order", p.Key, p.End, r.Name)
			}
		}
	}
	for i, u := range s.users {
		if u.Name == "" || i > 0 && u.Name <= s.users[i-1].Name {
			return fmt.Errorf("auth: user %q is out of order", u.Name)
		}
		for j, role := range u.Roles {
			if j > 0 && role <= u.Roles[j-1] || role != Root && s.Role(role) == nil {
				return fmt.Errorf("auth: role %q of user %q does not exist or is out of order", role, u.Name)
			}
		}
	}
	if s.Enabled && !s.User(Root).HasRole(Root) {
		return fmt.Errorf("auth: enabled without a user %s that has the role", Root)
	}
	return nil
}
