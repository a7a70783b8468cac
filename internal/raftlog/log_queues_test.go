// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Large entries, and a snapshot of the node's own state, are synced through queues of the kernel. A process may have a
// limited number of them, and only io_destroy removes one.
func TestClosedLogKeepsNoQueues(t *testing.T) {
	queues := func() int {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Skip("queues are listed by /proc on Linux")
		}
		return bytes.Count(maps, []byte("[aio]"))
	}
	before := queues()
	l, err := openWith(vfs.OS{}, t.TempDir(), false, 0)
	require.NoError(t, err)
	require.NoError(t, l.Stable().SetUint64(keyTerm, 1))
	keep(t, l, sized(1, 100<<10))
	opened := queues() - before
	if opened == 0 {
		t.Skip("the system offers no asynchronous syncs")
	}
	sink := create(t, l, 1, 1, nil)
	sink.(interface{ Own(breakable.Broken) }).Own(func() error { return nil })
	_, err = sink.Write(body(t, string(make([]byte, 2*syncBytes))))
	require.NoError(t, err)
	require.NoError(t, sink.Close())
	require.Equal(t, 2*opened, queues()-before)
	finish(t, l)
	require.Equal(t, before, queues())
}
