// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/state"
)

// own returns the view of the program itself, which may do everything.
func (n *Node) own() *UserView { return &UserView{n: n} }

// AuthEnable is [Node.AuthEnable].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.AuthEnable.
func (u *UserView) AuthEnable(ctx context.Context) (*AuthEnableResponse, error) {
	return changeAuth[AuthEnableResponse](ctx, u, command.Auth{Action: command.AuthEnable})
}

// AuthDisable is [Node.AuthDisable].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.AuthDisable.
func (u *UserView) AuthDisable(ctx context.Context) (*AuthDisableResponse, error) {
	return changeAuth[AuthDisableResponse](ctx, u, command.Auth{Action: command.AuthDisable})
}

// AuthStatus is [Node.AuthStatus].
//
// Errors: those of Node.AuthStatus.
func (u *UserView) AuthStatus(ctx context.Context) (*AuthStatusResponse, error) {
	v, err := u.n.latest(ctx)
	if err != nil {
		return nil, err
	}
	return &AuthStatusResponse{u.n.header(v.KV.Revision()), v.Auth.Enabled, v.Auth.Revision}, nil
}

// UserAdd is [Node.UserAdd].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.UserAdd.
func (u *UserView) UserAdd(ctx context.Context, name string, opts ...UserOption) (*UserAddResponse, error) {
	return changeAuth[UserAddResponse](ctx, u, userAdd(name, opts))
}

// UserDelete is [Node.UserDelete].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.UserDelete.
func (u *UserView) UserDelete(ctx context.Context, name string) (*UserDeleteResponse, error) {
	return changeAuth[UserDeleteResponse](ctx, u, command.Auth{Action: command.UserDelete, User: name})
}

// UserChangePassword is [Node.UserChangePassword].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.UserChangePassword.
func (u *UserView) UserChangePassword(ctx context.Context, name string, hash []byte) (*UserChangePasswordResponse, error) {
	c := command.Auth{Action: command.UserChangePassword, User: name, Hash: string(hash)}
	return changeAuth[UserChangePasswordResponse](ctx, u, c)
}

// UserGrantRole is [Node.UserGrantRole].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.UserGrantRole.
func (u *UserView) UserGrantRole(ctx context.Context, name, role string) (*UserGrantRoleResponse, error) {
	return changeAuth[UserGrantRoleResponse](ctx, u, command.Auth{Action: command.UserGrantRole, User: name, Role: role})
}

// UserRevokeRole is [Node.UserRevokeRole].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.UserRevokeRole.
func (u *UserView) UserRevokeRole(ctx context.Context, name, role string) (*UserRevokeRoleResponse, error) {
	return changeAuth[UserRevokeRoleResponse](ctx, u, command.Auth{Action: command.UserRevokeRole, User: name, Role: role})
}

// UserGet is [Node.UserGet]. Users get themselves without the role root.
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.UserGet.
func (u *UserView) UserGet(ctx context.Context, name string) (*UserGetResponse, error) {
	v, err := u.latest(ctx, func(v *state.View) command.Code { return v.Auth.Guard(u.as).Self(name) })
	if err != nil {
		return nil, err
	}
	found := v.Auth.User(name)
	if found == nil {
		return nil, ErrUserNotFound
	}
	return &UserGetResponse{u.n.header(v.KV.Revision()), slices.Clone(found.Roles)}, nil
}

// UserList is [Node.UserList].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.UserList.
func (u *UserView) UserList(ctx context.Context) (*UserListResponse, error) {
	v, err := u.latest(ctx, u.isRoot)
	if err != nil {
		return nil, err
	}
	r := &UserListResponse{Header: u.n.header(v.KV.Revision())}
	for _, user := range v.Auth.Users() {
		r.Users = append(r.Users, user.Name)
	}
	return r, nil
}

// RoleAdd is [Node.RoleAdd].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.RoleAdd.
func (u *UserView) RoleAdd(ctx context.Context, role string) (*RoleAddResponse, error) {
	return changeAuth[RoleAddResponse](ctx, u, command.Auth{Action: command.RoleAdd, Role: role})
}

// RoleDelete is [Node.RoleDelete].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.RoleDelete.
func (u *UserView) RoleDelete(ctx context.Context, role string) (*RoleDeleteResponse, error) {
	return changeAuth[RoleDeleteResponse](ctx, u, command.Auth{Action: command.RoleDelete, Role: role})
}

// RoleGrantPermission is [Node.RoleGrantPermission].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.RoleGrantPermission.
func (u *UserView) RoleGrantPermission(
	ctx context.Context, role string, t PermissionType, key string, opts ...RangeOption,
) (*RoleGrantPermissionResponse, error) {
	c, err := permission(command.RoleGrantPermission, role, t, key, opts)
	if err != nil {
		return nil, err
	}
	return changeAuth[RoleGrantPermissionResponse](ctx, u, c)
}

// RoleRevokePermission is [Node.RoleRevokePermission].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.RoleRevokePermission.
func (u *UserView) RoleRevokePermission(
	ctx context.Context, role, key string, opts ...RangeOption,
) (*RoleRevokePermissionResponse, error) {
	c, err := permission(command.RoleRevokePermission, role, 0, key, opts)
	if err != nil {
		return nil, err
	}
	return changeAuth[RoleRevokePermissionResponse](ctx, u, c)
}

// RoleGet is [Node.RoleGet]. Users get their own roles without the role root.
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.RoleGet.
func (u *UserView) RoleGet(ctx context.Context, role string) (*RoleGetResponse, error) {
	v, err := u.latest(ctx, func(v *state.View) command.Code { return v.Auth.Guard(u.as).Member(role) })
	if err != nil {
		return nil, err
	}
	found := v.Auth.Role(role)
	if found == nil {
		return nil, ErrRoleNotFound
	}
	r := &RoleGetResponse{Header: u.n.header(v.KV.Revision())}
	if role == Root {
		r.Permissions = []Permission{{Type: PermReadWrite, RangeEnd: allKeys}}
		return r, nil
	}
	for _, p := range found.Permissions {
		r.Permissions = append(r.Permissions, Permission{PermissionType(p.Access), p.Key, p.End})
	}
	return r, nil
}

// RoleList is [Node.RoleList].
//
// Errors: ErrPermissionDenied, ErrUserEmpty, ErrUserNotFound; those of Node.RoleList.
func (u *UserView) RoleList(ctx context.Context) (*RoleListResponse, error) {
	v, err := u.latest(ctx, u.isRoot)
	if err != nil {
		return nil, err
	}
	r := &RoleListResponse{Header: u.n.header(v.KV.Revision())}
	for _, role := range v.Auth.Roles() {
		r.Roles = append(r.Roles, role.Name)
	}
	return r, nil
}

func userAdd(name string, opts []UserOption) command.Auth {
	c := command.Auth{Action: command.UserAdd, User: name, NoPassword: true}
	for _, opt := range opts {
		opt.user(&c)
	}
	return c
}

// permission returns the command that grants or revokes a permission.
func permission(action command.AuthAction, role string, t PermissionType, key string, opts []RangeOption) (command.Auth, error) {
	if t > PermReadWrite {
		return command.Auth{}, fmt.Errorf("%w: %v", ErrInvalidOption, t)
	}
	var o deleteOptions
	for _, opt := range opts {
		opt.del(&o)
	}
	c := command.Auth{Action: action, Role: role, Permission: command.Permission{Access: command.Access(t)}}
	if key == "" && o.keys.kind != prefixKeys && o.keys.kind != fromKey {
		return c, nil // which a rule rejects
	}
	var err error
	c.Permission.Key, c.Permission.End, err = o.keys.bounds(key)
	return c, err
}

// changeAuth proposes a change of users or roles.
func changeAuth[R ~struct{ Header }](ctx context.Context, u *UserView, c command.Auth) (*R, error) {
	r, err := u.n.command(ctx, &command.Command{As: u.as, Auth: &c})
	if err != nil {
		return nil, err
	}
	return &R{u.n.header(r.Revision)}, nil
}
