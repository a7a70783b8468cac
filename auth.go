// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/command"
)

// Root is the name of the user that [Node.AuthEnable] needs, and of the role that allows everything.
const Root = auth.Root

// A PermissionType is the kind of access to keys that a [Permission] allows.
type PermissionType uint8

// The types of permissions.
const (
	PermRead PermissionType = iota
	PermWrite
	PermReadWrite
)

// permissionTypes are the types as text, by their number.
var permissionTypes = []string{"READ", "WRITE", "READWRITE"}

func (t PermissionType) String() string {
	if int(t) >= len(permissionTypes) {
		return fmt.Sprintf("PermissionType(%d)", uint8(t))
	}
	return permissionTypes[t]
}

// MarshalText returns the type as String does.
func (t PermissionType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads the text that MarshalText returns.
func (t *PermissionType) UnmarshalText(text []byte) error {
	for i, known := range permissionTypes {
		if known == string(text) {
			*t = PermissionType(i)
			return nil
		}
	}
	return fmt.Errorf("coterie: %q is not a type of permissions", text)
}

// A Permission allows access to a key, or to a range of keys.
type Permission struct {
	Type PermissionType `json:"type"`
	Key  string         `json:"key"`
	// RangeEnd is the first key after the range. It is empty for a single key, and "\x00" for all keys from
	// Key on.
	RangeEnd string `json:"rangeEnd,omitempty"`
}

// The responses to changes of users and roles. The revision of their headers is that of the keys, which these
// changes leave as it is.
type (
	// An AuthEnableResponse answers [Node.AuthEnable].
	AuthEnableResponse struct{ Header }
	// An AuthDisableResponse answers [Node.AuthDisable].
	AuthDisableResponse struct{ Header }
	// A UserAddResponse answers [Node.UserAdd].
	UserAddResponse struct{ Header }
	// A UserDeleteResponse answers [Node.UserDelete].
	UserDeleteResponse struct{ Header }
	// A UserChangePasswordResponse answers [Node.UserChangePassword].
	UserChangePasswordResponse struct{ Header }
	// A UserGrantRoleResponse answers [Node.UserGrantRole].
	UserGrantRoleResponse struct{ Header }
	// A UserRevokeRoleResponse answers [Node.UserRevokeRole].
	UserRevokeRoleResponse struct{ Header }
	// A RoleAddResponse answers [Node.RoleAdd].
	RoleAddResponse struct{ Header }
	// A RoleDeleteResponse answers [Node.RoleDelete].
	RoleDeleteResponse struct{ Header }
	// A RoleGrantPermissionResponse answers [Node.RoleGrantPermission].
	RoleGrantPermissionResponse struct{ Header }
	// A RoleRevokePermissionResponse answers [Node.RoleRevokePermission].
	RoleRevokePermissionResponse struct{ Header }
)

// An AuthStatusResponse answers [Node.AuthStatus].
type AuthStatusResponse struct {
	Header
	Enabled bool `json:"enabled"`
	// AuthRevision counts the changes of users and roles, from 1.
	AuthRevision uint64 `json:"authRevision"`
}

// An AuthenticateResponse answers [Node.Authenticate].
type AuthenticateResponse struct {
	Header
	// AuthRevision is that of the users and roles for which the password was correct.
	AuthRevision uint64 `json:"authRevision"`
}

// A UserGetResponse answers [Node.UserGet].
type UserGetResponse struct {
	Header
	Roles []string `json:"roles"` // in their order
}

// A UserListResponse answers [Node.UserList].
type UserListResponse struct {
	Header
	Users []string `json:"users"` // in their order
}

// A RoleGetResponse answers [Node.RoleGet].
type RoleGetResponse struct {
	Header
	Permissions []Permission `json:"permissions"` // in the order of their keys
}

// A RoleListResponse answers [Node.RoleList].
type RoleListResponse struct {
	Header
	Roles []string `json:"roles"` // in their order
}

// A UserOption is an option of [Node.UserAdd].
type UserOption interface{ user(*command.Auth) }

type passwordHash string

func (o passwordHash) user(c *command.Auth) { c.Hash, c.NoPassword = string(o), false }

// WithPasswordHash gives the user a password, which only its hash represents. Use a slow hash with a salt, such
// as that of golang.org/x/crypto/bcrypt, which etcd uses.
func WithPasswordHash(hash []byte) UserOption { return passwordHash(hash) }

// AuthEnable turns the checks of permissions on. The user root must exist and have the role root. AuthEnable of
// a cluster where they are on changes nothing.
//
// Calls of the Node itself are not checked, because it belongs to the program that embeds it. Calls of a [UserView]
// are.
//
// Errors: ErrRootUserNotExist, ErrRootRoleNotExist, ErrNoSpace if a disk is full, ErrOverloaded: nothing was
// changed. ErrMaybeApplied as for Put; ErrClosed.
func (n *Node) AuthEnable(ctx context.Context) (*AuthEnableResponse, error) {
	return n.own().AuthEnable(ctx)
}

// AuthDisable turns the checks of permissions off. Users and roles remain. AuthDisable of a cluster where they
// are off changes nothing.
//
// Errors: ErrNoSpace if a disk is full, ErrOverloaded: nothing was changed. ErrMaybeApplied as for Put;
// ErrClosed.
func (n *Node) AuthDisable(ctx context.Context) (*AuthDisableResponse, error) {
	return n.own().AuthDisable(ctx)
}

// AuthStatus reports whether permissions are checked. It is linearizable.
//
// Errors: those of Leases.
func (n *Node) AuthStatus(ctx context.Context) (*AuthStatusResponse, error) {
	return n.own().AuthStatus(ctx)
}

// Authenticate checks the password of a user. It calls check with the hash of [WithPasswordHash], on the
// caller's goroutine. The password is correct if check returns nil:
//
//	check := func(hash []byte) error { return bcrypt.CompareHashAndPassword(hash, password) }
//
// If users or roles change meanwhile, Authenticate begins again, so check may be called repeatedly.
//
// Errors: ErrAuthNotEnabled; ErrNoPasswordUser; ErrAuthFailed for another password and for a user that does not
// exist; those of AuthStatus.
func (n *Node) Authenticate(ctx context.Context, name string, check func(hash []byte) error) (*AuthenticateResponse, error) {
	for {
		v, err := n.latest(ctx)
		if err != nil {
			return nil, err
		}
		switch u := v.Auth.User(name); {
		case !v.Auth.Enabled:
			return nil, ErrAuthNotEnabled
		case u == nil:
			return nil, ErrAuthFailed
		case u.NoPassword:
			return nil, ErrNoPasswordUser
		case check([]byte(u.Hash)) != nil:
			return nil, ErrAuthFailed
		case n.views.Summary().Auth.Revision == v.Auth.Revision:
			return &AuthenticateResponse{n.header(v.KV.Revision()), v.Auth.Revision}, nil
		}
	}
}

// UserAdd adds a user without roles. Without [WithPasswordHash] no password authenticates the user.
//
// Errors: ErrUserEmpty, ErrUserExists, ErrTooLarge, ErrNoSpace if a disk is full, ErrOverloaded: nothing was
// changed. ErrMaybeApplied as for Put; ErrClosed.
func (n *Node) UserAdd(ctx context.Context, name string, opts ...UserOption) (*UserAddResponse, error) {
	return n.own().UserAdd(ctx, name, opts...)
}

// UserDelete deletes a user.
//
// Errors: ErrUserNotFound; ErrInvalidAuthMgmt for the user root while permissions are checked; those of UserAdd.
func (n *Node) UserDelete(ctx context.Context, name string) (*UserDeleteResponse, error) {
	return n.own().UserDelete(ctx, name)
}

// UserChangePassword replaces the hash of a user's password. A user that was added without one stays without.
//
// Errors: ErrUserNotFound; those of UserAdd.
func (n *Node) UserChangePassword(ctx context.Context, name string, hash []byte) (*UserChangePasswordResponse, error) {
	return n.own().UserChangePassword(ctx, name, hash)
}

// UserGrantRole gives a user a role. The role root need not have been added. If the user has the role, nothing
// changes.
//
// Errors: ErrUserNotFound, ErrRoleNotFound; those of UserAdd.
func (n *Node) UserGrantRole(ctx context.Context, name, role string) (*UserGrantRoleResponse, error) {
	return n.own().UserGrantRole(ctx, name, role)
}

// UserRevokeRole takes a role from a user.
//
// Errors: ErrUserNotFound, ErrRoleNotGranted; ErrInvalidAuthMgmt for the role root of the user root while
// permissions are checked; those of UserAdd.
func (n *Node) UserRevokeRole(ctx context.Context, name, role string) (*UserRevokeRoleResponse, error) {
	return n.own().UserRevokeRole(ctx, name, role)
}

// UserGet returns the roles of a user. It is linearizable.
//
// Errors: ErrUserNotFound; those of AuthStatus.
func (n *Node) UserGet(ctx context.Context, name string) (*UserGetResponse, error) {
	return n.own().UserGet(ctx, name)
}

// UserList returns the names of all users. It is linearizable.
//
// Errors: those of AuthStatus.
func (n *Node) UserList(ctx context.Context) (*UserListResponse, error) {
	return n.own().UserList(ctx)
}

// RoleAdd adds a role without permissions.
//
// Errors: ErrRoleEmpty, ErrRoleExists; those of UserAdd.
func (n *Node) RoleAdd(ctx context.Context, role string) (*RoleAddResponse, error) {
	return n.own().RoleAdd(ctx, role)
}

// RoleDelete deletes a role, and takes it from all users.
//
// Errors: ErrRoleNotFound; ErrInvalidAuthMgmt for the role root while permissions are checked; those of UserAdd.
func (n *Node) RoleDelete(ctx context.Context, role string) (*RoleDeleteResponse, error) {
	return n.own().RoleDelete(ctx, role)
}

// RoleGrantPermission allows a role access to a key or, with a range option, to keys. If the role has a
// permission on the same range, it replaces the type.
//
// Errors: ErrRoleNotFound; ErrInvalidAuthMgmt for a range without keys; those of UserAdd.
func (n *Node) RoleGrantPermission(
	ctx context.Context, role string, t PermissionType, key string, opts ...RangeOption,
) (*RoleGrantPermissionResponse, error) {
	return n.own().RoleGrantPermission(ctx, role, t, key, opts...)
}

// RoleRevokePermission takes from a role the permission on exactly the key or the range that it was granted for.
//
// Errors: ErrRoleNotFound, ErrPermissionNotGranted; those of UserAdd.
func (n *Node) RoleRevokePermission(
	ctx context.Context, role, key string, opts ...RangeOption,
) (*RoleRevokePermissionResponse, error) {
	return n.own().RoleRevokePermission(ctx, role, key, opts...)
}

// RoleGet returns the permissions of a role. It is linearizable.
//
// Errors: ErrRoleNotFound, also for the role root unless it was added; those of AuthStatus.
func (n *Node) RoleGet(ctx context.Context, role string) (*RoleGetResponse, error) {
	return n.own().RoleGet(ctx, role)
}

// RoleList returns the names of all roles that were added. It is linearizable.
//
// Errors: those of AuthStatus.
func (n *Node) RoleList(ctx context.Context) (*RoleListResponse, error) {
	return n.own().RoleList(ctx)
}
