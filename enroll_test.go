// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A node that is not let in asks again and again, and says so once.
func TestARefusalIsLoggedOnce(t *testing.T) {
	var log messages
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Index(c.Follower())
		for range 2 {
			c.Wipe(i)
			c.Restart(i)
			require.ErrorIs(t, notReady(t, c.Node(i), 5*time.Minute), coterie.ErrDirMismatch)
		}
		require.Equal(t, 2, log.count(`msg="not let in"`))
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) {
		cfg.Logger = log.logger()
	}))
}

// A node that was founded alone, without a network, is given an address later, and a second member.
func TestANodeWithoutANetworkGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, disk := memnet.New(), vfs.NewMemory()
		open := func(disk *vfs.Memory, cfg coterie.Config) *coterie.Node {
			cfg.Dir = "d"
			n, err := coterie.Open(vfs.With(t.Context(), disk.Mount()), cfg)
			require.NoError(t, err)
			return n
		}
		first := open(disk, coterie.Config{Name: "a"})
		put(t, first, "k", "v")
		require.NoError(t, first.Close())

		for range 2 { // and it can be started again
			first = open(disk, coterie.Config{Name: "a", Addr: "a:1", Network: network.Host("a")})
			second := open(vfs.NewMemory(), coterie.Config{
				Name: "b", Addr: "b:1", Join: []string{"a:1"}, Network: network.Host("b"),
			})
			ready(t, second)
			awaitVote(t, first, "b")
			require.Equal(t, "v", get(t, second, "k").KVs[0].Value)
			require.Equal(t, "a:1", members(t, second)["a"].Addr)
			require.NoError(t, second.Leave(t.Context()))
			require.NoError(t, first.Close())
		}
	})
}
