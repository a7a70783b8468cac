// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/wire"
)

// ErrCorrupt: records are intact but do not describe a store.
var ErrCorrupt = errors.New("auth: corrupt records")

// Append appends the encoding of the store without its users and roles to b.
func (s *Store) Append(b []byte) []byte {
	return wire.Text(wire.Bool(wire.Uint(b, 1, s.Revision), 2, s.Enabled), 3, s.Secret)
}

// Append appends the encoding of a role to b.
func (r *Role) Append(b []byte) []byte {
	b = wire.Text(b, 1, r.Name)
	for i := range r.Permissions {
		b = wire.Message(b, 2, r.Permissions[i].Append)
	}
	return b
}

// Append appends the encoding of a user to b.
func (u *User) Append(b []byte) []byte {
	b = wire.Text(b, 1, u.Name)
	for _, role := range u.Roles {
		b = wire.Element(b, 2, role)
	}
	b = wire.Text(b, 3, u.Hash)
	return wire.Uint(wire.Bool(b, 4, u.NoPassword), 5, u.Since)
}

// A Loader makes a store of its records: first the store's own, then those of the roles and the users, both
// in their order.
type Loader struct{ store *Store }

// Store decodes the store's own record.
func (l *Loader) Store(b []byte) error {
	if l.store != nil {
		return fmt.Errorf("%w: there are two stores", ErrCorrupt)
	}
	l.store = &Store{}
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			l.store.Revision = r.Uint()
		case 2:
			l.store.Enabled = r.Bool()
		case 3:
			l.store.Secret = r.Text()
		}
	}
	return r.Err()
}

// Role decodes the record of a role.
func (l *Loader) Role(b []byte) error {
	if l.store == nil {
		return fmt.Errorf("%w: a role precedes the store", ErrCorrupt)
	}
	var name string
	var permissions []command.Permission
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			name = r.Text()
		case 2:
			var p command.Permission
			if err := p.Decode(r.Bytes()); err != nil {
				return err
			}
			if p.Access > command.ReadWrite {
				return fmt.Errorf("%w: role %q has an unknown kind of access", ErrCorrupt, name)
			}
			permissions = append(permissions, p)
		}
	}
	l.store.roles = append(l.store.roles, newRole(name, permissions))
	return r.Err()
}

// User decodes the record of a user.
func (l *Loader) User(b []byte) error {
	if l.store == nil {
		return fmt.Errorf("%w: a user precedes the store", ErrCorrupt)
	}
	u := &User{}
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			u.Name = r.Text()
		case 2:
			u.Roles = append(u.Roles, r.Text())
		case 3:
			u.Hash = r.Text()
		case 4:
			u.NoPassword = r.Bool()
		case 5:
			u.Since = r.Uint()
		}
	}
	l.store.users = append(l.store.users, u)
	return r.Err()
}

// Finish returns the store, after all records were decoded. Without records it is that of New.
func (l *Loader) Finish() (*Store, error) {
	if l.store == nil {
		return New(), nil
	}
	if err := l.store.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return l.store, nil
}
