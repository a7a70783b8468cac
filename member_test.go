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

// ready waits until a node can serve.
func ready(t *testing.T, n *coterie.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, n.Ready(ctx))
}

// notReady returns why a node does not get ready within a time.
func notReady(t *testing.T, n *coterie.Node, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	err := n.Ready(ctx)
	require.Error(t, err)
	return err
}

// members returns the members as a node has them, by name.
func members(t *testing.T, n *coterie.Node) map[string]coterie.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all, err := n.Members(ctx)
	require.NoError(t, err)
	byName := map[string]coterie.Member{}
	for _, m := range all {
		byName[m.Name] = m
	}
	require.Len(t, byName, len(all))
	return byName
}

// awaitVote waits until a member has a vote.
func awaitVote(t *testing.T, n *coterie.Node, name string) {
	t.Helper()
	for range 600 {
		if members(t, n)[name].Voter {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s has no vote after a minute", name)
}

func TestFoundersAreMembersFromTheStart(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for _, n := range c.Nodes() {
			all := members(t, n)
			require.Len(t, all, 3)
			for i := range 3 {
				other := c.Node(i)
				want := coterie.Member{
					ID: other.ID(), Name: fmt.Sprint("node", i+1), Addr: other.Status().Addr, Voter: true, Leader: other == c.Leader(),
				}
				require.Equal(t, want, all[want.Name])
			}
		}
	})
}

func TestNonVoterServesAllCalls(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(c.Join(func(cfg *coterie.Config) { cfg.NonVoter = true }))
		ready(t, n)
		put(t, n, "k", "v")
		require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
		time.Sleep(time.Minute)
		require.False(t, members(t, n)["node4"].Voter)
		require.True(t, n.NonVoter())
		require.False(t, c.Follower().NonVoter())
		require.Equal(t, 3, n.Status().Voters)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, n.TransferLeadership(ctx, n.ID()), coterie.ErrInvalidOption)

		require.NoError(t, n.PromoteMember(t.Context(), n.ID()))
		require.True(t, members(t, n)["node4"].Voter)
		require.False(t, n.NonVoter())
		require.NoError(t, n.PromoteMember(t.Context(), n.ID()), "again")
		require.ErrorIs(t, n.PromoteMember(t.Context(), 42), coterie.ErrMemberNotFound)
		require.NoError(t, n.TransferLeadership(t.Context(), n.ID()))
		require.True(t, c.Leader() == n)
	})
}

func TestPromoteMemberWithoutWait(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx := t.Context()
		leader, follower := c.Leader(), c.Follower()
		i := c.Join(func(cfg *coterie.Config) { cfg.NonVoter = true })
		learner := c.Node(i)
		ready(t, learner)
		c.Stop(i)
		time.Sleep(5 * time.Second)
		for _, n := range []*coterie.Node{leader, follower} { // which asks the leader
			began := time.Now()
			require.ErrorIs(t, n.PromoteMember(ctx, learner.ID(), coterie.WithoutWait()), coterie.ErrMemberNotReady)
			require.Less(t, time.Since(began), time.Second)
		}
		c.Restart(i)
		ready(t, c.Node(i))
		time.Sleep(time.Minute)
		require.False(t, members(t, follower)["node4"].Voter, "a call that failed has no effect later")

		require.NoError(t, follower.PromoteMember(ctx, learner.ID(), coterie.WithoutWait()))
		require.True(t, members(t, follower)["node4"].Voter)
		require.NoError(t, follower.PromoteMember(ctx, learner.ID(), coterie.WithoutWait()), "again")
		require.ErrorIs(t, leader.PromoteMember(ctx, 42, coterie.WithoutWait()), coterie.ErrMemberNotFound)
	})
}

// A node is down while it is removed and added again.
func TestT57_RemovedDirectoryStaysRejected(t *testing.T) {
	for _, empty := range []bool{true, false} {
		t.Run(fmt.Sprint("empty ", empty), func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				ctx, leader := t.Context(), c.Leader()
				was := c.Follower().Status()
				i := c.Index(c.Follower())
				c.Stop(i)
				time.Sleep(5 * time.Second)
				require.NoError(t, leader.RemoveMember(ctx, was.ID))
				put(t, leader, "k", "v")
				var opts []coterie.MemberOption
				if empty {
					opts = append(opts, coterie.WithEmptyDirectory())
				}
				_, err := leader.AddMember(ctx, was.Name, was.Addr, opts...)
				require.NoError(t, err)
				_, err = leader.AddMember(ctx, was.Name, was.Addr, opts...)
				require.NoError(t, err, "again")
				require.EqualValues(t, 1, members(t, leader)[was.Name].Generation)
				require.Zero(t, members(t, leader)[leader.Status().Name].Generation)
				c.Restart(i)
				if empty {
					n := c.Node(i)
					<-n.Done()
					require.ErrorIs(t, n.Err(), coterie.ErrMemberNotFound)
					require.False(t, members(t, leader)[was.Name].Voter)
					c.Wipe(i)
					c.Restart(i)
				}
				ready(t, c.Node(i))
				awaitVote(t, c.Node(i), was.Name)
				require.Equal(t, "v", get(t, c.Node(i), "k").KVs[0].Value)
				sameState(t, c)
			})
		})
	}
}

func TestAddMemberBeforeItsNodeStarts(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		m, err := n.AddMember(t.Context(), "node4", "elsewhere:1")
		require.NoError(t, err)
		require.Equal(t, coterie.Member{ID: m.ID, Name: "node4", Addr: "elsewhere:1"}, m)
		again, err := n.AddMember(t.Context(), "node4", "elsewhere:1")
		require.NoError(t, err)
		require.Equal(t, m, again)
		_, err = n.AddMember(t.Context(), "node4", "other:1")
		require.ErrorIs(t, err, coterie.ErrMemberExists)
		_, err = n.AddMember(t.Context(), "node2", "node2:1")
		require.ErrorIs(t, err, coterie.ErrMemberExists)
		for _, bad := range []struct{ name, addr string }{{}, {name: "x"}, {name: "x", addr: "x"}, {name: "x", addr: ":1"}, {name: "x", addr: "x:0"}} {
			_, err = n.AddMember(t.Context(), bad.name, bad.addr)
			require.ErrorIs(t, err, coterie.ErrInvalidOption)
		}
		time.Sleep(time.Minute)
		require.False(t, members(t, n)["node4"].Voter, "it does not count for the majority")
		joined := c.Node(c.Join(nil))
		require.Equal(t, m.ID, joined.ID())
		ready(t, joined)
		awaitVote(t, joined, "node4")
		require.Equal(t, "node4:1", members(t, joined)["node4"].Addr)
	})
}

func TestRemovedNodeStops(t *testing.T) {
	coterietest.Run(t, 4, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		for range 2 {
			removed, other := c.Follower(), c.Leader()
			i := c.Index(removed)
			require.NoError(t, other.RemoveMember(t.Context(), removed.ID()))
			require.ErrorIs(t, other.RemoveMember(t.Context(), removed.ID()), coterie.ErrMemberNotFound)
			<-removed.Done()
			require.ErrorIs(t, removed.Err(), coterie.ErrMemberNotFound)
			require.ErrorIs(t, removed.Err(), coterie.ErrClosed)
			put(t, c.Leader(), "k", "w")

			c.Restart(i) // it cannot come back with its directory
			<-c.Node(i).Done()
			require.ErrorIs(t, c.Node(i).Err(), coterie.ErrMemberNotFound)

			c.Wipe(i) // without it, it joins as a new node
			c.Restart(i)
			ready(t, c.Node(i))
			awaitVote(t, c.Node(i), c.Node(i).Status().Name)
			put(t, c.Node(i), "k", "x")
		}
		sameState(t, c)
	})
}

// A node that was down when it was removed learns of that when it is back, no matter how much later.
func TestNodeRemovedWhileDownStops(t *testing.T) {
	coterietest.Run(t, 4, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		i := c.Index(n)
		time.Sleep(time.Second) // until the node knows that it is on record
		c.Pause(i)
		require.NoError(t, c.Leader().RemoveMember(t.Context(), n.ID()))
		for j := range 100 {
			put(t, c.Leader(), "k", fmt.Sprint(j))
		}
		term := c.Leader().Status().Term
		time.Sleep(time.Minute)
		c.Resume(i)
		<-n.Done()
		require.ErrorIs(t, n.Err(), coterie.ErrMemberNotFound)
		require.Equal(t, term, c.Leader().Status().Term, "it causes no election")
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 20 }))
}

func TestRemovedLeaderHandsOver(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader := c.Leader()
		require.NoError(t, leader.RemoveMember(t.Context(), leader.ID()))
		<-leader.Done()
		require.ErrorIs(t, leader.Err(), coterie.ErrMemberNotFound)
		put(t, c.Leader(), "k", "v")
		require.Len(t, members(t, c.Leader()), 2)
	})
}

func TestLeave(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		for range 2 {
			leaver := c.Leader()
			require.NoError(t, leaver.Leave(t.Context()))
			c.Stop(c.Index(leaver)) // the node has stopped by itself
			put(t, c.Leader(), "k", "w")
		}
		last := c.Leader()
		require.Len(t, members(t, last), 1)
		require.ErrorIs(t, last.Leave(t.Context()), coterie.ErrInvalidOption)
		require.NoError(t, last.Err(), "it still runs")
		put(t, last, "k", "x")
	})
}

func TestRemoveMemberKeepsAReachableMajority(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		gone := c.Node(3 - c.Index(leader) - c.Index(n))
		c.Crash(c.Index(gone))
		time.Sleep(5 * time.Second)
		require.ErrorIs(t, n.RemoveMember(t.Context(), n.ID()), coterie.ErrUnhealthy)
		require.ErrorIs(t, n.RemoveMember(t.Context(), leader.ID()), coterie.ErrUnhealthy)
		require.NoError(t, n.RemoveMember(t.Context(), gone.ID()), "a member that is down can be removed")
		put(t, n, "k", "v")
	})
}

func TestTransferLeadership(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for i := range 9 {
			from, to := c.Node(i%2), c.Node(i%3)
			require.NoError(t, from.TransferLeadership(t.Context(), to.ID()))
			require.True(t, c.Leader() == to)
			put(t, from, "k", "v")
		}
		require.ErrorIs(t, c.Node(0).TransferLeadership(t.Context(), 42), coterie.ErrMemberNotFound)
	})
}

func TestMemberCallsNeedALeader(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		c.Partition()
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		calls := map[string]func() error{
			"Members":            func() error { _, err := n.Members(ctx); return err },
			"AddMember":          func() error { _, err := n.AddMember(ctx, "x", "x:1"); return err },
			"RemoveMember":       func() error { return n.RemoveMember(ctx, n.ID()) },
			"PromoteMember":      func() error { return n.PromoteMember(ctx, n.ID()) },
			"UpdateMember":       func() error { return n.UpdateMember(ctx, n.ID(), "x:1") },
			"TransferLeadership": func() error { return n.TransferLeadership(ctx, n.ID()) },
			"Leave":              func() error { return n.Leave(ctx) },
		}
		for name, call := range calls {
			err := call()
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			require.ErrorIs(t, err, coterie.ErrNoLeader, name)
		}
		c.Heal()
		c.Stop(c.Index(n))
		for name, call := range calls {
			require.ErrorIs(t, call(), coterie.ErrClosed, name)
		}
	})
}

func TestMembersWithoutAQuorum(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		want, err := c.Follower().Members(t.Context(), coterie.WithSerializable())
		require.NoError(t, err)
		require.Len(t, want, 3)
		c.Partition()
		time.Sleep(5 * time.Second)
		for _, n := range c.Nodes() {
			all, err := n.Members(t.Context(), coterie.WithSerializable())
			require.NoError(t, err)
			for i := range want {
				want[i].Leader = false
			}
			require.Equal(t, want, all)
		}
	})
}

// Raft acts on a change of the members as soon as the change is in its log. The caller gets the answer only
// when no crash of a machine can undo the change.
func TestMemberChangeIsAnsweredWhenDurable(t *testing.T) {
	for name, stalled := range map[string]func(leader, i int) bool{
		"leader":    func(leader, i int) bool { return i == leader },
		"followers": func(leader, i int) bool { return i != leader },
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				leader := c.Leader()
				stall := func(on bool) {
					for i := range 3 {
						if stalled(c.Index(leader), i) {
							c.StallDisk(i, on)
						}
					}
				}
				stall(true)
				answered := make(chan error, 1)
				go func() {
					_, err := leader.AddMember(t.Context(), "node4", "node4:1")
					answered <- err
				}()
				time.Sleep(300 * time.Millisecond)
				require.Empty(t, answered)
				for _, n := range c.Nodes() {
					all, err := n.Members(shortly(t))
					if err == nil {
						require.Len(t, all, 3)
					}
				}
				stall(false)
				require.NoError(t, <-answered)
				require.Len(t, members(t, c.Follower()), 4)
			})
		})
	}
}

// shortly returns a context that ends soon.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
