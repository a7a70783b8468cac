// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func TestUsersAndRoles(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		if _, err := p.stores[1].client.RoleAdd(t.Context(), "probe"); errors.Is(err, rpctypes.ErrNotCapable) {
			t.Skip("package etcdapi has no service Auth yet")
		}
		_, err := p.stores[0].client.RoleAdd(t.Context(), "probe")
		require.NoError(t, err)

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
		p.formatted("user", "get", "zhangsan")
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

		p.same("role", "revoke-permission", "redis", "/own", root)
		p.fails("role", "revoke-permission", "redis", "/own", root)
		p.fails("put", "/own", "v", user)
		p.same("role", "revoke-permission", "redis", "/redis/", "--prefix=true", root)
		p.fails("get", "/redis/1", user)
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
