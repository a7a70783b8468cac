// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// The members that a node asks to let it in may be cut off from the leader, and keep the node waiting.
func TestJoinThroughAnyReachableMember(t *testing.T) {
	coterietest.Run(t, 7, func(t *testing.T, c *coterietest.Cluster) {
		var cut, up []string
		for i, n := range c.Nodes() {
			if n != c.Leader() && len(cut) < 3 {
				c.Pause(i)
				cut = append(cut, n.Status().Addr)
			} else {
				up = append(up, n.Status().Addr)
			}
		}
		ready(t, c.Node(c.Join(func(cfg *coterie.Config) { cfg.Join = append(cut, up[0]) })))
	})
}

// The node that transfers the leadership may hear of the new leader only when yet another one leads.
func TestTransferLeadershipThatIsOvertaken(t *testing.T) {
	coterietest.Run(t, 4, func(t *testing.T, c *coterietest.Cluster) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		from := c.Index(c.Leader())
		asks, heir, next := (from+1)%4, (from+2)%4, (from+3)%4
		c.Block(heir, asks)
		transferred := make(chan error)
		go func() { transferred <- c.Node(asks).TransferLeadership(ctx, c.Node(heir).ID()) }()
		for c.Node(heir).Status().Role != coterie.RoleLeader {
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, c.Node(next).TransferLeadership(ctx, c.Node(next).ID()))
		// Heal delivers the heartbeats of the heir, too. A node that knows only the old term would follow them,
		// and be right to: the transfer would be over before it is overtaken.
		for c.Node(asks).Status().Leader != c.Node(next).ID() {
			time.Sleep(time.Millisecond)
		}
		c.Heal()
		require.NoError(t, <-transferred)
		require.True(t, c.Leader() == c.Node(heir))
	})
}

// A transfer to a member that cannot take over is rejected, and writes do not wait for it.
func TestTransferLeadershipToAMemberThatIsDown(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, away := c.Leader(), c.Follower()
		c.Crash(c.Index(away))
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, c.Follower().TransferLeadership(ctx, away.ID()), coterie.ErrUnhealthy)
		require.True(t, c.Leader() == leader)
	})
}

// A node that has moved looks for a leader that puts its address on record. It must not stop because a node
// that it asks has lost its data.
func TestNodeIgnoresAnotherNodesDataLoss(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, wiped := c.Index(c.Leader()), c.Index(c.Follower())
		moves := 3 - leader - wiped
		c.Stop(moves)
		c.Reconfigure(moves, func(cfg *coterie.Config) { cfg.Addr, cfg.Advertise = cfg.Name+":9", cfg.Name+":9" })
		c.Wipe(wiped)
		c.Restart(wiped)
		c.Delay(moves, leader, 30*time.Millisecond)
		c.Delay(leader, moves, 30*time.Millisecond)
		c.Restart(moves)
		n := c.Node(moves)
		for n.Status().Leader == 0 {
			time.Sleep(time.Millisecond)
		}
		c.Pause(leader)
		time.Sleep(time.Minute)
		require.NoError(t, n.Err())
		require.ErrorIs(t, notReady(t, n, time.Second), coterie.ErrNoLeader)
		c.Heal()
		put(t, n, "k", "v")
		time.Sleep(10 * time.Second)
		require.Equal(t, n.Status().Addr, members(t, n)[n.Status().Name].Addr)
	})
}

// A node in memory replaces a node of its name that does not answer, but not a node that
// answers a new leader slowly.
func TestTwoNodesOfOneNameAndNewLeaders(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		inMemory := func(cfg *coterie.Config) { cfg.InMemory = true }
		i := c.Join(inMemory)
		first := c.Node(i)
		ready(t, first)
		awaitVote(t, first, "node4")
		c.Join(func(cfg *coterie.Config) {
			inMemory(cfg)
			cfg.Name, cfg.Addr, cfg.Advertise = "node4", "node4:9", "node4:9"
		})
		for j := range 3 {
			c.Delay(i, j, 200*time.Millisecond)
		}
		for round := range 20 {
			to := c.Node(round % 3).ID()
			require.NoError(t, c.Node(0).TransferLeadership(t.Context(), to))
			time.Sleep(3 * time.Second)
			require.NoError(t, first.Err())
		}
	})
}

// A leader that removes itself learns of the removal from its successor or from the log. Neither is an error
// of its call, and it does not join again as if it were new.
func TestLeaderThatRemovesItselfStaysOut(t *testing.T) {
	for range 60 {
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			time.Sleep(time.Second) // until every founder knows that it is on record
			leader := c.Leader()
			require.NoError(t, leader.RemoveMember(ctx, leader.ID()))
			select {
			case <-leader.Done():
			case <-ctx.Done():
			}
			require.ErrorIs(t, leader.Err(), coterie.ErrMemberNotFound)
			require.Len(t, members(t, c.Leader()), 2)
		})
	}
}
