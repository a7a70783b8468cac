// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// As in etcd, bcrypt rejects longer passwords, and compares the first 72 bytes.
func TestPasswordsHaveAtMost72Bytes(t *testing.T) {
	_, addr := protected(t)
	root := tokenOf(t, addr, "root")
	callers(t, addr, func(t *testing.T, call caller) {
		text := "bcrypt: password length exceeds 72 bytes"
		_, err := call(root, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "long", Password: strings.Repeat("p", 73)})
		requireError(t, codes.Unknown, text, err)
		_, err = call(root, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "alice", Password: strings.Repeat("p", 1<<20)})
		requireError(t, codes.Unknown, text, err)
		longest := strings.Repeat("p", 72)
		_, err = call(root, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "alice", Password: longest})
		require.NoError(t, err)
		_, err = call("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "alice", Password: longest})
		require.NoError(t, err)
		_, err = call("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "alice", Password: longest[1:]})
		requireError(t, codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", err)
	})
}

func TestPasswordsMayComeHashed(t *testing.T) {
	n, addr := protected(t)
	root := tokenOf(t, addr, "root")
	_, err := n.UserAdd(t.Context(), "robot")
	require.NoError(t, err)
	hash, err := bcrypt.GenerateFromPassword([]byte("new"), bcrypt.MinCost)
	require.NoError(t, err)
	callers(t, addr, func(t *testing.T, call caller) {
		_, err := call(root, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "alice", HashedPassword: base64.StdEncoding.EncodeToString(hash)})
		require.NoError(t, err)
		_, err = call("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "alice", Password: "new"})
		require.NoError(t, err)
		_, err = call(root, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "alice", HashedPassword: "?"})
		requireError(t, codes.Unknown, "auth: authentication failed, password was given for no password user", err)
		_, err = call(root, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "stranger", HashedPassword: "?"})
		requireError(t, codes.FailedPrecondition, "etcdserver: user name not found", err)
		// A user without a password gets none.
		_, err = call(root, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "robot", Password: "new"})
		require.NoError(t, err)
		_, err = call("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "robot", Password: "new"})
		requireError(t, codes.Unknown, "auth: authentication failed, password was given for no password user", err)
		// UserAdd hashes the password of the request in any case, as in etcd.
		_, err = call(root, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: "bob", Password: "mine", HashedPassword: base64.StdEncoding.EncodeToString(hash)})
		require.NoError(t, err)
		_, err = call("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "bob", Password: "mine"})
		require.NoError(t, err)
		_, err = call("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: "bob", Password: "new"})
		requireError(t, codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", err)
		_, err = call(root, "Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: "bob"})
		require.NoError(t, err)
	})
}

// No password is in the log, in snapshots or in messages.
func TestCVE_2021_28235_PasswordsAreNotStored(t *testing.T) {
	dir := t.TempDir()
	n := open(t, func(c *coterie.Config) { c.InMemory, c.Dir = false, dir })
	protect(t, n)
	addr := serve(t, n, cheap)
	root := tokenOf(t, addr, "root")
	callers(t, addr, func(t *testing.T, call caller) {
		name := strings.ReplaceAll(t.Name(), "/", "-")
		_, err := call(root, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: name, Password: "secret-of-bob", Options: &authpb.UserAddOptions{}})
		require.NoError(t, err)
		_, err = call(root, "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: name, Password: "secret-of-bob-2"})
		require.NoError(t, err)
		r, err := call("", "Auth/Authenticate", &pb.AuthenticateRequest{Name: name, Password: "secret-of-bob-2"})
		require.NoError(t, err)
		token := r.(*pb.AuthenticateResponse).Token
		_, err = call(root, "Auth/UserAdd", &pb.AuthUserAddRequest{Name: name + "-marker"})
		require.NoError(t, err)
		found := false
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NotContains(t, string(content), "secret-of-bob", path)
			require.NotContains(t, string(content), token, path)
			found = found || bytes.Contains(content, []byte(name+"-marker"))
			return nil
		}))
		require.True(t, found, "the files have the change")
	})
}

// The traces of gRPC, which etcd shows at the log level debug, keep no passwords.
func TestCVE_2021_28235_TracesHaveNoPasswords(t *testing.T) {
	before := grpc.EnableTracing
	grpc.EnableTracing = true
	t.Cleanup(func() { grpc.EnableTracing = before })
	n := open(t)
	protect(t, n)
	addr := serve(t, n, cheap, etcdapi.WithTraces())
	ctx, c := as(t, addr, "root"), pb.NewAuthClient(dial(t, addr))
	_, err := c.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "traced", Password: "secret-of-traced"})
	require.NoError(t, err)
	_, err = c.UserChangePassword(ctx, &pb.AuthUserChangePasswordRequest{Name: "traced", Password: "secret-of-traced"})
	require.NoError(t, err)
	for _, password := range []string{"secret-of-traced", "wrong secret-of-traced"} {
		_, _ = c.Authenticate(ctx, &pb.AuthenticateRequest{Name: "traced", Password: password})
	}
	// The traces of callers without the permission.
	_, _ = c.UserAdd(t.Context(), &pb.AuthUserAddRequest{Name: "traced", Password: "secret-of-traced"})
	_, _ = c.UserChangePassword(t.Context(), &pb.AuthUserChangePasswordRequest{Name: "traced", Password: "secret-of-traced"})
	code, page, _ := do(t, "GET", "http://"+addr+"/debug/requests?fam=grpc.Recv.etcdserverpb.Auth&b=0&exp=1", "")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, page, "traced", "the traces have the requests")
	require.NotContains(t, page, "secret-of-traced")
}
