// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"slices"

	"github.com/coterie-kv/coterie/internal/command"
)

// Apply returns the store after a change. If a rule rejects the change, or if it changes nothing, Apply
// returns the same store.
func (s *Store) Apply(c *command.Auth) (*Store, command.Code) {
	if code := s.judge(c); code != command.OK {
		return s, code
	}
	next := *s
	switch c.Action {
	case command.AuthEnable:
		if s.Enabled {
			return s, command.OK
		}
		next.Enabled = true
		return &next, command.OK // as in etcd, without a revision
	case command.AuthSecret:
		if s.Secret != "" {
			return s, command.OK
		}
		next.Secret = c.Hash
		return &next, command.OK // without a revision, because it changes no permission
	case command.AuthDisable:
		if !s.Enabled {
			return s, command.OK
		}
		next.Enabled, next.Secret = false, ""
	case command.UserAdd:
		next.putUser(User{
			Name: c.User, Hash: password(c.Hash, c.NoPassword), NoPassword: c.NoPassword, Since: s.Revision + 1,
		})
	case command.UserDelete:
		i, _ := s.findUser(c.User)
		next.users = slices.Delete(slices.Clone(s.users), i, i+1)
	case command.UserChangePassword:
		u := *s.User(c.User)
		u.Hash, u.Since = password(c.Hash, u.NoPassword), s.Revision+1
		next.putUser(u)
	case command.UserGrantRole:
		u := *s.User(c.User)
		i, granted := slices.BinarySearch(u.Roles, c.Role)
		if granted {
			return s, command.OK
		}
		u.Roles = slices.Insert(slices.Clone(u.Roles), i, c.Role)
		next.putUser(u)
	case command.UserRevokeRole:
		next.putUser(s.User(c.User).without(c.Role))
	case command.RoleAdd:
		next.putRole(newRole(c.Role, nil))
	case command.RoleDelete:
		i, _ := s.findRole(c.Role)
		next.roles = slices.Delete(slices.Clone(s.roles), i, i+1)
		next.users = slices.Clone(s.users) // once: there may be many users
		for i, u := range s.users {
			if u.HasRole(c.Role) {
				without := u.without(c.Role)
				next.users[i] = &without
			}
		}
	case command.RoleGrantPermission:
		r := s.Role(c.Role)
		i, granted := r.find(c.Permission.Key, c.Permission.End)
		permissions := slices.Clone(r.Permissions)
		if granted {
			permissions[i] = c.Permission
		} else {
			permissions = slices.Insert(permissions, i, c.Permission)
		}
		next.putRole(newRole(c.Role, permissions))
	case command.RoleRevokePermission:
		r := s.Role(c.Role)
		i, _ := r.find(c.Permission.Key, c.Permission.End)
		next.putRole(newRole(c.Role, slices.Delete(slices.Clone(r.Permissions), i, i+1)))
	}
	next.Revision++
	return &next, command.OK
}

// judge returns why a change is rejected, or OK. The order of the checks is etcd's.
func (s *Store) judge(c *command.Auth) command.Code {
	user, role := s.User(c.User), s.Role(c.Role)
	switch c.Action {
	case command.AuthEnable:
		switch root := s.User(Root); {
		case s.Enabled:
		case root == nil:
			return command.RootUserNotExist
		case !root.HasRole(Root):
			return command.RootRoleNotExist
		}
	case command.AuthSecret:
		if !s.Enabled {
			return command.AuthNotEnabled
		}
	case command.UserAdd:
		switch {
		case c.User == "":
			return command.UserEmpty
		case user != nil:
			return command.UserExists
		}
	case command.UserDelete, command.UserChangePassword:
		switch {
		case s.Enabled && c.User == Root && c.Action == command.UserDelete:
			return command.InvalidAuthMgmt
		case user == nil:
			return command.UserNotFound
		}
	case command.UserGrantRole:
		switch {
		case user == nil:
			return command.UserNotFound
		case role == nil && c.Role != Root:
			return command.RoleNotFound
		}
	case command.UserRevokeRole:
		switch {
		case s.Enabled && c.User == Root && c.Role == Root:
			return command.InvalidAuthMgmt
		case user == nil:
			return command.UserNotFound
		case !user.HasRole(c.Role):
			return command.RoleNotGranted
		}
	case command.RoleAdd:
		switch {
		case c.Role == "":
			return command.RoleEmpty
		case role != nil:
			return command.RoleExists
		}
	case command.RoleDelete:
		switch {
		case s.Enabled && c.Role == Root:
			return command.InvalidAuthMgmt
		case role == nil:
			return command.RoleNotFound
		}
	case command.RoleGrantPermission:
		switch {
		case !valid(c.Permission):
			return command.InvalidAuthMgmt
		case role == nil:
			return command.RoleNotFound
		}
	case command.RoleRevokePermission:
		if role == nil {
			return command.RoleNotFound
		}
		if _, granted := role.find(c.Permission.Key, c.Permission.End); !granted {
			return command.PermissionNotGranted
		}
	}
	return command.OK
}

// valid reports whether a permission can be granted: its range has a key.
func valid(p command.Permission) bool {
	return p.Key != "" && (p.End == "" || p.End == noEnd || p.Key < p.End)
}

// password returns the hash to store.
func password(hash string, none bool) string {
	if none {
		return ""
	}
	return hash
}

// without returns the user without a role.
func (u *User) without(role string) User {
	next := *u
	next.Roles = slices.DeleteFunc(slices.Clone(u.Roles), func(r string) bool { return r == role })
	return next
}

// putUser and putRole replace or add an element of a store that is being made.

func (s *Store) putUser(u User) {
	i, exists := s.findUser(u.Name)
	s.users = slices.Clone(s.users)
	if exists {
		s.users[i] = &u
	} else {
		s.users = slices.Insert(s.users, i, &u)
	}
}

func (s *Store) putRole(r *Role) {
	i, exists := s.findRole(r.Name)
	s.roles = slices.Clone(s.roles)
	if exists {
		s.roles[i] = r
	} else {
		s.roles = slices.Insert(s.roles, i, r)
	}
}
