// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A node is mirrored to an etcd, and an etcd to a node.
func TestMakeMirror(t *testing.T) {
	t.Parallel()
	p := start(t, 1, false)
	for i, from := range p.stores {
		to := p.stores[1-i]
		from.put(t, "app/old", "1")
		c := from.start(t, "", "make-mirror", "--prefix=app/", "--dest-prefix="+from.name+"/", to.endpoints[0])
		read := func(key string) string {
			r, err := to.client.Get(t.Context(), key)
			require.NoError(t, err)
			if len(r.Kvs) == 0 {
				return ""
			}
			return string(r.Kvs[0].Value)
		}
		require.Eventually(t, func() bool { return read(from.name+"/old") == "1" }, 20*time.Second, 10*time.Millisecond)
		from.put(t, "app/new", "2")
		require.Eventually(t, func() bool { return read(from.name+"/new") == "2" }, 20*time.Second, 10*time.Millisecond)
		from.del(t, "app/old")
		require.Eventually(t, func() bool { return read(from.name+"/old") == "" }, 20*time.Second, 10*time.Millisecond)
		c.interrupt(t)
		require.Equal(t, -1, c.wait(t).code)
	}
}
