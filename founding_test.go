// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A founder that is wiped before all the others know its data is asked for votes by one that knows of
// an election, and not of it. What it hears then of later terms does not make it one who was there.
func TestAFounderThatIsWipedEarlyElectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := []coterie.Peer{{Name: "n0", Addr: "n0:1"}, {Name: "n1", Addr: "n1:1"}, {Name: "n2", Addr: "n2:1"}}
		network := memnet.New()
		open := func(i int, disk *vfs.Memory) *coterie.Node {
			n, err := coterie.Open(vfs.With(t.Context(), disk.Mount()), coterie.Config{
				Dir: "d", Name: peers[i].Name, Addr: peers[i].Addr, Peers: peers, Network: network.Host(peers[i].Name),
			})
			require.NoError(t, err)
			return n
		}
		for i := range peers {
			for j := range peers {
				network.Delay(peers[i].Name, peers[j].Name, 50*time.Millisecond)
			}
		}
		nodes := make([]*coterie.Node, len(peers))
		for i := range nodes {
			nodes[i] = open(i, vfs.NewMemory())
		}
		cut := func(i int, set func(from, to string)) {
			for j := range peers {
				if i != j {
					set(peers[i].Name, peers[j].Name)
					set(peers[j].Name, peers[i].Name)
				}
			}
		}
		// The first election comes to nothing, since all are cut off: later the term is so high that raft
		// takes it over from who refuses its pre-vote.
		for voted := 0; voted < len(peers); {
			time.Sleep(time.Millisecond)
			voted = 0
			for _, n := range nodes {
				voted += int(n.Status().Term) - 1
			}
		}
		for i := range peers {
			cut(i, network.Block)
		}
		time.Sleep(5 * time.Second)
		for i := range peers {
			cut(i, network.Unblock)
		}
		leader := -1
		for leader < 0 {
			time.Sleep(time.Millisecond)
			leader = slices.IndexFunc(nodes, func(n *coterie.Node) bool { return n.Status().State == coterie.Leader })
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
		network.Unblock(peers[wiped].Name, peers[behind].Name)
		network.Unblock(peers[behind].Name, peers[wiped].Name)
		for range 60 {
			time.Sleep(time.Second)
			require.NotEqual(t, coterie.Leader, nodes[wiped].Status().State)
			require.NotEqual(t, coterie.Leader, nodes[behind].Status().State)
		}
		network.Heal()
		require.Equal(t, "acknowledged", get(t, nodes[behind], "k").KVs[0].Value)
		for _, n := range nodes {
			require.NoError(t, n.Close())
		}
	})
}
