// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// compared runs fn with members in memory. The first one leads.
func compared(t *testing.T, members int, fn func(t *testing.T, nodes []*Node, network *memnet.Network)) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		var founders []Founder
		for i := range members {
			founders = append(founders, Founder{Name: fmt.Sprint("n", i), Addr: fmt.Sprint("n", i, ":1")})
		}
		var nodes []*Node
		defer func() { closeAll(t, nodes) }()
		for _, f := range founders {
			n, err := Open(t.Context(), Config{
				InMemory: true, Name: f.Name, Addr: f.Addr, Founders: founders, Network: network.Host(f.Name),
				Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			nodes = append(nodes, n)
		}
		i := leading(nodes)
		nodes[0], nodes[i] = nodes[i], nodes[0]
		for _, n := range nodes {
			require.NoError(t, n.Ready(t.Context()))
		}
		_, err := nodes[0].Put(t.Context(), "k", "v")
		require.NoError(t, err)
		time.Sleep(time.Second)
		fn(t, nodes, network)
	})
}

// tamper changes the data of a node until it applies the next entry.
func tamper(t *testing.T, n *Node, value string) {
	v := *n.views.Load()
	s := mvcc.New()
	s.Put("k", value, 0)
	s.Commit()
	v.KV = s.View()
	require.Equal(t, n.views.Load().KV.Revision(), v.KV.Revision())
	n.views.current.Store(&v)
}

// compare compares the members from one of them, and returns how many answered, and which differ.
func compare(t *testing.T, n *Node) (answered int, divergent []MemberID) {
	r, err := n.CompareMembers(t.Context())
	require.NoError(t, err)
	require.Equal(t, n.Status().Revision, r.HashRevision)
	return len(r.Hashes), r.Divergent
}

func TestEqualMembersDoNotDiverge(t *testing.T) {
	compared(t, 3, func(t *testing.T, nodes []*Node, _ *memnet.Network) {
		for i := range 9 {
			answered, divergent := compare(t, nodes[i%3])
			require.Equal(t, 3, answered)
			require.Empty(t, divergent)
			_, err := nodes[1].Put(t.Context(), "k", "v")
			require.NoError(t, err)
		}
	})
}

func TestMemberWithOtherDataIsFound(t *testing.T) {
	for i, name := range []string{"leader", "follower"} {
		t.Run(name, func(t *testing.T) {
			compared(t, 3, func(t *testing.T, nodes []*Node, _ *memnet.Network) {
				compare(t, nodes[0]) // at the same revision
				tamper(t, nodes[i], "w")
				for _, n := range nodes {
					answered, divergent := compare(t, n)
					require.Equal(t, 3, answered)
					require.Equal(t, []MemberID{nodes[i].ID()}, divergent)
				}
			})
		})
	}
}

func TestWithoutMajorityNoMemberIsBlamed(t *testing.T) {
	compared(t, 3, func(t *testing.T, nodes []*Node, _ *memnet.Network) {
		tamper(t, nodes[1], "w")
		tamper(t, nodes[2], "x")
		_, divergent := compare(t, nodes[0])
		require.Equal(t, []MemberID{0}, divergent)
	})
}

func TestSilentMemberIsNotCompared(t *testing.T) {
	compared(t, 4, func(t *testing.T, nodes []*Node, network *memnet.Network) {
		for _, n := range nodes {
			network.Drop(n.cfg.Name, nodes[1].cfg.Name, 1)
			network.Drop(nodes[1].cfg.Name, n.cfg.Name, 1)
		}
		time.Sleep(5 * time.Second)
		tamper(t, nodes[2], "w")
		began := time.Now()
		answered, divergent := compare(t, nodes[0])
		require.Equal(t, 3, answered)
		require.Equal(t, []MemberID{nodes[2].ID()}, divergent)
		require.LessOrEqual(t, time.Since(began), 2*nodes[0].cfg.ElectionTimeout)
	})
}

func TestHasherComputesOneHashAtATime(t *testing.T) {
	compared(t, 1, func(t *testing.T, nodes []*Node, _ *memnet.Network) {
		h, rev := newHasher(nodes[0]), nodes[0].Status().Revision
		first := &dataHash{question: question{1, rev}, done: make(chan struct{})}
		h.last = first
		for _, round := range []uint64{1, 2} {
			began := time.Now()
			resp, err := h.answer(t.Context(), question{round, rev}.append(nil))
			require.NoError(t, err)
			require.Empty(t, resp, "not done")
			require.Equal(t, nodes[0].cfg.ElectionTimeout/2, time.Since(began))
		}
		close(first.done)
		resp, err := h.answer(t.Context(), question{2, rev}.append(nil))
		require.NoError(t, err)
		require.NotEmpty(t, resp)
		_, err = h.answer(t.Context(), question{3, rev + 1}.append(nil))
		require.Error(t, err, "the revision was not applied")
		_, err = h.answer(t.Context(), []byte{0xff})
		require.Error(t, err)
	})
}
