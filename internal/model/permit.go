// SPDX-License-Identifier: Apache-2.0

package model

import "github.com/coterie-kv/coterie/internal/command"

// A need is an access to a range that a command needs.
type need struct {
	write    bool
	key, end string
}

// permit returns why the user of a command may not execute it, or OK.
func (m *Model) permit(c *command.Command) command.Code {
	if !m.auth.Enabled {
		return command.OK
	}
	user, exists := m.auth.Users[c.As.User]
	isRoot := user.Roles["root"]
	switch {
	case c.Op != (command.Op{}):
	case c.As.User == "":
		return command.UserEmpty
	case c.Compact != nil || c.Auth != nil || c.Alarm != nil:
		if !exists {
			return command.UserNotFound
		}
		if !isRoot {
			return command.PermissionDenied
		}
	case !exists:
		return command.PermissionDenied
	}
	if isRoot && c.Revoke != nil {
		return command.OK
	}
	for _, n := range m.needs(c, isRoot) {
		switch {
		case c.As.User == "":
			return command.UserEmpty
		case c.As.Revision != 0 && c.As.Revision < m.auth.Revision:
			return command.AuthOldRevision
		case !isRoot && !m.auth.covers(user, n):
			return command.PermissionDenied
		}
	}
	return command.OK
}

// needs returns the accesses that a command needs, in the order in which they are checked.
func (m *Model) needs(c *command.Command, isRoot bool) (all []need) {
	attached := func(id int64) (all []need) {
		if id == 0 {
			return nil // keys without a lease
		}
		for _, key := range m.Attached(id) {
			all = append(all, need{write: true, key: key})
		}
		return all
	}
	switch {
	case c.Revoke != nil:
		return attached(c.Revoke.ID)
	case c.Put != nil:
		all = append(all, need{write: true, key: c.Put.Key})
		if !isRoot {
			all = append(all, attached(c.Put.Lease)...)
		}
		if c.Put.PrevKV {
			all = append(all, need{key: c.Put.Key})
		}
	case c.Get != nil:
		all = append(all, need{key: c.Get.Key, end: c.Get.End})
	case c.Delete != nil:
		all = append(all, need{write: true, key: c.Delete.Key, end: c.Delete.End})
		if c.Delete.PrevKV {
			all = append(all, need{key: c.Delete.Key, end: c.Delete.End})
		}
	case c.Txn != nil:
		for _, compare := range c.Txn.Compares {
			all = append(all, need{key: compare.Key, end: compare.End})
		}
		for _, op := range append(c.Txn.Then[:len(c.Txn.Then):len(c.Txn.Then)], c.Txn.Else...) {
			all = append(all, m.needs(&command.Command{Op: op}, isRoot)...)
		}
	}
	return all
}

// covers reports whether the permissions of a user cover a range. They do if they contain its first key, and
// the end of each permission that lies inside of the range.
func (a *Auth) covers(u User, n need) bool {
	var permissions []command.Permission
	for role := range u.Roles {
		for _, p := range a.Roles[role] {
			if p.Access == command.ReadWrite || (p.Access == command.Write) == n.write {
				permissions = append(permissions, p)
			}
		}
	}
	allowed := func(key string) bool {
		for _, p := range permissions {
			if contains(p.Key, p.End, key) {
				return true
			}
		}
		return false
	}
	if n.end != "" && n.end != "\x00" && n.end <= n.key { // an empty range
		n.key, n.end = n.end, n.key+"\x00"
	}
	if !allowed(n.key) {
		return false
	}
	unbounded := false
	for _, p := range permissions {
		end := p.End
		switch end {
		case "":
			end = p.Key + "\x00"
		case "\x00":
			unbounded = true
			continue
		}
		if contains(n.key, n.end, end) && !allowed(end) {
			return false
		}
	}
	return n.end != "\x00" || unbounded
}
