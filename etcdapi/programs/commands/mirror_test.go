// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// read returns the value of a key, or "" without the key.
func (s *store) read(t testing.TB, key string) string {
	r, err := s.client.Get(t.Context(), key)
	require.NoError(t, err)
	if len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

func (s *store) awaitValue(t testing.TB, key, value string) {
	t.Helper()
	require.Eventually(t, func() bool { return s.read(t, key) == value }, 20*time.Second, 10*time.Millisecond, "%s: %s", s.name, key)
}

// A node is mirrored to an etcd, and an etcd to a node.
func TestMakeMirror(t *testing.T) {
	t.Parallel()
	p := start(t, 1, false)
	for i, from := range p.stores {
		to := p.stores[1-i]
		from.put(t, "app/old", "1")
		c := from.start(t, "", "make-mirror", "--prefix=app/", "--dest-prefix="+from.name+"/", to.endpoints[0])
		to.awaitValue(t, from.name+"/old", "1")
		from.put(t, "app/new", "2")
		to.awaitValue(t, from.name+"/new", "2")
		from.del(t, "app/old")
		to.awaitValue(t, from.name+"/old", "")
		c.interrupt(t)
		require.Equal(t, -1, c.wait(t).code)

		from.put(t, "app/"+from.name, "3")
		c = from.start(t, "", "make-mirror", "--prefix=app/", "--no-dest-prefix", "--max-txn-ops=1", to.endpoints[0])
		to.awaitValue(t, from.name, "3")
		c.interrupt(t)
		c.wait(t)

		// From a revision: only changes.
		from.put(t, "rev/a", "4")
		c = from.start(t, "", "make-mirror", fmt.Sprint("--rev=", from.revision(t)+1), "--prefix=rev/", "--dest-prefix="+from.name+"-rev/", to.endpoints[0])
		from.put(t, "rev/b", "5")
		to.awaitValue(t, from.name+"-rev/b", "5")
		require.Empty(t, to.read(t, from.name+"-rev/a"))
		c.interrupt(t)
		c.wait(t)
	}
	p.fails("make-mirror")
	p.fails("make-mirror", "--no-dest-prefix", "--dest-prefix=a", "{endpoint0}")
}

// The destination of a mirror needs certificates.
func TestMakeMirrorWithTLS(t *testing.T) {
	t.Parallel()
	plain, secure := start(t, 1, false), start(t, 1, true)
	for i, from := range plain.stores {
		to := secure.stores[1-i]
		from.put(t, "k", "v")
		args := []string{"make-mirror", "--dest-insecure-transport=false"}
		for _, f := range to.flags {
			args = append(args, strings.Replace(f, "--", "--dest-", 1))
		}
		c := from.start(t, "", append(args, to.endpoints[0])...)
		to.awaitValue(t, "k", "v")
		c.interrupt(t)
		c.wait(t)
	}
}

// Both ends of a mirror need a user.
func TestMakeMirrorAsUser(t *testing.T) {
	t.Parallel()
	p := start(t, 1, false)
	p.same("user", "add", "root:secret")
	p.same("auth", "enable")
	p.prints("OK\n", "put", "k", "v", "--user=root:secret")
	clients := p.logins("root", "secret")
	for i, from := range p.stores {
		to := p.stores[1-i]
		destination := "--dest-prefix=" + from.name + "/"
		c := from.start(t, "", "make-mirror", "--user=root:secret", "--prefix=k", destination, "--dest-user=root", "--dest-password=secret", to.endpoints[0])
		require.Eventually(t, func() bool {
			r, err := clients[1-i].Get(t.Context(), from.name+"/", clientv3.WithPrefix())
			return err == nil && r.Count == 1
		}, 20*time.Second, 10*time.Millisecond)
		c.interrupt(t)
		c.wait(t)
	}
	p.fails("make-mirror", "--user=root:secret", "--dest-user=root:wrong", "{endpoint0}")
	p.fails("make-mirror", "--dest-user=root:secret", "{endpoint0}")
}
