// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
)

const (
	hop    = 10 * time.Millisecond // from one node to another
	direct = 2                     // hops of a question and its answer
	round  = 4                     // at least, if the leader sends appends and awaits their answers before it answers
)

// delayed delays all messages between nodes by a hop.
func delayed(nodes []*Node, network *memnet.Network) {
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				network.Delay(a.cfg.Name, b.cfg.Name, hop)
			}
		}
	}
	time.Sleep(time.Second)
}

// separate blocks the network between two nodes, in both directions.
func separate(network *memnet.Network, a, b *Node) {
	network.Block(a.cfg.Name, b.cfg.Name)
	network.Block(b.cfg.Name, a.cfg.Name)
}

// hops returns how many hops a call takes.
func hops(t *testing.T, call func() error) int {
	synctest.Wait()
	begin := time.Now()
	require.NoError(t, call())
	return int(time.Since(begin) / hop)
}

func TestFollowerConfirmsTheLeader(t *testing.T) {
	compared(t, 3, func(t *testing.T, nodes []*Node, network *memnet.Network) {
		delayed(nodes, network)
		leader, follower := nodes[0], nodes[1]
		get := func() error { _, err := follower.Get(t.Context(), "k"); return err }
		ask := func(req []byte) func() error {
			return func() error {
				_, err := follower.transport.call(t.Context(), leader.id, methodReadIndex, req)
				return err
			}
		}
		term := leader.raft().leadership().Term
		require.Equal(t, direct, hops(t, get), "the question confirms the leader")
		require.Equal(t, direct, hops(t, ask(binary.AppendUvarint(nil, term))))
		require.GreaterOrEqual(t, hops(t, ask(binary.AppendUvarint(nil, term-1))), round, "the follower may have voted in this term since")
		require.GreaterOrEqual(t, hops(t, ask(binary.AppendUvarint(nil, term+1))), round, "there may be a later leader")
		require.GreaterOrEqual(t, hops(t, ask(nil)), round, "from an earlier version")

		follower.identity.runChecked.Store(false)
		require.GreaterOrEqual(t, hops(t, get), round, "the follower may be a copy")
		follower.identity.runChecked.Store(true)
		require.Equal(t, direct, hops(t, get))
		follower.identity.disputed.Store(true)
		require.GreaterOrEqual(t, hops(t, get), round, "the follower may have lost its vote")
		follower.identity.disputed.Store(false)
		record := follower.identity.Load()
		later := *record
		later.Floor = term + 1
		follower.identity.record.Store(&later)
		require.GreaterOrEqual(t, hops(t, get), round, "the follower has lost what it did in this term")
		follower.identity.record.Store(record)
		require.Equal(t, direct, hops(t, get))
	})
}

// A leader that removes itself leads until the others have agreed.
func TestRemovedLeaderIsNotConfirmed(t *testing.T) {
	compared(t, 3, func(t *testing.T, nodes []*Node, network *memnet.Network) {
		c, term := nodes[0].raft(), nodes[0].raft().leadership().Term
		for _, n := range nodes[1:] {
			network.Block(nodes[0].cfg.Name, n.cfg.Name)
		}
		c.raft.RemoveServer(c.self, 0, 0)
		synctest.Wait()
		require.NotContains(t, c.voters(), c.self)
		require.Equal(t, raft.Leader, c.raft.State())
		_, ok := c.confirmedBy(nodes[1].id, term)
		require.False(t, ok)
	})
}

// A new leader may not know yet everything that its predecessors committed.
func TestNewLeaderIsNotConfirmedAtOnce(t *testing.T) {
	compared(t, 3, func(t *testing.T, nodes []*Node, _ *memnet.Network) {
		leader, follower := nodes[0], nodes[1]
		term := leader.raft().leadership().Term
		summary := leader.views.Summary()
		earlier := *summary
		earlier.Term--
		leader.views.summary.Store(&earlier)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := leader.reads.answerReadIndex(ctx, follower.id, binary.AppendUvarint(nil, term))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		leader.views.summary.Store(summary)
		leader.views.published.Broadcast()
	})
}

func TestOnlyAVoterOfThreeConfirms(t *testing.T) {
	for members, majority := range map[int]bool{2: true, 3: true, 4: false, 5: false} {
		compared(t, members, func(t *testing.T, nodes []*Node, _ *memnet.Network) {
			leader, follower := nodes[0].raft(), nodes[1].raft()
			term := leader.leadership().Term
			for _, test := range []struct {
				by   MemberID
				term uint64
				at   *consensus
				want bool
			}{
				{nodes[1].id, term, leader, majority},
				{nodes[0].id, term, leader, false},
				{nodes[1].id + 1, term, leader, false},
				{nodes[1].id, term - 1, leader, false},
				{nodes[1].id, term + 1, leader, false},
				{nodes[0].id, term, follower, false},
			} {
				index, ok := test.at.confirmedBy(test.by, test.term)
				require.Equal(t, test.want, ok, "%d members: %+v", members, test)
				require.Equal(t, nodes[0].views.Summary().Index, index)
			}
		})
	}
}

// A leader that does not know its successor yet must not answer a question that was asked after the successor's election.
func TestDeposedLeaderIsNotConfirmed(t *testing.T) {
	compared(t, 3, func(t *testing.T, nodes []*Node, network *memnet.Network) {
		old, asks, successor := nodes[0], nodes[1], nodes[2]
		term := old.raft().leadership().Term
		require.Equal(t, term, asks.log.Term())
		for _, n := range nodes[1:] {
			separate(network, old, n)
		}
		successor.raft().elect()
		_, err := successor.Put(t.Context(), "k", "new")
		require.NoError(t, err)

		require.True(t, old.lead.Now().Self)
		require.Greater(t, asks.log.Term(), term, "recorded before the vote was sent")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = old.reads.answerReadIndex(ctx, asks.id, binary.AppendUvarint(nil, asks.log.Term()))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, old.lead.Now().Self, "all this time")
		network.Heal()
		require.NoError(t, old.Ready(t.Context()))
	})
}
