// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// An administrator makes users and roles, and fails the test if a call does.
type administrator struct {
	*testing.T
	coterie.Auth
}

func (a administrator) must(_ any, err error) {
	a.Helper()
	require.NoError(a, err)
}

// user adds a user with a role of the same name, which has the permissions.
func (a administrator) user(name string, permissions ...coterie.Permission) {
	a.Helper()
	a.must(a.UserAdd(a.Context(), name, coterie.WithPasswordHash([]byte("hash of "+name))))
	a.must(a.RoleAdd(a.Context(), name))
	a.must(a.UserGrantRole(a.Context(), name, name))
	for _, p := range permissions {
		a.grant(name, p)
	}
}

func (a administrator) grant(role string, p coterie.Permission) {
	a.Helper()
	var opts []coterie.RangeOption
	if p.RangeEnd != "" {
		opts = append(opts, coterie.WithRange(p.RangeEnd))
	}
	a.must(a.RoleGrantPermission(a.Context(), role, p.Type, p.Key, opts...))
}

// enable adds the user root, and turns the checks on.
func (a administrator) enable() {
	a.Helper()
	a.must(a.UserAdd(a.Context(), coterie.Root))
	a.must(a.UserGrantRole(a.Context(), coterie.Root, coterie.Root))
	a.must(a.AuthEnable(a.Context()))
}

func (a administrator) revision() uint64 {
	a.Helper()
	s, err := a.AuthStatus(a.Context())
	require.NoError(a, err)
	return s.AuthRevision
}

// Each step is a call, the error that it returns, and how far the auth revision moves. They are etcd's.
func TestRulesOfUsersAndRoles(t *testing.T) {
	n := open(t)
	ctx := t.Context()
	revision := uint64(1)
	for i, step := range []struct {
		name  string
		call  func() error
		err   error
		moves uint64
	}{
		{"disable while disabled", func() error { return errOf(n.AuthDisable(ctx)) }, nil, 0},
		{"enable without root", func() error { return errOf(n.AuthEnable(ctx)) }, coterie.ErrRootUserNotExist, 0},
		{"add a user without a name", func() error { return errOf(n.UserAdd(ctx, "")) }, coterie.ErrUserEmpty, 0},
		{"add root", func() error { return errOf(n.UserAdd(ctx, "root")) }, nil, 1},
		{"add root again", func() error { return errOf(n.UserAdd(ctx, "root")) }, coterie.ErrUserExists, 0},
		{"enable without the role", func() error { return errOf(n.AuthEnable(ctx)) }, coterie.ErrRootRoleNotExist, 0},
		{"grant root, which was not added", func() error { return errOf(n.UserGrantRole(ctx, "root", "root")) }, nil, 1},
		{"grant it again", func() error { return errOf(n.UserGrantRole(ctx, "root", "root")) }, nil, 0},
		{"get the role root", func() error { return errOf(n.RoleGet(ctx, "root")) }, coterie.ErrRoleNotFound, 0},
		{"grant another role", func() error { return errOf(n.UserGrantRole(ctx, "root", "r")) }, coterie.ErrRoleNotFound, 0},
		{"grant to nobody", func() error { return errOf(n.UserGrantRole(ctx, "u", "root")) }, coterie.ErrUserNotFound, 0},
		{"enable", func() error { return errOf(n.AuthEnable(ctx)) }, nil, 0},
		{"enable again", func() error { return errOf(n.AuthEnable(ctx)) }, nil, 0},
		{"delete root", func() error { return errOf(n.UserDelete(ctx, "root")) }, coterie.ErrInvalidAuthMgmt, 0},
		{"revoke root", func() error { return errOf(n.UserRevokeRole(ctx, "root", "root")) }, coterie.ErrInvalidAuthMgmt, 0},
		{"delete the role root", func() error { return errOf(n.RoleDelete(ctx, "root")) }, coterie.ErrInvalidAuthMgmt, 0},
		{"delete nobody", func() error { return errOf(n.UserDelete(ctx, "u")) }, coterie.ErrUserNotFound, 0},
		{"a password for nobody", func() error { return errOf(n.UserChangePassword(ctx, "u", nil)) }, coterie.ErrUserNotFound, 0},
		{"add a user", func() error { return errOf(n.UserAdd(ctx, "u")) }, nil, 1},
		{"change no password", func() error { return errOf(n.UserChangePassword(ctx, "u", []byte("h"))) }, nil, 1},
		{"add a role without a name", func() error { return errOf(n.RoleAdd(ctx, "")) }, coterie.ErrRoleEmpty, 0},
		{"permission of no role", func() error { return errOf(n.RoleGrantPermission(ctx, "r", 0, "k")) }, coterie.ErrRoleNotFound, 0},
		{"revoke from no role", func() error { return errOf(n.RoleRevokePermission(ctx, "r", "k")) }, coterie.ErrRoleNotFound, 0},
		{"delete no role", func() error { return errOf(n.RoleDelete(ctx, "r")) }, coterie.ErrRoleNotFound, 0},
		{"add a role", func() error { return errOf(n.RoleAdd(ctx, "r")) }, nil, 1},
		{"add it again", func() error { return errOf(n.RoleAdd(ctx, "r")) }, coterie.ErrRoleExists, 0},
		{"revoke a role that is not granted", func() error { return errOf(n.UserRevokeRole(ctx, "u", "r")) }, coterie.ErrRoleNotGranted, 0},
		{"grant a role", func() error { return errOf(n.UserGrantRole(ctx, "u", "r")) }, nil, 1},
		{"permission without a key", func() error { return errOf(n.RoleGrantPermission(ctx, "r", 0, "")) }, coterie.ErrInvalidAuthMgmt, 0},
		{"permission on an empty range", func() error {
			return errOf(n.RoleGrantPermission(ctx, "r", 0, "b", coterie.WithRange("a")))
		}, coterie.ErrInvalidAuthMgmt, 0},
		{"an unknown type", func() error { return errOf(n.RoleGrantPermission(ctx, "r", 3, "k")) }, coterie.ErrInvalidOption, 0},
		{"permission", func() error { return errOf(n.RoleGrantPermission(ctx, "r", coterie.PermRead, "k")) }, nil, 1},
		{"the same permission", func() error { return errOf(n.RoleGrantPermission(ctx, "r", coterie.PermRead, "k")) }, nil, 1},
		{"another type", func() error { return errOf(n.RoleGrantPermission(ctx, "r", coterie.PermWrite, "k")) }, nil, 1},
		{"a prefix", func() error {
			return errOf(n.RoleGrantPermission(ctx, "r", coterie.PermReadWrite, "k", coterie.WithPrefix()))
		}, nil, 1},
		{"all keys", func() error {
			return errOf(n.RoleGrantPermission(ctx, "r", coterie.PermRead, "", coterie.WithFromKey()))
		}, nil, 1},
		{"revoke another range", func() error {
			return errOf(n.RoleRevokePermission(ctx, "r", "k", coterie.WithRange("ka")))
		}, coterie.ErrPermissionNotGranted, 0},
		{"revoke the prefix", func() error { return errOf(n.RoleRevokePermission(ctx, "r", "k", coterie.WithPrefix())) }, nil, 1},
		{"add the role root", func() error { return errOf(n.RoleAdd(ctx, "root")) }, nil, 1},
		{"disable", func() error { return errOf(n.AuthDisable(ctx)) }, nil, 1},
	} {
		err := step.call()
		if step.err == nil {
			require.NoError(t, err, "%d: %s", i, step.name)
		}
		require.ErrorIs(t, err, step.err, "%d: %s", i, step.name)
		revision += step.moves
		s, err := n.AuthStatus(ctx)
		require.NoError(t, err)
		require.Equal(t, revision, s.AuthRevision, "%d: %s", i, step.name)
		require.EqualValues(t, 1, s.Revision, "the revision of the keys stays")
	}
	role, err := n.RoleGet(ctx, "r")
	require.NoError(t, err)
	require.Equal(t, []coterie.Permission{
		{Type: coterie.PermRead, Key: "\x00", RangeEnd: "\x00"}, {Type: coterie.PermWrite, Key: "k"},
	}, role.Permissions)
	role, err = n.RoleGet(ctx, "root")
	require.NoError(t, err)
	require.Equal(t, []coterie.Permission{{Type: coterie.PermReadWrite, RangeEnd: "\x00"}}, role.Permissions)
	user, err := n.UserGet(ctx, "u")
	require.NoError(t, err)
	require.Equal(t, []string{"r"}, user.Roles)
	require.ErrorIs(t, errOf(n.UserGet(ctx, "nobody")), coterie.ErrUserNotFound)
	users, err := n.UserList(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"root", "u"}, users.Users)
	roles, err := n.RoleList(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"r", "root"}, roles.Roles)

	require.NoError(t, errOf(n.RoleDelete(ctx, "r")))
	user, err = n.UserGet(ctx, "u")
	require.NoError(t, err)
	require.Empty(t, user.Roles)
}

func TestLargeUserNameIsRejected(t *testing.T) {
	n := open(t, func(cfg *coterie.Config) { cfg.MaxRequestBytes = 1000 })
	require.ErrorIs(t, errOf(n.UserAdd(t.Context(), strings.Repeat("u", 1000))), coterie.ErrTooLarge)
	require.NoError(t, errOf(n.UserAdd(t.Context(), strings.Repeat("u", 900))))
}

func TestAuthenticate(t *testing.T) {
	n := open(t)
	a := administrator{t, n}
	ctx := t.Context()
	password := "hash of alice"
	check := func(hash []byte) error {
		if string(hash) != password {
			return errors.New("another one")
		}
		return nil
	}
	a.user("alice")
	require.ErrorIs(t, errOf(n.Authenticate(ctx, "alice", check)), coterie.ErrAuthNotEnabled)
	a.enable()
	r, err := n.Authenticate(ctx, "alice", check)
	require.NoError(t, err)
	require.Equal(t, a.revision(), r.AuthRevision)
	require.ErrorIs(t, errOf(n.Authenticate(ctx, "nobody", check)), coterie.ErrAuthFailed)
	require.ErrorIs(t, errOf(n.Authenticate(ctx, "root", check)), coterie.ErrNoPasswordUser)
	password = "guessed"
	require.ErrorIs(t, errOf(n.Authenticate(ctx, "alice", check)), coterie.ErrAuthFailed)

	// The password changes while it is checked: the next check gets the new one.
	var hashes []string
	_, err = n.Authenticate(ctx, "alice", func(hash []byte) error {
		if hashes = append(hashes, string(hash)); len(hashes) == 1 {
			a.must(n.UserChangePassword(ctx, "alice", []byte("new")))
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"hash of alice", "new"}, hashes)

	a.must(n.UserAdd(ctx, "empty", coterie.WithPasswordHash(nil)))
	require.ErrorIs(t, errOf(n.Authenticate(ctx, "empty", func(hash []byte) error {
		require.Empty(t, hash)
		return errors.New("no hash")
	})), coterie.ErrAuthFailed)
}

func TestPermissionTypesAreText(t *testing.T) {
	for text, want := range map[string]coterie.PermissionType{
		"READ": coterie.PermRead, "WRITE": coterie.PermWrite, "READWRITE": coterie.PermReadWrite,
	} {
		var got coterie.PermissionType
		require.NoError(t, got.UnmarshalText([]byte(text)))
		require.Equal(t, want, got)
		b, err := got.MarshalText()
		require.NoError(t, err)
		require.Equal(t, text, string(b))
	}
	require.Error(t, new(coterie.PermissionType).UnmarshalText([]byte("EXECUTE")))
	require.Equal(t, "PermissionType(3)", coterie.PermissionType(3).String())
}

// users returns everything about users and roles that calls of a node return.
func users(t *testing.T, n *coterie.Node) (all []any) {
	t.Helper()
	ctx := t.Context()
	s, err := n.AuthStatus(ctx)
	require.NoError(t, err)
	all = append(all, s.Enabled, s.AuthRevision)
	names, err := n.UserList(ctx)
	require.NoError(t, err)
	for _, name := range names.Users {
		u, err := n.UserGet(ctx, name)
		require.NoError(t, err)
		var hash []byte
		if s.Enabled {
			_, err = n.Authenticate(ctx, name, func(h []byte) error { hash = h; return nil })
		}
		all = append(all, name, len(u.Roles), strings.Join(u.Roles, " "), string(hash), err)
	}
	roles, err := n.RoleList(ctx)
	require.NoError(t, err)
	for _, name := range roles.Roles {
		r, err := n.RoleGet(ctx, name)
		require.NoError(t, err)
		all = append(all, name, len(r.Permissions))
		for _, p := range r.Permissions {
			all = append(all, p)
		}
	}
	return all
}

// Users come to a node in each way that its state does: in entries, in its own snapshot, in that of a leader, and in
// a backup.
func TestUsersAreReplicated(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		a := administrator{t, c.Node(0)}
		a.user("alice", coterie.Permission{Type: coterie.PermReadWrite, Key: "a", RangeEnd: "b"}, coterie.Permission{Key: "c"})
		a.user("bob")
		a.enable()
		want := users(t, c.Node(0))
		require.Len(t, want, 2+3*5+2*2+2)
		c.Stop(2)
		a.T.Logf("revision %d", a.revision())
		a.must(c.Node(0).UserDelete(t.Context(), "bob"))
		for range 200 { // until the logs begin after the change
			put(t, c.Node(0), "k", "v")
		}
		want = users(t, c.Node(0))
		c.Restart(2)
		require.NoError(t, c.Node(2).Ready(t.Context()))
		require.Equal(t, want, users(t, c.Node(2)))
		for i := range 3 {
			c.Crash(i)
		}
		for i := range 3 {
			c.Restart(i)
		}
		for i := range 3 {
			require.NoError(t, c.Node(i).Ready(t.Context()))
			require.Equal(t, want, users(t, c.Node(i)))
		}
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 20 }))
}

func TestBackupHasUsers(t *testing.T) {
	n := open(t)
	a := administrator{t, n}
	a.user("alice", coterie.Permission{Type: coterie.PermWrite, Key: "a"})
	a.enable()
	var b bytes.Buffer
	_, err := n.Backup(t.Context(), &b)
	require.NoError(t, err)
	cfg := coterie.Config{Name: "a", Dir: t.TempDir() + "/restored"}
	require.NoError(t, coterie.RestoreBackup(t.Context(), &b, cfg))
	restored, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, restored.Ready(t.Context()))
	require.Equal(t, users(t, n), users(t, restored))
	require.NoError(t, restored.Check(context.Background()))
	require.NoError(t, restored.Close())
}
