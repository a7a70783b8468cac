// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
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

func TestANodeThatJoinsIsGivenAVote(t *testing.T) {
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

		// It counts: with two of four away there is no majority, with one there is.
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

// A snapshot brings a newcomer who the members are, too.
func TestANodeJoinsFromASnapshot(t *testing.T) {
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

func TestANodeWithoutAVoteServesEverything(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(c.Join(func(cfg *coterie.Config) { cfg.NonVoter = true }))
		ready(t, n)
		put(t, n, "k", "v")
		require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
		time.Sleep(time.Minute)
		require.False(t, members(t, n)["node4"].Voter)
		require.Equal(t, 3, n.Status().Voters)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, n.TransferLeadership(ctx, n.ID()), coterie.ErrInvalidOption)

		require.NoError(t, n.PromoteMember(t.Context(), n.ID()))
		require.True(t, members(t, n)["node4"].Voter)
		require.NoError(t, n.PromoteMember(t.Context(), n.ID()), "again")
		require.ErrorIs(t, n.PromoteMember(t.Context(), 42), coterie.ErrMemberNotFound)
		require.NoError(t, n.TransferLeadership(t.Context(), n.ID()))
		require.True(t, c.Leader() == n)
	})
}

func TestAMemberIsAddedBeforeItIsStarted(t *testing.T) {
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
		require.False(t, members(t, n)["node4"].Voter, "it costs no majority")
		joined := c.Node(c.Join(nil))
		require.Equal(t, m.ID, joined.ID())
		ready(t, joined)
		awaitVote(t, joined, "node4")
		require.Equal(t, "node4:1", members(t, joined)["node4"].Addr)
	})
}

func TestWhoIsRemovedStops(t *testing.T) {
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

			c.Restart(i) // its directory is of no more use
			<-c.Node(i).Done()
			require.ErrorIs(t, c.Node(i).Err(), coterie.ErrMemberNotFound)

			c.Wipe(i) // but without it comes back as new
			c.Restart(i)
			ready(t, c.Node(i))
			awaitVote(t, c.Node(i), c.Node(i).Status().Name)
			put(t, c.Node(i), "k", "x")
		}
		sameState(t, c)
	})
}

// A node that was away when it was removed learns of it when it is back, however long ago that was.
func TestWhoIsRemovedWhileAwayStops(t *testing.T) {
	coterietest.Run(t, 4, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		i := c.Index(n)
		time.Sleep(time.Second) // it knows that it is on record
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
		require.Equal(t, term, c.Leader().Status().Term, "it disturbs nobody")
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 20 }))
}

func TestALeaderThatIsRemovedHandsOver(t *testing.T) {
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
			c.Stop(c.Index(leaver)) // it is
			put(t, c.Leader(), "k", "w")
		}
		last := c.Leader()
		require.Len(t, members(t, last), 1)
		require.ErrorIs(t, last.Leave(t.Context()), coterie.ErrInvalidOption)
		require.NoError(t, last.Err(), "it runs on")
		put(t, last, "k", "x")
	})
}

func TestAMajorityThatCanBeReachedStays(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		gone := c.Node(3 - c.Index(leader) - c.Index(n))
		c.Crash(c.Index(gone))
		time.Sleep(5 * time.Second)
		require.ErrorIs(t, n.RemoveMember(t.Context(), n.ID()), coterie.ErrUnhealthy)
		require.ErrorIs(t, n.RemoveMember(t.Context(), leader.ID()), coterie.ErrUnhealthy)
		require.NoError(t, n.RemoveMember(t.Context(), gone.ID()), "who is gone may go")
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

func TestMembershipNeedsALeader(t *testing.T) {
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

// A founder whose directory is lost has forgotten what it promised. Nobody counts on it, not even
// where its vote would make a majority.
func TestAWipedFounderIsRefused(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		i := c.Index(c.Follower())
		c.Wipe(i)
		c.Restart(i)
		wiped := c.Node(i)
		require.ErrorIs(t, notReady(t, wiped, 10*time.Second), coterie.ErrDirMismatch)
		put(t, c.Leader(), "k", "w")

		// One of the others is away, and it would take the wiped one to make a majority.
		away := c.Index(c.Leader())
		c.Crash(away)
		other := 3 - i - away
		require.ErrorIs(t, notReady(t, c.Node(other), time.Minute), coterie.ErrNoLeader)
		require.ErrorIs(t, notReady(t, wiped, time.Minute), coterie.ErrDirMismatch)
		c.Restart(away)

		// When it is removed, it is let in anew.
		require.NoError(t, c.Leader().RemoveMember(t.Context(), wiped.ID()))
		ready(t, wiped)
		awaitVote(t, wiped, wiped.Status().Name)
		put(t, wiped, "k", "x")
		sameState(t, c)
	})
}

// What a majority of two acknowledged is on one disk alone when the other one is lost. The third, which
// never had it, and the wiped one must not go on without it.
func TestAWipedNodeDoesNotElectWhoLacksWhatItHad(t *testing.T) {
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

func TestANodeInMemoryIsTakenBack(t *testing.T) {
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

// Two nodes that bear one name do not take turns.
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

// One node moves, and nobody is told.
func TestANodeMoves(t *testing.T) {
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

// Two clusters that were founded with the same words do not merge when they come to reach each other.
func TestClustersOfTheSameWordsDoNotMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		founders := []coterie.Founder{{Name: "node1", Addr: "node1:1"}, {Name: "node2", Addr: "node2:1"}, {Name: "node3", Addr: "node3:1"}}
		var disks [2][3]*vfs.Memory
		open := func(network *memnet.Network, cluster, i int) *coterie.Node {
			n, err := coterie.Open(vfs.With(t.Context(), disks[cluster][i].Mount()), coterie.Config{
				Dir: "d", Name: founders[i].Name, Addr: founders[i].Addr, Advertise: founders[i].Addr, Founders: founders, Network: network.Host(founders[i].Name),
			})
			require.NoError(t, err)
			return n
		}
		var nodes [2][3]*coterie.Node
		var networks [2]*memnet.Network
		for cluster := range nodes {
			networks[cluster] = memnet.New()
			for i := range founders {
				disks[cluster][i] = vfs.NewMemory()
				nodes[cluster][i] = open(networks[cluster], cluster, i)
			}
			ready(t, nodes[cluster][0])
			put(t, nodes[cluster][0], "cluster", fmt.Sprint(cluster))
			ready(t, nodes[cluster][2])
		}
		// A node of one comes to stand among those of the other.
		require.NoError(t, nodes[0][2].Close())
		require.NoError(t, nodes[1][2].Close())
		lost := open(networks[0], 1, 2)
		require.ErrorIs(t, notReady(t, lost, time.Minute), coterie.ErrClusterMismatch)
		require.Equal(t, "1", get(t, lost, "cluster", coterie.WithSerializable()).KVs[0].Value)
		require.Equal(t, "0", get(t, nodes[0][0], "cluster").KVs[0].Value)
		for _, n := range []*coterie.Node{lost, nodes[0][0], nodes[0][1], nodes[1][0], nodes[1][1]} {
			require.NoError(t, n.Close())
		}
	})
}

func TestANodeDoesNotJoinAnotherCluster(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(c.Join(func(cfg *coterie.Config) { cfg.Cluster = "another" }))
		require.ErrorIs(t, notReady(t, n, 10*time.Second), coterie.ErrClusterMismatch)
		require.Len(t, members(t, c.Node(0)), 1)
	})
}

func TestANodeJoinsWhenItCan(t *testing.T) {
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

func TestConfigurationOfANodeThatJoins(t *testing.T) {
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

// Raft acts on a change of the members as soon as it has it. Whoever asked for it hears when neither a
// crash of the leader's machine nor one of the others can undo it.
func TestAChangeIsAnsweredWhenItIsDurable(t *testing.T) {
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

// shortly is a context that ends soon.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
