// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// cheap keeps the hashes of passwords cheap.
var cheap = etcdapi.WithBcryptCost(bcrypt.MinCost)

// addUser adds a user with a password, and a role of the same name with permissions.
func addUser(t testing.TB, n *coterie.Node, name string, permissions ...coterie.Permission) {
	t.Helper()
	ctx := t.Context()
	hash, err := bcrypt.GenerateFromPassword([]byte(name+"'s password"), bcrypt.MinCost)
	require.NoError(t, err)
	_, err = n.UserAdd(ctx, name, coterie.WithPasswordHash(hash))
	require.NoError(t, err)
	_, err = n.RoleAdd(ctx, name)
	require.NoError(t, err)
	_, err = n.UserGrantRole(ctx, name, name)
	require.NoError(t, err)
	for _, p := range permissions {
		var opts []coterie.RangeOption
		if p.RangeEnd != "" {
			opts = append(opts, coterie.WithRange(p.RangeEnd))
		}
		_, err = n.RoleGrantPermission(ctx, name, p.Type, p.Key, opts...)
		require.NoError(t, err)
	}
}

// protect adds the user root, and the user alice, which may read and write the keys from "a" to "b" and read those up
// to "c". Then it enables the checks of permissions.
func protect(t testing.TB, n *coterie.Node) {
	t.Helper()
	addUser(t, n, "root")
	addUser(t, n, "alice",
		coterie.Permission{Type: coterie.PermReadWrite, Key: "a", RangeEnd: "b"},
		coterie.Permission{Type: coterie.PermRead, Key: "b", RangeEnd: "c"})
	_, err := n.AuthEnable(t.Context())
	require.NoError(t, err)
}

// protected opens a node that checks permissions, and serves it.
func protected(t testing.TB, opts ...etcdapi.Option) (*coterie.Node, string) {
	t.Helper()
	n := open(t)
	protect(t, n)
	return n, serve(t, n, append([]etcdapi.Option{cheap}, opts...)...)
}

// as returns a context for calls of a user to an endpoint.
func as(t testing.TB, addr, name string) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "token", tokenOf(t, addr, name))
}

// login returns a client of an endpoint that authenticates as a user.
func login(t testing.TB, addr, name, password string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{addr}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(), Username: name, Password: password,
	})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestUsersAndRoles(t *testing.T) {
	n := open(t)
	addr := serve(t, n, cheap)
	c, ctx := pb.NewAuthClient(dial(t, addr)), t.Context()
	must := func(_ any, err error) { t.Helper(); require.NoError(t, err) }

	_, err := c.AuthEnable(ctx, &pb.AuthEnableRequest{})
	requireError(t, codes.FailedPrecondition, "etcdserver: root user does not exist", err)
	must(c.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "secret"}))
	_, err = c.AuthEnable(ctx, &pb.AuthEnableRequest{})
	requireError(t, codes.FailedPrecondition, "etcdserver: root user does not have root role", err)
	must(c.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}))

	must(c.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "alice", Password: "hidden"}))
	_, err = c.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "alice", Password: "hidden"})
	requireError(t, codes.FailedPrecondition, "etcdserver: user name already exists", err)
	_, err = c.UserAdd(ctx, &pb.AuthUserAddRequest{Password: "hidden"})
	requireError(t, codes.InvalidArgument, "etcdserver: user name is empty", err)
	must(c.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "robot", Options: &authpb.UserAddOptions{NoPassword: true}}))
	must(c.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "readers"}))
	_, err = c.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "readers"})
	requireError(t, codes.FailedPrecondition, "etcdserver: role name already exists", err)
	_, err = c.RoleAdd(ctx, &pb.AuthRoleAddRequest{})
	requireError(t, codes.InvalidArgument, "etcdserver: role name is empty", err)
	_, err = c.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "readers"})
	requireError(t, codes.InvalidArgument, "etcdserver: permission not given", err)
	for _, p := range []*authpb.Permission{{}, {RangeEnd: []byte("b")}, {Key: []byte("b"), RangeEnd: []byte("a")}, {Key: []byte("b"), RangeEnd: []byte("b")}} {
		_, err = c.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "readers", Perm: p})
		requireError(t, codes.InvalidArgument, "etcdserver: invalid auth management", err)
	}
	for _, p := range []*authpb.Permission{
		{Key: []byte("k")}, {Key: []byte("a"), RangeEnd: []byte("c")},
		{Key: []byte("a"), RangeEnd: []byte("c"), PermType: authpb.READWRITE}, {Key: []byte("x"), RangeEnd: []byte{0}, PermType: authpb.WRITE},
	} {
		must(c.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "readers", Perm: p}))
	}
	_, err = c.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "others", Perm: &authpb.Permission{Key: []byte("k")}})
	requireError(t, codes.FailedPrecondition, "etcdserver: role name not found", err)
	role, err := c.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "readers"})
	require.NoError(t, err)
	var list []string
	for _, p := range role.Perm {
		list = append(list, p.PermType.String()+" "+string(p.Key)+"-"+string(p.RangeEnd))
	}
	require.Equal(t, []string{"READWRITE a-c", "READ k-", "WRITE x-\x00"}, list)
	must(c.RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: "readers", Key: []byte("k")}))
	_, err = c.RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: "readers", Key: []byte("k")})
	requireError(t, codes.FailedPrecondition, "etcdserver: permission is not granted to the role", err)

	must(c.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "readers"}))
	must(c.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "readers"})) // again
	_, err = c.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "alice", Role: "others"})
	requireError(t, codes.FailedPrecondition, "etcdserver: role name not found", err)
	_, err = c.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "bob", Role: "readers"})
	requireError(t, codes.FailedPrecondition, "etcdserver: user name not found", err)
	user, err := c.UserGet(ctx, &pb.AuthUserGetRequest{Name: "alice"})
	require.NoError(t, err)
	require.Equal(t, []string{"readers"}, user.Roles)
	_, err = c.UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: "alice", Role: "others"})
	requireError(t, codes.FailedPrecondition, "etcdserver: role is not granted to the user", err)
	users, err := c.UserList(ctx, &pb.AuthUserListRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"alice", "robot", "root"}, users.Users)
	roles, err := c.RoleList(ctx, &pb.AuthRoleListRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"readers"}, roles.Roles)
	require.NotZero(t, roles.Header.ClusterId)
	require.EqualValues(t, 1, roles.Header.Revision)

	_, err = c.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "secret"})
	requireError(t, codes.FailedPrecondition, "etcdserver: authentication is not enabled", err)
	must(c.AuthEnable(ctx, &pb.AuthEnableRequest{}))
	status, err := c.AuthStatus(ctx, &pb.AuthStatusRequest{})
	require.NoError(t, err)
	require.True(t, status.Enabled)
	require.EqualValues(t, 12, status.AuthRevision)
	for _, wrong := range []*pb.AuthenticateRequest{{}, {Name: "root"}, {Name: "root", Password: "secrets"}, {Name: "bob", Password: "secret"}} {
		_, err = c.Authenticate(ctx, wrong)
		requireError(t, codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", err)
	}
	_, err = c.Authenticate(ctx, &pb.AuthenticateRequest{Name: "robot"})
	requireError(t, codes.Unknown, "auth: authentication failed, password was given for no password user", err)

	_, err = c.UserList(ctx, &pb.AuthUserListRequest{})
	requireError(t, codes.InvalidArgument, "etcdserver: user name is empty", err)
	root, alice := login(t, addr, "root", "secret"), login(t, addr, "alice", "hidden")
	must(root.UserList(ctx))
	must(root.AuthEnable(ctx)) // again
	must(alice.Put(ctx, "b", "v"))
	_, err = alice.Put(ctx, "k", "v")
	require.ErrorContains(t, err, "etcdserver: permission denied")
	must(alice.UserGet(ctx, "alice"))
	must(alice.RoleGet(ctx, "readers"))
	_, err = alice.UserGet(ctx, "root")
	require.ErrorContains(t, err, "etcdserver: permission denied")
	_, err = alice.RoleList(ctx)
	require.ErrorContains(t, err, "etcdserver: permission denied")
	for _, call := range []func() error{
		func() error { _, err := root.UserDelete(ctx, "root"); return err },
		func() error { _, err := root.RoleDelete(ctx, "root"); return err },
		func() error { _, err := root.UserRevokeRole(ctx, "root", "root"); return err },
	} {
		require.ErrorContains(t, call(), "etcdserver: invalid auth management")
	}
	must(root.RoleDelete(ctx, "readers"))
	_, err = alice.Put(ctx, "b", "v")
	require.ErrorContains(t, err, "etcdserver: permission denied")
	must(root.UserChangePassword(ctx, "alice", "other"))
	must(login(t, addr, "alice", "other").UserGet(ctx, "alice"))
	must(root.UserDelete(ctx, "alice"))
	_, err = alice.UserGet(ctx, "alice")
	require.Error(t, err)
	must(root.AuthDisable(ctx))
	must(c.UserList(ctx, &pb.AuthUserListRequest{}))
	must(c.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: "root"}))
}

func TestUsersAndRolesOverJSON(t *testing.T) {
	n := open(t)
	addr := serve(t, n, cheap)
	post := func(token, path, body string) (int, string) {
		t.Helper()
		code, text, _ := do(t, "POST", "http://"+addr+"/v3/"+path, body, "Authorization", token)
		return code, text
	}
	must := func(token, path, body string) string {
		t.Helper()
		code, text := post(token, path, body)
		require.Equal(t, http.StatusOK, code, text)
		return strings.ReplaceAll(text, " ", "")
	}
	first := func(path, body string) { // no token is needed while permissions are not checked
		t.Helper()
		code, text, _ := do(t, "POST", "http://"+addr+"/v3/"+path, body)
		require.Equal(t, http.StatusOK, code, text)
	}
	first("auth/user/add", `{"name": "root", "password": "secret"}`)
	first("auth/user/grant", `{"user": "root", "role": "root"}`)
	first("auth/user/add", `{"name": "alice", "password": "hidden"}`)
	first("auth/user/add", `{"name": "robot", "options": {"no_password": true}}`)
	first("auth/role/add", `{"name": "readers"}`)
	first("auth/role/grant", `{"name": "readers", "perm": {"permType": "READ", "key": "YQ==", "range_end": "Yw=="}}`)
	first("auth/user/grant", `{"user": "alice", "role": "readers"}`)
	first("auth/enable", `{}`)

	login := func(name, password string) string {
		t.Helper()
		code, text, _ := do(t, "POST", "http://"+addr+"/v3/auth/authenticate", `{"name": "`+name+`", "password": "`+password+`"}`)
		require.Equal(t, http.StatusOK, code, text)
		var r struct{ Token string }
		require.NoError(t, json.Unmarshal([]byte(text), &r))
		return r.Token
	}
	root, alice := login("root", "secret"), login("alice", "hidden")
	require.Contains(t, must(alice, "auth/status", `{}`), `"enabled":true`)
	require.Contains(t, must(alice, "auth/user/get", `{"name": "alice"}`), `"roles":["readers"]`)
	require.Contains(t, must(alice, "auth/role/get", `{"role": "readers"}`), `"perm":[{"key":"YQ==","range_end":"Yw=="}]`)
	require.Contains(t, must(root, "auth/user/list", `{}`), `"users":["alice","robot","root"]`)
	require.Contains(t, must("Bearer "+root, "auth/role/list", `{}`), `"roles":["readers"]`)
	must(root, "kv/put", `{"key": "YQ==", "value": "dg=="}`)
	must(alice, "kv/range", `{"key": "YQ=="}`)
	for _, path := range []string{"auth/user/list", "auth/role/list", "auth/disable"} {
		code, text := post(alice, path, `{}`)
		require.Equal(t, http.StatusForbidden, code)
		require.Contains(t, text, "etcdserver: permission denied")
	}
	code, text := post(alice, "kv/put", `{"key": "YQ=="}`)
	require.Equal(t, http.StatusForbidden, code, text)
	must(root, "auth/user/changepw", `{"name": "alice", "password": "other"}`)
	code, text = post(alice, "kv/range", `{"key": "YQ=="}`)
	require.Equal(t, http.StatusUnauthorized, code, text)
	alice = login("alice", "other")
	must(root, "auth/role/revoke", `{"role": "readers", "key": "YQ==", "range_end": "Yw=="}`)
	code, text = post(alice, "kv/range", `{"key": "YQ=="}`)
	require.Equal(t, http.StatusForbidden, code, text)
	must(root, "auth/user/revoke", `{"name": "alice", "role": "readers"}`)
	must(root, "auth/role/delete", `{"role": "readers"}`)
	must(root, "auth/user/delete", `{"name": "alice"}`)
	must(root, "auth/disable", `{}`)
	first("auth/user/list", `{}`)
}

func TestUserWithoutNameIsNotFound(t *testing.T) {
	_, addr := protected(t)
	users := pb.NewAuthClient(dial(t, addr))
	_, err := users.UserGet(t.Context(), &pb.AuthUserGetRequest{})
	requireError(t, codes.FailedPrecondition, "etcdserver: user name not found", err)
	_, err = users.UserGet(t.Context(), &pb.AuthUserGetRequest{Name: "alice"})
	requireError(t, codes.InvalidArgument, "etcdserver: user name is empty", err)
	_, err = users.UserGet(as(t, addr, "alice"), &pb.AuthUserGetRequest{})
	requireError(t, codes.PermissionDenied, "etcdserver: permission denied", err)
}
