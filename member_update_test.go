// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// move restarts a node at another address. Its Config.Founders has the old addresses of the founders.
func move(c *coterietest.Cluster, i int, addr string) {
	c.Reconfigure(i, func(cfg *coterie.Config) { cfg.Addr, cfg.Advertise = addr, addr })
	c.Restart(i)
}

// All nodes have moved, and the last one knows only the old addresses of the others.
func TestUpdateMemberFindsALostNode(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		lost := c.Node(2).ID()
		c.Stop(2)
		for i, addr := range []string{"node1:9", "node2:9"} {
			c.Stop(i)
			move(c, i, addr)
			ready(t, c.Node(i))
			time.Sleep(10 * time.Second) // until its address is on record
		}
		move(c, 2, "node3:9")
		require.ErrorIs(t, notReady(t, c.Node(2), time.Minute), coterie.ErrNoLeader)
		require.Equal(t, "node3:1", members(t, c.Leader())["node3"].Addr)

		leader := c.Index(c.Leader())
		follower := c.Node(1 - leader)
		require.NoError(t, follower.UpdateMember(t.Context(), lost, "node3:9"))
		require.Equal(t, "node3:9", members(t, follower)["node3"].Addr)
		ready(t, c.Node(2))
		put(t, c.Node(2), "k", "from the lost node")
		c.Crash(leader) // the other two are a majority
		put(t, c.Leader(), "k", "without the third")
		c.Restart(leader)
		sameState(t, c)
	})
}

// A running node puts its own address on record again.
func TestUpdateMemberOfANodeThatRuns(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for i, n := range c.Nodes() {
			require.NoError(t, c.Leader().UpdateMember(t.Context(), n.ID(), "elsewhere:1"))
			time.Sleep(10 * time.Second)
			require.Equal(t, n.Status().Addr, members(t, n)[n.Status().Name].Addr, "node %d", i)
			put(t, n, "k", "v")
		}
		sameState(t, c)
	})
}

func TestUpdateMemberBeforeItsNodeStarts(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		m, err := c.Leader().AddMember(t.Context(), "node4", "mistyped:1", coterie.WithNonVoter())
		require.NoError(t, err)
		require.NoError(t, c.Follower().UpdateMember(t.Context(), m.ID, "node4:1"))
		m.Addr = "node4:1"
		require.Equal(t, m, members(t, c.Leader())["node4"])
		i := c.Join(nil)
		ready(t, c.Node(i))
		require.Equal(t, m, members(t, c.Node(i))["node4"], "it still has no vote")
	})
}

func TestUpdateMemberErrors(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		id := c.Node(0).ID()
		for _, n := range c.Nodes() {
			require.ErrorIs(t, n.UpdateMember(t.Context(), 42, "x:1"), coterie.ErrMemberNotFound)
			for _, addr := range []string{"", "x", ":1", "x:0", "0.0.0.0:1", "x:y"} {
				require.ErrorIs(t, n.UpdateMember(t.Context(), id, addr), coterie.ErrInvalidOption, addr)
			}
		}
		require.Equal(t, "node1:1", members(t, c.Leader())["node1"].Addr)
		require.NoError(t, c.Leader().RemoveMember(t.Context(), c.Follower().ID()))
	})
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) { // without a majority
		gone := c.Node(2).ID()
		n := c.Node(0)
		c.Crash(1)
		c.Crash(2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := n.UpdateMember(ctx, gone, "node3:9")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, coterie.ErrNoLeader)
		c.Restart(1)
		require.NoError(t, n.UpdateMember(t.Context(), gone, "node3:9"))
		c.Restart(2) // where it was
		ready(t, c.Node(2))
		time.Sleep(10 * time.Second)
		require.Equal(t, "node3:1", members(t, n)["node3"].Addr)
	})
}

// Nodes move one by one. The others get no new configuration.
func TestNodesMoveOneByOne(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for round := range 6 {
			i := round % 3
			c.Stop(i)
			addr := fmt.Sprintf("node%d:%d", i+1, 10+round)
			c.Reconfigure(i, func(cfg *coterie.Config) { cfg.Addr, cfg.Advertise, cfg.Founders[i].Addr = addr, addr, addr })
			c.Restart(i)
			ready(t, c.Node(i))
			put(t, c.Node(i), "k", "v")
			time.Sleep(10 * time.Second)
			for _, n := range c.Nodes() {
				require.Equal(t, addr, members(t, n)[fmt.Sprint("node", i+1)].Addr)
			}
		}
		sameState(t, c)
	})
}

func TestAllNodesMoveAtOnce(t *testing.T) {
	for name, again := range map[string]func(founders []coterie.Founder, cfg *coterie.Config){
		"founders": func(founders []coterie.Founder, cfg *coterie.Config) { cfg.Founders = founders },
		"join": func(founders []coterie.Founder, cfg *coterie.Config) {
			cfg.Founders, cfg.Join = nil, []string{founders[0].Addr}
		},
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				put(t, c.Leader(), "k", "v")
				for round := range 3 {
					var founders []coterie.Founder
					for i := range 3 {
						founders = append(founders, coterie.Founder{Name: fmt.Sprint("node", i+1), Addr: fmt.Sprintf("node%d:%d", i+1, 10+round)})
						c.Stop(i)
					}
					for i := range 3 {
						c.Reconfigure(i, func(cfg *coterie.Config) {
							cfg.Addr, cfg.Advertise = founders[i].Addr, founders[i].Addr
							again(founders, cfg)
						})
						c.Restart(i)
					}
					begin := time.Now()
					put(t, c.Leader(), "k", "v")
					require.Less(t, time.Since(begin), 10*time.Second)
					time.Sleep(time.Minute)
					for _, p := range founders {
						require.Equal(t, p.Addr, members(t, c.Leader())[p.Name].Addr)
					}
				}
				sameState(t, c)
			})
		})
	}
}
