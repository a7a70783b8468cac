// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"iter"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
)

// Permit returns why the user of a command may not execute it, or OK. A command without a user is the
// program's own, and not checked.
func (s *Store) Permit(c *command.Command, leases *lease.View) command.Code {
	if c.As == nil || !s.Enabled {
		return command.OK
	}
	g := s.Guard(c.As)
	switch {
	case c.Op != (command.Op{}):
		return g.Op(&c.Op, leases)
	case c.Grant != nil:
		return g.User()
	case c.Revoke != nil:
		return g.Keys(command.Write, leases.Keys(c.Revoke.ID))
	}
	return g.Root() // Compact, Auth, Alarm
}

// A Guard checks the permissions of a user of a store. Its methods return why a request is rejected, or OK.
type Guard struct {
	store *Store
	as    *command.As
	user  *User // nil if it does not exist
}

// Guard returns the guard of a user.
func (s *Store) Guard(as *command.As) Guard { return Guard{s, as, s.User(as.User)} }

// User checks that the user exists.
func (g Guard) User() command.Code {
	switch {
	case !g.store.Enabled:
		return command.OK
	case g.as.User == "":
		return command.UserEmpty
	case g.user == nil:
		return command.PermissionDenied
	}
	return command.OK
}

// Root checks that the user has the role root. As in etcd, an old revision does not matter: the role is the
// present one.
func (g Guard) Root() command.Code {
	switch {
	case !g.store.Enabled:
		return command.OK
	case g.as.User == "":
		return command.UserEmpty
	case g.user == nil:
		return command.UserNotFound
	case !g.user.HasRole(Root):
		return command.PermissionDenied
	}
	return command.OK
}

// Self checks that the user is the one with a name, or has the role root.
func (g Guard) Self(name string) command.Code {
	if g.as.User == name && name != "" {
		return command.OK
	}
	return g.Root()
}

// Member checks that the user has a role, or the role root.
func (g Guard) Member(role string) command.Code {
	if g.user.HasRole(role) {
		return command.OK
	}
	return g.Root()
}

// Range checks the access to a range.
func (g Guard) Range(to command.Access, key, end string) command.Code {
	switch {
	case !g.store.Enabled:
		return command.OK
	case g.as.User == "":
		return command.UserEmpty
	case g.as.Revision != 0 && g.as.Revision < g.store.Revision:
		return command.AuthOldRevision
	case g.user == nil:
		return command.PermissionDenied
	case g.user.HasRole(Root) || g.store.covers(g.user, to, key, end):
		return command.OK
	}
	return command.PermissionDenied
}

// Keys checks that the user exists and has access to each key of a lease. The role root needs no more, at any
// revision.
func (g Guard) Keys(to command.Access, keys iter.Seq[string]) command.Code {
	code := g.User()
	if code != command.OK || g.Root() == command.OK {
		return code
	}
	for key := range keys {
		if code := g.Range(to, key, ""); code != command.OK {
			return code
		}
	}
	return command.OK
}

// Op checks an operation, with both branches of a transaction.
func (g Guard) Op(op *command.Op, leases *lease.View) command.Code {
	switch {
	case op.Put != nil:
		return g.put(op.Put, leases)
	case op.Get != nil:
		return g.Range(command.Read, op.Get.Key, op.Get.End)
	case op.Delete != nil:
		d := op.Delete
		code := g.Range(command.Write, d.Key, d.End)
		if code == command.OK && d.PrevKV {
			code = g.Range(command.Read, d.Key, d.End)
		}
		return code
	}
	for i := range op.Txn.Compares {
		if code := g.Range(command.Read, op.Txn.Compares[i].Key, op.Txn.Compares[i].End); code != command.OK {
			return code
		}
	}
	for _, ops := range [][]command.Op{op.Txn.Then, op.Txn.Else} {
		for i := range ops {
			if code := g.Op(&ops[i], leases); code != command.OK {
				return code
			}
		}
	}
	return command.OK
}

// put checks a put. The user must be able to write all keys of its lease: otherwise the end of the lease would
// delete the key together with keys of others, which the user could not end.
func (g Guard) put(p *command.Put, leases *lease.View) command.Code {
	code := g.Range(command.Write, p.Key, "")
	if code == command.OK && p.Lease != 0 {
		code = g.Keys(command.Write, leases.Keys(p.Lease))
	}
	if code == command.OK && p.PrevKV {
		code = g.Range(command.Read, p.Key, "")
	}
	return code
}

// covers reports whether the roles of a user together allow an access to a range.
func (s *Store) covers(u *User, to command.Access, key, end string) bool {
	return covered(key, end, func(key string) (best span, found bool) {
		for _, name := range u.Roles {
			role := s.Role(name)
			if role == nil {
				continue // root, which need not be added
			}
			allowed := role.read
			if to == command.Write {
				allowed = role.write
			}
			if r, ok := allowed.at(key); ok {
				if !found {
					best = r
				}
				best, found = farther(best, r), true
			}
		}
		return best, found
	})
}
