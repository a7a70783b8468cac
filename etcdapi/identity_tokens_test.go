// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

func TestTokensWorkOnEveryNode(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.Addr = "127.0.0.1:0" })
	other := open(t, func(c *coterie.Config) { c.Name, c.Addr, c.Join = "other", "127.0.0.1:0", []string{n.Status().Addr} })
	protect(t, n)
	addr, otherAddr := serve(t, n), serve(t, other)
	put(t, n, "a1", "v")
	for range 10 { // the other node may not have applied the secret of the first token yet
		token := tokenOf(t, addr, "alice")
		callers(t, otherAddr, func(t *testing.T, call caller) {
			for _, form := range []string{token, "Bearer " + token} {
				_, err := call(form, "KV/Range", &pb.RangeRequest{Key: []byte("a1"), Serializable: true})
				require.NoError(t, err)
			}
			_, err := call(token, "KV/Range", &pb.RangeRequest{Key: []byte("z")})
			requireDenied(t, err)
		})
	}
}

func TestTokensEndWithTheirUser(t *testing.T) {
	n, addr := protected(t)
	ctx := t.Context()
	end := func(name string, change func() error) {
		t.Helper()
		token := tokenOf(t, addr, "alice")
		require.NoError(t, change(), name)
		callers(t, addr, func(t *testing.T, call caller) {
			_, err := call(token, "KV/Range", &pb.RangeRequest{Key: []byte("a")})
			requireError(t, codes.Unauthenticated, "etcdserver: invalid auth token", err)
			_, err = call(token, "Watch/Watch", watchRequest("a", ""))
			require.EqualError(t, err, "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token")
		})
	}
	end("another password", func() error {
		_, err := pb.NewAuthClient(dial(t, addr)).UserChangePassword(as(t, addr, "root"), &pb.AuthUserChangePasswordRequest{Name: "alice", Password: "alice's password"})
		return err
	})
	end("the user is replaced by one of the same name", func() error {
		if _, err := n.UserDelete(ctx, "alice"); err != nil {
			return err
		}
		_, err := n.RoleDelete(ctx, "alice")
		addUser(t, n, "alice", coterie.Permission{Type: coterie.PermReadWrite, Key: "a"})
		return err
	})
	end("permissions were not checked in between", func() error {
		if _, err := n.AuthDisable(ctx); err != nil {
			return err
		}
		_, err := n.AuthEnable(ctx)
		return err
	})
}

func TestTokensEndWithTheirTime(t *testing.T) {
	n, addr := protected(t, etcdapi.WithTokenTTL(time.Nanosecond))
	_, err := n.Grant(t.Context(), time.Hour, coterie.WithGrantID(1))
	require.NoError(t, err)
	ctx, conn := as(t, addr, "alice"), dial(t, addr)
	renewals, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	require.NoError(t, err)
	renew := func() error {
		require.NoError(t, renewals.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
		_, err := renewals.Recv()
		return err
	}
	require.NoError(t, renew())
	waitForTheEnd(t, ctx, conn) // the minimum is a second
	require.NoError(t, renew(), "a stream goes on")
	late, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	require.NoError(t, err)
	require.NoError(t, late.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
	_, err = late.Recv()
	requireError(t, codes.Unauthenticated, "etcdserver: invalid auth token", err)
	// When the user's password is removed, the stream can no longer use the token.
	_, err = n.UserChangePassword(t.Context(), "alice", nil)
	require.NoError(t, err)
	requireError(t, codes.Unauthenticated, "etcdserver: invalid auth token", renew())
}

// A stream with an expired token still ends together with all tokens.
func TestStreamsEndWithAllTokens(t *testing.T) {
	n, addr := protected(t, etcdapi.WithTokenTTL(time.Second))
	ctx, conn := as(t, addr, "alice"), dial(t, addr)
	renewals, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	require.NoError(t, err)
	require.NoError(t, renewals.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
	_, err = renewals.Recv()
	require.NoError(t, err)
	waitForTheEnd(t, ctx, conn)
	_, err = n.AuthDisable(t.Context())
	require.NoError(t, err)
	_, err = n.AuthEnable(t.Context())
	require.NoError(t, err)
	tokenOf(t, addr, "alice") // others may log in meanwhile
	require.NoError(t, renewals.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
	_, err = renewals.Recv()
	requireError(t, codes.Unauthenticated, "etcdserver: invalid auth token", err)
}

// waitForTheEnd waits until the token of a context is no longer valid.
func waitForTheEnd(t *testing.T, ctx context.Context, conn grpc.ClientConnInterface) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a")})
		return status.Code(err) == codes.Unauthenticated
	}, 10*time.Second, 20*time.Millisecond)
}

// A client with a password replaces an expired token by itself.
func TestClientsReplaceTheirTokens(t *testing.T) {
	n, addr := protected(t, etcdapi.WithTokenTTL(time.Second))
	c := login(t, addr, "alice", "alice's password")
	l, err := c.Grant(t.Context(), 60)
	require.NoError(t, err)
	renewed, err := c.KeepAlive(t.Context(), l.ID)
	require.NoError(t, err)
	require.NotNil(t, <-renewed)
	events := c.Watch(t.Context(), "a", clientv3.WithPrefix())
	waitForTheEnd(t, as(t, addr, "alice"), dial(t, addr)) // of a token that is newer than the client's
	_, err = c.Put(t.Context(), "a1", "v")
	require.NoError(t, err)
	require.Len(t, (<-events).Events, 1)
	_, err = n.RoleAdd(t.Context(), "other") // raises the auth revision
	require.NoError(t, err)
	_, err = c.Put(t.Context(), "a1", "v")
	require.NoError(t, err)
	later := c.Watch(t.Context(), "b", clientv3.WithRev(1))
	put(t, n, "b", "v")
	require.Len(t, (<-later).Events, 1)
}

func TestRevokedPermissionEndsWatches(t *testing.T) {
	n, addr := protected(t)
	stream, err := pb.NewWatchClient(dial(t, addr)).Watch(as(t, addr, "alice"))
	require.NoError(t, err)
	for _, key := range []string{"a", "b"} {
		require.NoError(t, stream.Send(watchRequest(key, "")))
		r, err := stream.Recv()
		require.NoError(t, err)
		require.True(t, r.Created && !r.Canceled)
	}
	_, err = n.RoleRevokePermission(t.Context(), "alice", "b", coterie.WithRange("c"))
	require.NoError(t, err)
	r, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, r.Canceled)
	require.EqualValues(t, 1, r.WatchId)
	require.Equal(t, textWatchDenied, r.CancelReason)
	put(t, n, "b", "secret")
	put(t, n, "a", "v") // the other watch goes on
	r, err = stream.Recv()
	require.NoError(t, err)
	require.EqualValues(t, 0, r.WatchId)
	require.Equal(t, "a", string(r.Events[0].Kv.Key))
	require.NoError(t, stream.Send(watchRequest("b", "")))
	r, err = stream.Recv()
	require.NoError(t, err)
	require.Equal(t, textWatchDenied, r.CancelReason)
}

// A token that the program sends with a call counts. The credentials of a call that the program itself answers do not.
func TestClientActsAsTheProgram(t *testing.T) {
	n, addr := protected(t)
	alice := tokenOf(t, addr, "alice")
	served := metadata.NewIncomingContext(t.Context(), metadata.Pairs("token", alice))
	withToken := metadata.AppendToOutgoingContext(t.Context(), "token", alice)
	for name, ctx := range map[string]context.Context{"plain": t.Context(), "served": served} {
		c := etcdapi.NewClient(n)
		defer c.Close()
		_, err := c.Put(ctx, "z", "v")
		require.NoError(t, err, name)
		_, err = c.UserList(ctx)
		require.NoError(t, err, name)
		_, err = v3lockpb.NewLockClient(etcdapi.NewConn(n)).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("z" + name)})
		require.NoError(t, err, name)
	}
	for name, c := range map[string]*clientv3.Client{"token": etcdapi.NewClient(n), "option": etcdapi.NewClient(n, etcdapi.WithUser("alice"))} {
		defer c.Close()
		ctx := served
		if name == "token" {
			ctx = withToken
		}
		_, err := c.Put(ctx, "a1", "v")
		require.NoError(t, err, name)
		_, err = c.Put(ctx, "z", "v")
		requireDenied(t, err, name)
		watched := <-c.Watch(ctx, "z")
		require.Error(t, watched.Err(), name)
		_, err = c.Compact(ctx, 1)
		requireDenied(t, err, name)
	}
	for name, conn := range map[string]grpc.ClientConnInterface{"token": etcdapi.NewConn(n), "option": etcdapi.NewConn(n, etcdapi.WithUser("alice"))} {
		ctx := served
		if name == "token" {
			ctx = withToken
		}
		_, err := v3lockpb.NewLockClient(conn).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("zz")})
		requireDenied(t, err, name)
	}
	noUser := etcdapi.NewClient(n, etcdapi.WithUser(""))
	defer noUser.Close()
	_, err := noUser.Put(t.Context(), "a1", "v")
	require.ErrorContains(t, err, "etcdserver: user name is empty")
	c := etcdapi.NewClient(n)
	defer c.Close()
	r, err := c.Authenticate(t.Context(), "alice", "alice's password")
	require.NoError(t, err)
	_, err = c.Put(metadata.AppendToOutgoingContext(t.Context(), "token", r.Token), "z", "v")
	requireDenied(t, err)
}

func TestProbesNeedNoUser(t *testing.T) {
	_, addr := protected(t)
	for _, path := range []string{"/health", "/livez", "/readyz", "/readyz/linearizable_read", "/version", "/metrics"} {
		code, body, _ := do(t, "GET", "http://"+addr+path, "")
		require.Equal(t, http.StatusOK, code, "%s: %s", path, body)
	}
}

// certified serves a node over TLS, and returns connections of clients by the common names of their certificates.
func certified(t *testing.T, n *coterie.Node, opts ...etcdapi.Option) (client func(name string) *tls.Config, addr string) {
	a := newAuthority(t, "CA")
	f := newPEMFiles(t, a)
	f.clientCA(a)
	cfg, err := etcdapi.LoadTLS(f.TLS)
	require.NoError(t, err)
	addr = serve(t, n, append(opts, etcdapi.WithTLS(cfg), cheap)...)
	return func(name string) *tls.Config {
		return &tls.Config{RootCAs: a.pool(), Certificates: []tls.Certificate{a.issue(t, name)}}
	}, addr
}

func dialSecure(t testing.TB, addr string, cfg *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestCommonNamesAreUsers(t *testing.T) {
	n := open(t)
	protect(t, n)
	client, addr := certified(t, n)
	key := &pb.PutRequest{Key: []byte("a1")}
	alice := pb.NewKVClient(dialSecure(t, addr, client("alice")))
	_, err := alice.Put(t.Context(), key)
	require.NoError(t, err)
	_, err = alice.Put(t.Context(), &pb.PutRequest{Key: []byte("z")})
	requireDenied(t, err)
	stream, err := pb.NewWatchClient(dialSecure(t, addr, client("alice"))).Watch(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(watchRequest("z", "")))
	r, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, textWatchDenied, r.CancelReason)

	for _, name := range []string{"stranger", ""} {
		_, err = pb.NewKVClient(dialSecure(t, addr, client(name))).Put(t.Context(), key)
		require.Error(t, err, name)
	}
	// A token takes precedence, even an invalid one, and so does the header of a gateway that calls for others.
	root, err := pb.NewAuthClient(dialSecure(t, addr, client("alice"))).Authenticate(t.Context(), &pb.AuthenticateRequest{Name: "root", Password: "root's password"})
	require.NoError(t, err)
	_, err = alice.Put(metadata.AppendToOutgoingContext(t.Context(), "token", root.Token), &pb.PutRequest{Key: []byte("z")})
	require.NoError(t, err)
	_, err = alice.Put(metadata.AppendToOutgoingContext(t.Context(), "token", "x"), key)
	requireError(t, codes.Unauthenticated, "etcdserver: invalid auth token", err)
	_, err = alice.Put(metadata.AppendToOutgoingContext(t.Context(), "grpcgateway-accept", "*/*"), key)
	requireError(t, codes.InvalidArgument, "etcdserver: user name is empty", err)
}

// In CVE-2018-16886, the certificate of a client of the gateway named a user.
func TestCommonNamesDoNotCountOverHTTP(t *testing.T) {
	n := open(t)
	client, addr := certified(t, n)
	post := func(name string, headers ...string) (int, string) {
		t.Helper()
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: client(name)}}
		code, body, _ := doWith(t, c, "POST", "https://"+addr+"/v3/kv/range", `{"key":"YTE="}`, headers...)
		return code, body
	}
	code, _ := post("root")
	require.Equal(t, http.StatusOK, code, "permissions are not checked")
	protect(t, n)
	for _, headers := range [][]string{nil, {"Grpc-Metadata-Token", "x"}} {
		code, body := post("root", headers...)
		require.Equal(t, http.StatusBadRequest, code)
		require.Equal(t, "CommonName of client sending a request against gateway will be ignored and not used as expected\n", body)
	}
	code, body := post("")
	require.Equal(t, http.StatusBadRequest, code)
	require.Contains(t, body, "etcdserver: user name is empty")
}

func TestCommonNamesCountOnlyIfTheyShould(t *testing.T) {
	n := open(t)
	protect(t, n)
	client, addr := certified(t, n, etcdapi.WithCommonNames(false))
	_, err := pb.NewKVClient(dialSecure(t, addr, client("root"))).Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
	requireError(t, codes.InvalidArgument, "etcdserver: user name is empty", err)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: client("root")}}
	code, body, _ := doWith(t, c, "POST", "https://"+addr+"/v3/kv/range", `{"key":"YTE="}`)
	require.Equal(t, http.StatusBadRequest, code)
	require.Contains(t, body, "etcdserver: user name is empty")
}

// The headers of HTTP become metadata. Only a token among them names a user.
func TestHeadersDoNotNameUsers(t *testing.T) {
	_, addr := protected(t)
	token := tokenOf(t, addr, "alice")
	_, err := callJSON(t, http.DefaultClient, "http://"+addr, "KV/Range", &pb.RangeRequest{Key: []byte("a")}, "Grpc-Metadata-Token", token)
	require.NoError(t, err)
	for _, header := range []string{"User", "Token", "Grpc-Metadata-User", "Grpc-Metadata-Username", "X-Forwarded-User", "Grpc-Metadata-Grpcgateway-Token"} {
		for _, value := range []string{"root", "alice", token} {
			_, err := callJSON(t, http.DefaultClient, "http://"+addr, "KV/Range", &pb.RangeRequest{Key: []byte("a")}, header, value)
			requireError(t, codes.InvalidArgument, "etcdserver: user name is empty", err)
		}
	}
	// The first of several tokens counts.
	_, err = callJSON(t, http.DefaultClient, "http://"+addr, "KV/Range", &pb.RangeRequest{Key: []byte("a")}, "Authorization", "x", "Authorization", token)
	requireError(t, codes.Unauthenticated, "etcdserver: invalid auth token", err)
	socket := openSocket(t, addr, "/v3/watch", "Sec-WebSocket-Protocol", "Bearer, "+token)
	say(t, socket, `{"create_request":{"key":"eg=="}}`)
	require.Contains(t, hear(t, socket), strings.ReplaceAll(textWatchDenied, " ", ""))
	socket = openSocket(t, addr, "/v3/watch")
	say(t, socket, `{"create_request":{"key":"YQ=="}}`)
	require.Contains(t, hear(t, socket), "usernameisempty")
}
