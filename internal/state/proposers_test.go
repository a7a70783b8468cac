// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

// register returns the registration of a node that has applied everything.
func register(id uint64) command.Proposal {
	return command.Proposal{Proposer: id, Command: command.Command{Register: true, Applied: 1 << 60}}
}

func proposal(id, seq, lowest uint64, op command.Op) command.Proposal {
	return command.Proposal{Proposer: id, Seq: seq, Lowest: lowest, Command: command.Command{Op: op}}
}

func TestRepeatedProposalGetsFirstResult(t *testing.T) {
	m := start(t)
	m.propose(register(9))
	p := proposal(9, 1, 1, command.Op{Put: &command.Put{Key: "k", Value: "v", PrevKV: true}})
	first := m.propose(p, p) // in one entry
	require.Len(t, first, 2)
	require.Same(t, first[0].result, first[1].result)
	m.put("k", "w")
	before := m.View()
	again := m.propose(p) // and in another
	require.Len(t, again, 1)
	require.Equal(t, answered{9, 1, first[0].result}, again[0])
	require.Equal(t, before.Hash, m.View().Hash)
	require.EqualValues(t, 3, m.View().KV.Revision())
	r, ok := m.Result(9, 1)
	require.True(t, ok)
	require.Same(t, first[0].result, r)
}

func TestRejectionIsKept(t *testing.T) {
	m := start(t)
	m.propose(register(9))
	p := proposal(9, 1, 1, command.Op{Put: &command.Put{Key: "k", Lease: 7}})
	code(t, command.LeaseNotFound, m.propose(p)[0].result)
	m.grant(7)
	code(t, command.LeaseNotFound, m.propose(p)[0].result)
	require.Empty(t, m.get(all).KVs)
}

func TestProposalsMayArriveOutOfOrder(t *testing.T) {
	m := start(t)
	m.propose(register(9))
	for _, seq := range []uint64{3, 1, 5, 2, 4} {
		m.propose(proposal(9, seq, 1, put("k", fmt.Sprint(seq))))
	}
	require.EqualValues(t, 6, m.View().KV.Revision())
	for seq, rev := range map[uint64]int64{3: 2, 1: 3, 5: 4, 2: 5, 4: 6} {
		r, ok := m.Result(9, seq)
		require.True(t, ok)
		require.Equal(t, rev, r.Revision)
	}
}

func TestLowestDropsResults(t *testing.T) {
	m := start(t)
	m.propose(register(9))
	for seq := uint64(1); seq <= 4; seq++ {
		m.propose(proposal(9, seq, 1, put("k", "v")))
	}
	m.propose(proposal(9, 5, 4, put("k", "v")))
	for seq := uint64(1); seq <= 6; seq++ {
		_, ok := m.Result(9, seq)
		require.Equal(t, seq == 4 || seq == 5, ok, "%d", seq)
	}
	before := m.View()
	require.Empty(t, m.propose(proposal(9, 3, 3, put("k", "again"))), "no caller waits, so there is no answer")
	require.Equal(t, before.Hash, m.View().Hash, "the proposal is not applied")
	_, ok := m.Result(9, 4)
	require.True(t, ok, "lowest does not decrease")
	require.Empty(t, m.propose(proposal(9, 6, 9, put("k", "v"))), "its own lowest is higher")
}

func TestUnknownProposerIsRejected(t *testing.T) {
	m := start(t)
	before := m.View()
	answers := m.propose(proposal(9, 1, 1, put("k", "v")))
	require.Len(t, answers, 1)
	code(t, command.UnknownProposer, answers[0].result)
	require.Equal(t, before.Hash, m.View().Hash)
	_, ok := m.Result(9, 1)
	require.False(t, ok)
	_, ok = m.Result(9, 0)
	require.False(t, ok)
}

func TestRegister(t *testing.T) {
	m := start(t)
	m.propose(register(9))
	first := m.propose(proposal(9, 1, 1, put("k", "v")))
	answers := m.propose(register(9))
	require.Len(t, answers, 1)
	code(t, command.OK, answers[0].result)
	require.Equal(t, first[0].result, m.propose(proposal(9, 1, 1, put("k", "v")))[0].result, "a second registration drops nothing")
	r, ok := m.Result(9, 0)
	require.True(t, ok)
	code(t, command.OK, r)
	// The first proposal may say that no caller waits below 1.
	answers = m.propose(command.Proposal{Proposer: 8, Lowest: 1, Command: command.Command{Register: true}}, proposal(8, 1, 1, put("k", "v")))
	require.Len(t, answers, 2)
	code(t, command.OK, answers[1].result)
}

func TestClusterCommandsAreNotDeduplicated(t *testing.T) {
	m := start(t)
	p := proposal(0, 0, 0, put("k", "v"))
	require.Empty(t, m.propose(p, p))
	require.EqualValues(t, 3, m.View().KV.Revision())
	require.Empty(t, m.propose(command.Proposal{Command: command.Command{Compact: &command.Compact{Revision: 2}}},
		command.Proposal{Command: command.Command{Compact: &command.Compact{Revision: 2}}}))
	require.EqualValues(t, 2, m.View().KV.CompactRevision())
}

func TestLongestSilentProposerIsEvicted(t *testing.T) {
	m := start(t)
	s := m.State
	known := func(id uint64) bool {
		_, ok := s.Result(id, 0)
		return ok
	}
	var batch []command.Proposal
	for id := uint64(MaxProposers + 1); id > 2; id-- { // with the machine's own, one less than the table holds
		batch = append(batch, register(id))
	}
	m.propose(batch...)
	require.Equal(t, MaxProposers, s.proposers.table.Len())
	m.propose(register(3))                      // active again
	m.propose(proposal(4, 1, 1, put("k", "v"))) // this one, too
	m.propose(register(20_000))
	require.Equal(t, MaxProposers, s.proposers.table.Len())
	require.False(t, known(me), "its last proposal was the oldest")
	m.propose(register(20_001), register(20_002))
	require.True(t, known(3))
	require.True(t, known(4))
	require.False(t, known(5), "among equal indexes the lowest ID is evicted first")
	require.False(t, known(6))
	require.True(t, known(7))
	code(t, command.UnknownProposer, m.propose(proposal(5, 1, 1, put("k", "v")))[0].result)

	restored := roundTrip(t, s)
	require.Equal(t, MaxProposers, restored.proposers.table.Len())
	for _, s := range []*State{s, restored} {
		require.NoError(t, s.Apply(s.index+1, 1, entry(register(20_003)), m))
		_, ok := s.Result(7, 0)
		require.False(t, ok, "a restored table evicts the same one")
	}
	require.Equal(t, bytesOf(t, s), bytesOf(t, restored))
}

// If a late duplicate of a registration brought an evicted proposer back, late duplicates of its
// proposals would be applied a second time.
func TestLateRegistrationIsRejected(t *testing.T) {
	m := start(t)
	early := register(9)
	early.Command.Applied = m.index
	m.propose(early)
	write := proposal(9, 1, 1, put("k", "v"))
	m.propose(write)
	var batch []command.Proposal
	for id := range uint64(MaxProposers) {
		batch = append(batch, register(100+id))
	}
	m.propose(batch...)
	m.State = roundTrip(t, m.State)
	before := m.View().KV.Revision()
	code(t, command.UnknownProposer, m.propose(early)[0].result)
	code(t, command.UnknownProposer, m.propose(write)[0].result)
	require.Equal(t, before, m.View().KV.Revision())
	code(t, command.OK, m.propose(register(9))[0].result)
}

// The results that a proposer leaves behind are bounded. The caller gets the whole result the first time.
func TestLargeResultIsNotKept(t *testing.T) {
	m := start(t)
	m.propose(register(9))
	m.put("k", strings.Repeat("v", maxKept))
	p := proposal(9, 1, 1, command.Op{Delete: &command.Delete{Key: "k", PrevKV: true}})
	first := m.propose(p)[0].result
	code(t, command.OK, first)
	require.Len(t, first.KVs, 1)
	code(t, command.ResultDropped, m.propose(p)[0].result)
	r, ok := roundTrip(t, m.State).Result(9, 1)
	require.True(t, ok)
	code(t, command.ResultDropped, r)
}

func TestResultsSurviveRestore(t *testing.T) {
	m := start(t)
	m.grant(7)
	m.propose(register(9))
	p := proposal(9, 3, 2, nest(ops(put("a", "1"), get("\x00", "\x00"), nest(command.Txn{Compares: []command.Compare{{Key: "a", Int: 5}}}),
		command.Op{Delete: &command.Delete{Key: "a", PrevKV: true}})))
	want := m.propose(p)[0].result
	refused := m.propose(proposal(9, 4, 2, command.Op{Get: &command.Get{Key: "a", Revision: 99}}))[0].result
	s := roundTrip(t, m.State)
	r, ok := s.Result(9, 3)
	require.True(t, ok)
	require.Equal(t, want, r)
	r, ok = s.Result(9, 4)
	require.True(t, ok)
	require.Equal(t, refused, r)
	_, ok = s.Result(9, 0)
	require.True(t, ok)

	before := s.View()
	m.State = s
	require.Equal(t, want, m.propose(p)[0].result, "the proposal is not applied again")
	require.Equal(t, before.Hash, s.View().Hash)
	require.Empty(t, m.propose(proposal(9, 1, 1, put("k", "v"))), "below the lowest")
}

func TestSnapshotKeepsTableUnchanged(t *testing.T) {
	m := start(t)
	m.propose(register(9))
	for seq := uint64(1); seq <= 10; seq++ {
		m.propose(proposal(9, seq, 1, put("k", "v")))
	}
	sn := m.Snapshot()
	want := writeOut(t, sn)
	m.propose(proposal(9, 12, 8, put("k", "v")))
	m.propose(proposal(9, 11, 8, put("k", "v")), register(10))
	require.Equal(t, want, writeOut(t, sn))
	again := m.Snapshot()
	next := writeOut(t, again)
	m.propose(proposal(9, 13, 13, put("k", "v")))
	require.Equal(t, next, writeOut(t, again))
	require.Equal(t, want, writeOut(t, sn))
}
