// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// If an old entry has changed on the leader's disk, the leader does not send it. It stops and reports the reason.
func TestCorruptEntryStopsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, disks, network := onDisks(t)
		leader := leading(nodes)
		behind := (leader + 1) % 3
		isolate(network, behind, true)
		for range 100 {
			_, err := nodes[leader].Put(t.Context(), "k", "v")
			require.NoError(t, err)
		}
		big := string(make([]byte, 1<<20))
		for range 20 { // more entries than memory keeps
			_, err := nodes[leader].Put(t.Context(), "k", big)
			require.NoError(t, err)
		}
		const segment = "/log/0000000000000001.log"
		for at := int64(2000); at < 3000; at += 50 {
			require.True(t, disks[leader].Damage("/"+nodes[leader].cfg.Name+segment, at))
		}
		isolate(network, behind, false)
		<-nodes[leader].Done()
		require.ErrorIs(t, nodes[leader].Err(), ErrCorrupt)
		r, err := nodes[behind].Get(t.Context(), "k")
		require.NoError(t, err)
		require.EqualValues(t, 121, r.Revision)
		require.Equal(t, nodes[behind].views.Load().Hash, nodes[(leader+2)%3].views.Load().Hash)
		require.NoError(t, nodes[leader].Close())
		closeAll(t, nodes)
	})
}
