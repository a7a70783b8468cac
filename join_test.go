// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A node that is not let in asks again and again, and logs that once.
func TestRejectionIsLoggedOnce(t *testing.T) {
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

// A node founds a cluster alone, without a network. Later it gets an address, and a second member.
func TestNodeWithoutANetworkGrows(t *testing.T) {
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

		for range 2 { // also after a restart
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

func TestJoiningNodeGetsAVote(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		i := c.Join(nil)
		n := c.Node(i)
		id := n.ID()
		require.Zero(t, n.Status().ClusterID)
		ready(t, n)
		require.Equal(t, id, n.ID())
		require.Equal(t, c.Leader().Status().ClusterID, n.Status().ClusterID)
		require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
		awaitVote(t, n, "node4")
		require.Equal(t, 4, n.Status().Voters)

		// Its vote counts: with two of four members down there is no majority, with one down there is.
		put(t, n, "k", "w")
		c.Restart(i)
		ready(t, c.Node(i))
		require.Equal(t, id, c.Node(i).ID())
		require.Equal(t, "w", get(t, c.Node(i), "k").KVs[0].Value)
		c.Crash(0)
		put(t, c.Leader(), "k", "x")
		c.Crash(1)
		require.ErrorIs(t, notReady(t, c.Node(2), 5*time.Second), coterie.ErrNoLeader)
		c.Restart(0)
		c.Restart(1)
		put(t, c.Leader(), "k", "y")
		sameState(t, c)
	})
}

// A snapshot also has the members.
func TestJoinFromASnapshot(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for i := range 30_000 {
			if i%100 == 0 {
				put(t, c.Node(0), fmt.Sprint("k", i), "v")
			}
		}
		c.Restart(0)
		for i := range 3 {
			ready(t, c.Node(c.Join(nil)))
			awaitVote(t, c.Leader(), fmt.Sprint("node", i+2))
		}
		sameState(t, c)
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 20 }))
}

func TestJoinOfAnotherClusterIsRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(c.Join(func(cfg *coterie.Config) { cfg.Cluster = "another" }))
		require.ErrorIs(t, notReady(t, n, 10*time.Second), coterie.ErrClusterMismatch)
		require.Len(t, members(t, c.Node(0)), 1)
	})
}

func TestJoinWaitsForALeader(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		c.Partition()
		time.Sleep(5 * time.Second)
		i := c.Join(nil)
		n := c.Node(i)
		require.ErrorIs(t, notReady(t, n, 10*time.Second), coterie.ErrNoLeader)
		c.Restart(i)
		time.Sleep(time.Minute)
		c.Heal()
		ready(t, c.Node(i))
		awaitVote(t, c.Node(i), "node4")
	})
}

func TestJoinConfiguration(t *testing.T) {
	for name, cfg := range map[string]coterie.Config{
		"with founders": {Addr: "a:1", Join: []string{"b:1"}, Founders: []coterie.Founder{{Name: "a", Addr: "a:1"}}},
		"no network":    {Join: []string{"b:1"}},
		"no port":       {Addr: "a:1", Join: []string{"b"}},
		"no host":       {Addr: "a:1", Join: []string{":1"}},
		"port 0":        {Addr: "a:1", Join: []string{"b:0"}},
		"no vote":       {Addr: "a:1", NonVoter: true},
	} {
		cfg.InMemory, cfg.Network = true, coterie.NewMemoryNetwork()
		_, err := coterie.Open(t.Context(), cfg)
		require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
	}
	require.False(t, errors.Is(coterie.ErrDirMismatch, coterie.ErrCorrupt))
}
