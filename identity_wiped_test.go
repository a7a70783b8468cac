// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A founder that has lost its directory has forgotten its promises. It does not count, not even if its vote
// would make a majority.
func TestWipedFounderIsRejected(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		i := c.Index(c.Follower())
		c.Wipe(i)
		c.Restart(i)
		wiped := c.Node(i)
		require.ErrorIs(t, notReady(t, wiped, 10*time.Second), coterie.ErrDirMismatch)
		put(t, c.Leader(), "k", "w")

		// One of the others is down, so a majority would take the wiped one.
		away := c.Index(c.Leader())
		c.Crash(away)
		other := 3 - i - away
		require.ErrorIs(t, notReady(t, c.Node(other), time.Minute), coterie.ErrNoLeader)
		require.ErrorIs(t, notReady(t, wiped, time.Minute), coterie.ErrDirMismatch)
		c.Restart(away)

		// Once it is removed, it is let in again.
		require.NoError(t, c.Leader().RemoveMember(t.Context(), wiped.ID()))
		ready(t, wiped)
		awaitVote(t, wiped, wiped.Status().Name)
		put(t, wiped, "k", "x")
		sameState(t, c)
	})
}

// Two of three acknowledge a write, and the disk of one of them is lost. The third node, which never had the
// write, and the wiped one must not go on without it.
func TestWipedNodeElectsNoShorterLog(t *testing.T) {
	for _, forgetful := range []bool{false, true} {
		t.Run(fmt.Sprint("in memory ", forgetful), func(t *testing.T) {
			change := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.InMemory = forgetful })
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				put(t, c.Leader(), "k", "before")
				leader, n := c.Index(c.Leader()), c.Index(c.Follower())
				behind := 3 - leader - n
				c.Pause(behind)
				put(t, c.Node(leader), "k", "acknowledged")
				c.Pause(leader)
				if forgetful {
					c.Stop(n)
				} else {
					c.Wipe(n)
				}
				c.Restart(n)
				c.Resume(behind)
				for range 20 {
					time.Sleep(3 * time.Second)
					require.NotEqual(t, coterie.RoleLeader, c.Node(n).Status().Role)
					require.NotEqual(t, coterie.RoleLeader, c.Node(behind).Status().Role)
				}
				c.Resume(leader)
				require.Equal(t, "acknowledged", get(t, c.Node(behind), "k").KVs[0].Value)
				if !forgetful {
					require.NoError(t, c.Leader().RemoveMember(t.Context(), c.Node(n).ID()))
				}
				ready(t, c.Node(n))
				require.Equal(t, "acknowledged", get(t, c.Node(n), "k").KVs[0].Value)
				sameState(t, c)
			}, change)
		})
	}
}

func TestNodeInMemoryIsLetInAgain(t *testing.T) {
	inMemory := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.InMemory = true })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		for i := range 30 {
			c.Restart(i % 3)
			ready(t, c.Node(i%3))
			put(t, c.Node(i%3), "k", fmt.Sprint(i))
			require.Len(t, members(t, c.Node(i%3)), 3)
		}
		require.Equal(t, 3, c.Leader().Status().Voters)
		sameState(t, c)
	}, inMemory)
}

// Two nodes with one name do not take turns.
func TestTwoNodesOfOneName(t *testing.T) {
	for _, forgetful := range []bool{false, true} {
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			first := c.Node(c.Join(nil))
			ready(t, first)
			second := c.Node(c.Join(func(cfg *coterie.Config) {
				cfg.Name, cfg.Addr, cfg.Advertise, cfg.InMemory = "node4", "node4:9", "node4:9", forgetful
			}))
			require.Equal(t, first.ID(), second.ID())
			require.ErrorIs(t, notReady(t, second, time.Minute), coterie.ErrDirMismatch)
			require.NoError(t, first.Err())
			put(t, first, "k", "v")
		})
	}
}
