// SPDX-License-Identifier: Apache-2.0

package model

import (
	"maps"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie/internal/command"
)

// Auth has the users and roles.
type Auth struct {
	Enabled  bool
	Revision uint64
	Secret   string
	Users    map[string]User
	Roles    map[string][]command.Permission // in no order
}

// A User is a user with the names of its roles.
type User struct {
	Roles      map[string]bool
	Hash       string
	NoPassword bool
	Since      uint64 // the revision of the password
}

func newAuth() Auth {
	return Auth{Revision: 1, Users: map[string]User{}, Roles: map[string][]command.Permission{}}
}

func (a *Auth) clone() Auth {
	c := *a
	c.Users, c.Roles = maps.Clone(a.Users), maps.Clone(a.Roles)
	for name, u := range c.Users {
		u.Roles = maps.Clone(u.Roles)
		c.Users[name] = u
	}
	for name, permissions := range c.Roles {
		c.Roles[name] = slices.Clone(permissions)
	}
	return c
}

// Auth returns an independent copy of the users and roles.
func (m *Model) Auth() Auth { return m.auth.clone() }

// change executes a change of users or roles.
func (a *Auth) change(c *command.Auth) command.Code {
	user, isUser := a.Users[c.User]
	permissions, isRole := a.Roles[c.Role]
	isRoot, isRootRole := c.User == "root", c.Role == "root"
	granted := slices.IndexFunc(permissions, func(p command.Permission) bool {
		return p.Key == c.Permission.Key && p.End == c.Permission.End
	})
	switch c.Action {
	case command.AuthEnable:
		root, exists := a.Users["root"]
		if !exists {
			return command.RootUserNotExist
		}
		if !root.Roles["root"] {
			return command.RootRoleNotExist
		}
		a.Enabled = true
		return command.OK
	case command.AuthSecret:
		if !a.Enabled {
			return command.AuthNotEnabled
		}
		if a.Secret == "" {
			a.Secret = c.Hash
		}
		return command.OK
	case command.AuthDisable:
		if !a.Enabled {
			return command.OK
		}
		a.Enabled, a.Secret = false, ""
	case command.UserAdd:
		if c.User == "" {
			return command.UserEmpty
		}
		if isUser {
			return command.UserExists
		}
		user = User{Roles: map[string]bool{}, NoPassword: c.NoPassword, Since: a.Revision + 1}
		if !c.NoPassword {
			user.Hash = c.Hash
		}
		a.Users[c.User] = user
	case command.UserDelete:
		if isRoot && a.Enabled {
			return command.InvalidAuthMgmt
		}
		if !isUser {
			return command.UserNotFound
		}
		delete(a.Users, c.User)
	case command.UserChangePassword:
		if !isUser {
			return command.UserNotFound
		}
		if !user.NoPassword {
			user.Hash = c.Hash
		}
		user.Since = a.Revision + 1
		a.Users[c.User] = user
	case command.UserGrantRole:
		if !isUser {
			return command.UserNotFound
		}
		if !isRole && !isRootRole {
			return command.RoleNotFound
		}
		if user.Roles[c.Role] {
			return command.OK
		}
		user.Roles[c.Role] = true
	case command.UserRevokeRole:
		if isRoot && isRootRole && a.Enabled {
			return command.InvalidAuthMgmt
		}
		if !isUser {
			return command.UserNotFound
		}
		if !user.Roles[c.Role] {
			return command.RoleNotGranted
		}
		delete(user.Roles, c.Role)
	case command.RoleAdd:
		if c.Role == "" {
			return command.RoleEmpty
		}
		if isRole {
			return command.RoleExists
		}
		a.Roles[c.Role] = []command.Permission{}
	case command.RoleDelete:
		if isRootRole && a.Enabled {
			return command.InvalidAuthMgmt
		}
		if !isRole {
			return command.RoleNotFound
		}
		delete(a.Roles, c.Role)
		for _, u := range a.Users {
			delete(u.Roles, c.Role)
		}
	case command.RoleGrantPermission:
		if p := c.Permission; p.Key == "" || p.End != "" && p.End != "\x00" && strings.Compare(p.Key, p.End) >= 0 {
			return command.InvalidAuthMgmt
		}
		if !isRole {
			return command.RoleNotFound
		}
		if granted >= 0 {
			permissions[granted] = c.Permission
		} else {
			permissions = append(permissions, c.Permission)
		}
		a.Roles[c.Role] = permissions
	case command.RoleRevokePermission:
		if !isRole {
			return command.RoleNotFound
		}
		if granted < 0 {
			return command.PermissionNotGranted
		}
		a.Roles[c.Role] = slices.Delete(permissions, granted, granted+1)
	}
	a.Revision++
	return command.OK
}
