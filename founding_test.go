// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A founder is wiped before all the others know its data. A founder that knows of an election, but not of
// that data, asks it for votes. Hearing of later terms does not make it a participant of the founding.
func TestFounderWipedEarlyElectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		founders := []coterie.Founder{{Name: "node1", Addr: "node1:1"}, {Name: "node2", Addr: "node2:1"}, {Name: "node3", Addr: "node3:1"}}
		network := memnet.New()
		open := func(i int, disk *vfs.Memory) *coterie.Node {
			n, err := coterie.Open(vfs.With(t.Context(), disk.Mount()), coterie.Config{
				Dir: "d", Name: founders[i].Name, Addr: founders[i].Addr, Founders: founders, Network: network.Host(founders[i].Name),
			})
			require.NoError(t, err)
			return n
		}
		for i := range founders {
			for j := range founders {
				network.Delay(founders[i].Name, founders[j].Name, 50*time.Millisecond)
			}
		}
		nodes := make([]*coterie.Node, len(founders))
		for i := range nodes {
			nodes[i] = open(i, vfs.NewMemory())
		}
		cut := func(i int, set func(from, to string)) {
			for j := range founders {
				if i != j {
					set(founders[i].Name, founders[j].Name)
					set(founders[j].Name, founders[i].Name)
				}
			}
		}
		// The first election fails, since all are cut off. Later the term is so high that raft takes it over
		// from a node that refuses its pre-vote.
		for voted := 0; voted < len(founders); {
			time.Sleep(time.Millisecond)
			voted = 0
			for _, n := range nodes {
				voted += int(n.Status().Term) - 1
			}
		}
		for i := range founders {
			cut(i, network.Block)
		}
		time.Sleep(5 * time.Second)
		for i := range founders {
			cut(i, network.Unblock)
		}
		leader := -1
		for leader < 0 {
			time.Sleep(time.Millisecond)
			leader = slices.IndexFunc(nodes, func(n *coterie.Node) bool { return n.Status().Role == coterie.RoleLeader })
		}
		wiped, behind := (leader+1)%3, (leader+2)%3
		for nodes[behind].Status().Durable < 3 { // the leader's first entry
			time.Sleep(time.Millisecond)
		}
		cut(behind, network.Block)
		ready(t, nodes[leader])
		put(t, nodes[leader], "k", "acknowledged")
		ready(t, nodes[wiped])
		time.Sleep(5 * time.Second)
		cut(leader, network.Block)
		require.NoError(t, nodes[wiped].Close())
		nodes[wiped] = open(wiped, vfs.NewMemory())
		network.Unblock(founders[wiped].Name, founders[behind].Name)
		network.Unblock(founders[behind].Name, founders[wiped].Name)
		for range 60 {
			time.Sleep(time.Second)
			require.NotEqual(t, coterie.RoleLeader, nodes[wiped].Status().Role)
			require.NotEqual(t, coterie.RoleLeader, nodes[behind].Status().Role)
		}
		network.Heal()
		require.Equal(t, "acknowledged", get(t, nodes[behind], "k").KVs[0].Value)
		for _, n := range nodes {
			require.NoError(t, n.Close())
		}
	})
}

func TestWipedFoundersDoNotFoundAgain(t *testing.T) {
	for _, forgetful := range []bool{false, true} {
		t.Run(fmt.Sprint("in memory ", forgetful), func(t *testing.T) {
			var log messages
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				put(t, c.Leader(), "k", "v")
				get(t, c.Node(2), "k") // node 2 has it now, too
				for i := range 2 {
					c.Stop(i)
					if !forgetful {
						c.Wipe(i)
					}
				}
				for i := range 2 {
					c.Restart(i)
				}
				waits := func(ends time.Duration) {
					time.Sleep(ends)
					for i := range 2 {
						err := notReady(t, c.Node(i), time.Second)
						require.ErrorIs(t, err, coterie.ErrNoLeader)
						require.Empty(t, get(t, c.Node(i), "k", coterie.WithSerializable()).KVs)
					}
				}
				waits(5 * time.Minute)
				require.ErrorContains(t, notReady(t, c.Node(0), time.Second), "node3 node3:1: has data, and this node has none")
				require.True(t, log.has(`msg="the founding waits for all founders" node=node1 err="coterie: no leader; node2 node2:1: knows no leader; node3 node3:1: has data, and this node has none`))
				if !forgetful {
					require.Regexp(t, `coterie: the data directory is not the one on record for this member: node[12] node[12]:1: rpc: the cluster has other data on record for the member`, notReady(t, c.Node(2), time.Second))
				}
				require.NotContains(t, log.warnings(), "the founding waits")
				require.Equal(t, "v", get(t, c.Node(2), "k", coterie.WithSerializable()).KVs[0].Value)
				c.Pause(2)
				for i := range 2 {
					c.Restart(i)
				}
				waits(5 * time.Minute)
				c.Resume(2)
				waits(time.Minute)
				require.Equal(t, "v", get(t, c.Node(2), "k", coterie.WithSerializable()).KVs[0].Value)
				require.Equal(t, 1, log.count(`msg="founded a new cluster"`))

				c.Stop(2) // no data is left that a founding could lose
				if !forgetful {
					c.Wipe(2)
					for i := range 2 { // they remember that they met a member
						c.Restart(i)
					}
				}
				c.Restart(2)
				for _, n := range c.Nodes() {
					ready(t, n)
				}
				synctest.Wait() // for the log
				require.Equal(t, 2, log.count(`msg="founded a new cluster"`))
			}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) {
				cfg.InMemory, cfg.Logger = forgetful, log.logger()
			}))
		})
	}
}

func TestFoundingWaitsForAllFounders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := sites(3)
		first, second := all[0].open(t), all[1].open(t)
		for _, n := range []*coterie.Node{first, second} {
			err := notReady(t, n, time.Minute)
			require.ErrorIs(t, err, coterie.ErrNoLeader)
			require.ErrorContains(t, err, "r2 r2:1: connection refused")
		}
		begun := time.Now()
		third := all[2].open(t)
		for _, n := range []*coterie.Node{first, second, third} {
			ready(t, n)
		}
		require.Less(t, time.Since(begun), time.Second, "no node waits for a timeout")
	})
}

// A crash of all founders interrupts the founding at any point, and they come back in any order. The founding
// is finished when all are back.
func TestFoundingOutlivesCrashes(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	late := func() time.Duration { return time.Duration(random.Int64N(int64(40 * time.Millisecond))) }
	for range 60 {
		synctest.Test(t, func(t *testing.T) {
			network := memnet.New()
			all := sites(3)
			for i := range all {
				all[i].Network, all[i].Logger = network.Host(all[i].Name), slog.New(slog.DiscardHandler)
				for j := range all {
					network.Delay(all[i].Name, all[j].Name, late()/4)
				}
			}
			nodes := make([]*coterie.Node, len(all))
			for range 3 {
				for _, i := range random.Perm(len(all)) {
					if nodes[i] == nil {
						n, err := coterie.Open(on(t, all[i].disk), all[i].Config)
						require.NoError(t, err)
						nodes[i] = n
					}
					if random.IntN(3) == 0 {
						time.Sleep(time.Duration(random.IntN(2)) * 5 * time.Second)
					}
				}
				time.Sleep(late())
				for _, i := range random.Perm(len(all))[:1+random.IntN(3)] {
					network.Cut(all[i].Name)
					all[i].disk.Crash(random)
					nodes[i].Close()
					nodes[i] = nil
					network.Revive(all[i].Name)
				}
			}
			for i := range all {
				if nodes[i] == nil {
					nodes[i] = all[i].open(t)
				} else {
					t.Cleanup(func() { nodes[i].Close() })
				}
			}
			for _, n := range nodes {
				ready(t, n)
			}
		})
	}
}

// Two clusters that were founded with the same terms do not merge when they reach each other.
func TestClustersOfTheSameTermsDoNotMerge(t *testing.T) {
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
		// A node of one cluster runs among the nodes of the other.
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
