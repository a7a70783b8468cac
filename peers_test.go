// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestReadyNamesEachNodeItTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := sites(3)
		n := all[0].open(t)
		err := notReady(t, n, 300*time.Millisecond)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, coterie.ErrNoLeader)
		require.EqualError(t, err, "context deadline exceeded (coterie: no leader; r1 r1:1, r2 r2:1: connection refused)")
		all[1].open(t)
		require.EqualError(t, notReady(t, n, 3*time.Second),
			"context deadline exceeded (coterie: no leader; r1 r1:1: knows no leader; r2 r2:1: connection refused)")
	})
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		c.Crash(1)
		c.Pause(2)
		c.Restart(0)
		err := notReady(t, c.Node(0), 5*time.Second)
		require.ErrorContains(t, err, "node2 node2:1: ")
		require.ErrorContains(t, err, "; node3 node3:1: no answer in time")
		c.Crash(2)
		i := c.Join(func(cfg *coterie.Config) { cfg.Join = []string{"node2:1", "node1:1"} })
		require.EqualError(t, notReady(t, c.Node(i), 5*time.Second),
			"context deadline exceeded (coterie: no leader; node1:1: knows no leader; node2:1: connection refused)")
		c.Restart(1)
		c.Restart(2)
	})
}

// A founder with one wrong entry in its Founders meets no other founder. The error names the entry.
func TestReadyNamesAWrongFounder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := sites(3)
		all[2].Founders = slices.Clone(all[2].Founders)
		all[2].Founders[1].Addr = "r1:9"
		var nodes []*coterie.Node
		for _, s := range all {
			nodes = append(nodes, s.open(t))
		}
		err := notReady(t, nodes[2], 10*time.Second)
		require.NotContains(t, err.Error(), "rpc:")
		require.LessOrEqual(t, strings.Count(err.Error(), "coterie: cluster or member mismatch: r1 is of another cluster: it was given other Config.Founders"), 1)
		require.ErrorIs(t, err, coterie.ErrClusterMismatch)
		require.ErrorContains(t, err, "r0 r0:1: coterie: cluster or member mismatch: Config.Founders differs: r1 is r1:9 here and r1:1 there; r1 r1:9: connection refused")
		err = notReady(t, nodes[0], 10*time.Second)
		require.ErrorIs(t, err, coterie.ErrClusterMismatch)
		require.ErrorContains(t, err, "r2 r2:1: coterie: cluster or member mismatch: Config.Founders differs: r1 is r1:1 here and r1:9 there")
		require.ErrorContains(t, err, "r1 r1:1: knows no leader")
	})
	synctest.Test(t, func(t *testing.T) {
		all := sites(2)
		all[1].Cluster = "other"
		n := all[0].open(t)
		all[1].open(t)
		require.ErrorContains(t, notReady(t, n, 10*time.Second), `the node is of cluster "other", this one of "coterie" (Config.Cluster)`)
	})
}

// A node that is added to Founders after the founding founds no cluster. The error says how to join.
func TestNewFounderIsAdvisedToJoin(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		i := c.Join(func(cfg *coterie.Config) {
			cfg.Join = nil
			cfg.Founders = []coterie.Founder{{Name: "node1", Addr: "node1:1"}, {Name: "node2", Addr: "node2:1"}, {Name: "node3", Addr: "node3:1"}, {Name: "node4", Addr: "node4:1"}}
		})
		err := notReady(t, c.Node(i), 10*time.Second)
		require.ErrorIs(t, err, coterie.ErrClusterMismatch)
		require.ErrorContains(t, err, `(coterie: no leader; node1 node1:1, node2 node2:1, node3 node3:1: coterie: cluster or member mismatch: `+
			`cluster "coterie" exists already, and Config.Founders is for founding one: a new node, with an empty directory, needs Config.Join; `+
			`Config.Founders differs from the founders: node4 node4:1 is here alone)`)
		c.Stop(i)
	})
}
