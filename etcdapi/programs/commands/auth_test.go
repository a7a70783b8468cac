// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func TestUsersAndRoles(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.same("role", "add", "probe")
		p.formatted("auth", "status")
		p.formatted("user", "list")
		p.formatted("role", "list")
		p.fails("auth", "enable")
		p.fails("user", "get", "root")
		p.fails("user", "add")
		p.same("user", "add", "root:123456")
		p.fails("user", "add", "root:123456")
		p.typing("secret\n").same("user", "add", "zhangsan", "--interactive=false")
		p.same("user", "add", "lisi", "--new-user-password=secret")
		p.same("user", "add", "bare", "--no-password")
		p.formatted("user", "list")
		p.typing("asked for\nasked for\n").same("user", "add", "asked")
		p.typing("asked for\nanother\n").fails("user", "add", "other")
		p.typing("changed\nchanged\n").same("user", "passwd", "asked")
		p.typing("changed\nanother\n").fails("user", "passwd", "asked")
		p.typing("changed\n").same("user", "passwd", "zhangsan", "--interactive=false")
		p.typing("changed\n").fails("user", "passwd", "nobody", "--interactive=false")

		p.same("role", "add", "redis")
		p.fails("role", "add", "redis")
		p.fails("role", "get", "none")
		p.same("role", "grant-permission", "redis", "read", "/redis/", "--prefix=true")
		p.same("role", "grant-permission", "redis", "readwrite", "/own")
		p.same("role", "grant-permission", "redis", "write", "/a", "/c")
		p.same("role", "grant-permission", "redis", "read", "/z", "--from-key")
		p.fails("role", "grant-permission", "redis", "all", "/z")
		p.fails("role", "grant-permission", "none", "read", "/z")
		p.fails("role", "grant-permission", "redis", "read", "/c", "/a")
		p.formatted("role", "get", "redis")
		p.formatted("role", "list")
		p.same("user", "grant-role", "zhangsan", "redis")
		p.fails("user", "grant-role", "zhangsan", "none")
		p.fails("user", "grant-role", "nobody", "redis")
		p.same("user", "grant-role", "asked", "redis")
		p.same("user", "grant-role", "asked", "probe")
		p.formatted("user", "get", "zhangsan")
		p.formatted("user", "get", "asked")
		p.same("user", "get", "asked", "--detail")
		p.same("user", "get", "zhangsan", "--detail")

		p.same("auth", "enable")
		root, user, other := "--user=root:123456", "--user=zhangsan:changed", "--user=lisi:secret"
		p.fails("get", "k")
		p.same("auth", "status")
		p.fails("put", "k", "v", "--user=root:wrong")
		p.fails("put", "k", "v", "--user=nobody:123456")
		p.fails("put", "k", "v", "--user=bare:123456")
		p.formatted("auth", "status", root)
		p.prints("OK\n", "put", "/redis/1", "v", root)
		p.prints("/redis/1\nv\n", "get", "/redis/", "--prefix", user)
		p.same("get", "/redis/1", "--user=zhangsan", "--password=changed")
		p.fails("get", "/redis/1", "--user=zhangsan", "--password=secret")
		p.fails("get", "/redis/1", "--user=zhangsan:changed", "--password=changed")
		p.typing("changed\n").same("get", "/redis/1", "--user=asked")
		p.typing("asked for\n").fails("get", "/redis/1", "--user=asked")
		p.fails("get", "/redis/1", "--auth-jwt-token=nonsense")
		p.fails("put", "/redis/1", "v", user)
		p.prints("OK\n", "put", "/own", "v", user)
		p.prints("OK\n", "put", "/b", "v", user)
		p.fails("get", "/b", user)
		p.fails("get", "/own", other)
		p.fails("get", "", "--prefix", user)
		p.fails("user", "list", user)
		p.fails("role", "list", user)
		p.same("user", "get", "zhangsan", user)
		p.same("role", "get", "redis", user)
		p.fails("role", "get", "probe", user)
		p.fails("member", "add", "m", "--peer-urls=http://127.0.0.1:1", user)
		p.fails("snapshot", "save", "backup.db", user)
		p.fails("compaction", "1", user)
		p.fails("auth", "disable", user)
		p.fails("watch", "/b", user)
		p.masking(`took [^ ]+ms`, "took TIME").fails("defrag", user)
		p.typing("\nput /own 1\nget /b\n\n\n").fails("txn", user)
		figures(p).same("endpoint", "health", user)
		figures(p).same("endpoint", "health", root)
		p.fails("lock", "/own", user, "--", "true")

		logins := p.logins("zhangsan", "changed")
		for _, c := range logins {
			_, err := c.Put(t.Context(), "/own", "v")
			require.NoError(t, err)
		}
		p.same("role", "revoke-permission", "redis", "/own", root)
		for _, c := range logins { // their tokens are older than the change
			_, err := c.Put(t.Context(), "/own", "v")
			require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
		}
		p.fails("role", "revoke-permission", "redis", "/own", root)
		p.fails("put", "/own", "v", user)
		p.same("role", "revoke-permission", "redis", "/redis/", "--prefix=true", root)
		p.fails("get", "/redis/1", user)
		p.fails("role", "revoke-permission", "redis", "/a", root)
		p.fails("role", "revoke-permission", "redis", "/a", "/b", root)
		p.same("role", "revoke-permission", "redis", "/z", "--from-key", root)
		p.formatted("role", "get", "redis", root)
		p.same("user", "revoke-role", "zhangsan", "redis", root)
		p.fails("user", "revoke-role", "zhangsan", "redis", root)
		p.fails("put", "/b", "v", user)
		p.fails("user", "delete", "root", root)
		p.fails("role", "delete", "root", root)
		p.fails("user", "revoke-role", "root", "root", root)
		p.same("user", "delete", "lisi", root)
		p.fails("user", "delete", "lisi", root)
		p.same("role", "delete", "redis", root)
		p.fails("role", "delete", "redis", root)
		p.same("auth", "disable", root)
		p.formatted("auth", "status")
		p.same("get", "/own")
	})
}

// logins returns a client of each store that has authenticated as a user.
func (p *pair) logins(name, password string) (clients [2]*clientv3.Client) {
	p.Helper()
	for i, s := range p.stores {
		cfg := clientv3.Config{Endpoints: s.endpoints, Username: name, Password: password, TLS: s.tls, Logger: zap.NewNop()}
		c, err := clientv3.New(cfg)
		require.NoError(p, err)
		p.Cleanup(func() { c.Close() })
		clients[i] = c
	}
	return clients
}

// Commands about users and roles print in every format that they have.
func TestFormatsOfUsersAndRoles(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		for _, format := range append(slices.Clone(formats), "protobuf") {
			run := func(args ...string) { p.alike(append([]string{"--write-out=" + format}, args...)...) }
			if format == "protobuf" {
				run = p.encoded
			}
			run("user", "add", "u", "--new-user-password=secret")
			run("role", "add", "r")
			run("user", "grant-role", "u", "r")
			run("role", "grant-permission", "r", "readwrite", "k", "l")
			run("role", "get", "r")
			run("user", "get", "u")
			run("role", "revoke-permission", "r", "k", "l")
			run("user", "revoke-role", "u", "r")
			run("role", "delete", "r")
			run("user", "delete", "u")
			p.prints("", "user", "list")
			p.prints("", "role", "list")
		}
	})
}

// Every command fails with the same text for a program without credentials, and for a user without permissions.
func TestEveryCommandIsChecked(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p = figures(p).masking(`MEMBER\d`, "MEMBER", `lease [0-9a-f]{16}`, "lease LEASE", `REVISION \d+|revision \d+`, "REVISION",
			`saved at \S+`, "saved at FILE", `took [^ ]+m?s\b`, "took TIME")
		p.same("put", "k", "v")
		p.learn("lease", `^lease (\S+) granted`, "lease", "grant", "600")
		p.same("put", "leased", "v", "--lease={lease}")
		p.same("user", "add", "root:secret")
		p.same("user", "add", "user:secret")
		p.same("user", "add", "server", "--no-password") // the common name of the certificate, with TLS
		p.same("role", "add", "r")
		p.same("user", "grant-role", "user", "r")
		p.same("role", "grant-permission", "r", "readwrite", "mine/", "--prefix")
		p.same("auth", "enable")
		for _, credentials := range [][]string{nil, {"--user=user:secret"}} {
			for _, args := range [][]string{
				{"get", "k"}, {"get", "k", "--consistency=s"}, {"get", "", "--prefix"}, {"get", "k", "--stream"}, {"put", "k", "v"},
				{"put", "mine/k", "v", "--lease={lease}"}, {"put", "mine/k", "v", "--prev-kv"}, {"del", "k"}, {"del", "", "--from-key"},
				{"compaction", "1"}, {"watch", "k"}, {"lock", "k", "--", "true"}, {"elect", "k", "v"}, {"elect", "-l", "k"},
				{"lease", "revoke", "{lease}"}, {"lease", "timetolive", "{lease}"}, {"lease", "timetolive", "{lease}", "--keys"},
				{"lease", "keep-alive", "--once", "{lease}"}, {"lease", "list"}, {"lease", "revoke", "7"},
				{"user", "list"}, {"user", "get", "root"}, {"user", "get", "none"}, {"user", "add", "other:secret"}, {"user", "delete", "root"},
				{"user", "grant-role", "user", "root"}, {"user", "revoke-role", "root", "root"},
				{"role", "list"}, {"role", "get", "root"}, {"role", "get", "none"}, {"role", "add", "other"}, {"role", "delete", "r"},
				{"role", "grant-permission", "r", "read", "", "--prefix"}, {"role", "revoke-permission", "r", "mine/", "--prefix"},
				{"auth", "enable"}, {"auth", "disable"}, {"auth", "status"},
				{"member", "list"}, {"member", "add", "m", "--peer-urls=http://127.0.0.1:1"}, {"member", "remove", "{member0}"}, {"member", "remove", "7"},
				{"member", "update", "{member0}", "--peer-urls=http://127.0.0.1:1"}, {"member", "promote", "{member0}"}, {"member", "promote", "7"},
				{"move-leader", "{member0}"}, {"alarm", "list"}, {"alarm", "disarm"}, {"defrag"}, {"snapshot", "save", "backup.db"},
				{"downgrade", "validate", "3.6.0"}, {"downgrade", "enable", "3.6.0"}, {"downgrade", "cancel"},
				{"endpoint", "status"}, {"endpoint", "health"}, {"endpoint", "hashkv"}, {"check", "perf"}, {"check", "datascale"},
			} {
				p.alike(append(slices.Clone(credentials), args...)...)
			}
			p.typing("value(\"k\") = \"v\"\n\nget mine/k\n\n\n").alike(append([]string{"txn"}, credentials...)...)
			p.typing("value(\"mine/k\") = \"v\"\n\nget mine/k\n\nput mine/k 1\n\n").alike(append([]string{"txn"}, credentials...)...)
			p.typing("\n\nput k 1\n\n").alike(append([]string{"txn"}, credentials...)...)
		}
		p.same("get", "", "--prefix", "--user=root:secret")
		p.formatted("user", "list", "--user=root:secret")
		p.formatted("role", "list", "--user=root:secret")
	})
}

// The common name of a certificate is a user.
func TestUserOfCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	members := 1
	if *long {
		members = 3
	}
	p := setup{members: members, security: ca.issue(t, "server", "127.0.0.1")}.start(t)
	as := func(name string) *pair { return p.with(flagsOf(ca.issue(t, name, "127.0.0.1"))...) }
	root, user, stranger := as("root"), as("user"), as("stranger")
	stranger.prints("OK\n", "put", "k", "v")
	p.same("user", "add", "root:secret")
	p.same("user", "add", "user", "--no-password")
	p.same("role", "add", "r")
	p.same("role", "grant-permission", "r", "readwrite", "mine/", "--prefix")
	p.same("user", "grant-role", "user", "r")
	p.same("auth", "enable")
	user.prints("OK\n", "put", "mine/k", "v")
	user.prints("mine/k\nv\n", "get", "mine/", "--prefix")
	user.fails("get", "k")
	user.fails("put", "k", "v")
	user.same("user", "get", "user")
	user.same("role", "get", "r")
	user.fails("user", "list")
	user.fails("auth", "disable")
	user.fails("get", "k", "--user=user:secret")
	user.prints("k\nv\n", "get", "k", "--user=root:secret") // the password counts
	stranger.fails("get", "mine/k")
	stranger.fails("user", "get", "stranger")
	stranger.fails("user", "list")
	stranger.same("auth", "status")
	p.fails("get", "mine/k")
	root.same("user", "list")
	root.same("role", "revoke-permission", "r", "mine/", "--prefix")
	user.fails("get", "mine/k")
	root.same("user", "delete", "user")
	user.fails("get", "mine/k")
	root.same("auth", "disable")
	stranger.same("get", "k")
}

// JSON web tokens of both stores are flags of etcdctl.
func TestJWT(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.issue(t, "jwt", "127.0.0.1")
	members := 1
	if *long {
		members = 3
	}
	p := setup{members: members, jwt: "jwt,sign-method=ES256,pub-key=" + ca.publicKey(t) + ",priv-key=" + ca.file("jwt-key.pem") + ",ttl=10m"}.start(t)
	p.same("user", "add", "root:secret")
	p.same("user", "add", "user:secret")
	p.same("role", "add", "r")
	p.same("role", "grant-permission", "r", "readwrite", "mine/", "--prefix")
	p.same("user", "grant-role", "user", "r")
	p.same("auth", "enable")
	for _, name := range []string{"root", "user"} {
		p.token(name)
	}
	p.prints("OK\n", "put", "mine/k", "v", "--auth-jwt-token={user}")
	p.prints("mine/k\nv\n", "get", "mine/k", "--auth-jwt-token={user}")
	p.fails("get", "k", "--auth-jwt-token={user}")
	p.fails("user", "list", "--auth-jwt-token={user}")
	p.same("user", "list", "--auth-jwt-token={root}")
	p.same("get", "mine/k", "--user=user:secret")
	p.fails("get", "mine/k", "--auth-jwt-token=nonsense")
	p.fails("get", "mine/k")
	p.same("user", "revoke-role", "user", "r", "--auth-jwt-token={root}")
	p.fails("get", "mine/k", "--auth-jwt-token={user}") // every change ends all earlier tokens
	p.fails("get", "mine/k", "--user=user:secret")
	p.token("root")
	p.same("auth", "disable", "--auth-jwt-token={root}")
	p.same("get", "mine/k", "--auth-jwt-token=nonsense")
}

// Each member of a cluster has the users, and checks permissions at once.
func TestUsersOfEachMember(t *testing.T) {
	t.Parallel()
	p := start(t, 3, false)
	first, second, third := "--endpoints={endpoint0}", "--endpoints={endpoint1}", "--endpoints={endpoint2}"
	p.same("user", "add", "root:secret", second)
	p.same("user", "add", "user:secret", third)
	p.same("role", "add", "r", second)
	p.same("role", "grant-permission", "r", "readwrite", "mine/", "--prefix", third)
	p.same("user", "grant-role", "user", "r", second)
	p.same("auth", "enable", third)
	root, user := "--user=root:secret", "--user=user:secret"
	for _, endpoint := range []string{first, second, third} {
		p.fails("get", "mine/k", endpoint)
		p.fails("get", "k", user, endpoint)
		p.prints("OK\n", "put", "mine/k", "v", user, endpoint)
		p.prints("mine/k\nv\n", "get", "mine/k", user, endpoint)
	}
	p.same("role", "revoke-permission", "r", "mine/", "--prefix", root, third)
	for _, endpoint := range []string{second, first, third} {
		p.fails("get", "mine/k", user, endpoint)
		p.fails("put", "mine/k", "v", user, endpoint)
	}
	p.typing("changed\n").same("user", "passwd", "user", "--interactive=false", root, second)
	for _, endpoint := range []string{third, first} {
		p.fails("user", "get", "user", user, endpoint)
		p.same("user", "get", "user", "--user=user:changed", endpoint)
	}
	p.same("user", "delete", "user", root, first)
	p.fails("user", "get", "user", "--user=user:changed", second)
	p.same("auth", "disable", root, second)
	p.same("get", "mine/k", third)
}

// token names the token of a user like the user, for use in arguments.
func (p *pair) token(name string) {
	p.Helper()
	for _, s := range p.stores {
		r, err := s.client.Authenticate(p.Context(), name, "secret")
		require.NoError(p, err)
		s.values[name] = r.Token
	}
}

// publicKey returns the file with the public key of the certificate with the name jwt.
func (a *authority) publicKey(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(a.file("jwt.pem"))
	require.NoError(t, err)
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(cert.PublicKey)
	require.NoError(t, err)
	name := a.file("jwt-public.pem")
	require.NoError(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	return name
}
