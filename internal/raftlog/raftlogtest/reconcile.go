// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
)

// The log and the newest snapshot agree after Open.
func testReconcile(t *testing.T, s site) {
	for i, c := range []struct {
		name     string
		log      [3]uint64 // first, last, term
		snapshot [2]uint64 // index, term
		want     [2]uint64 // first, last
		corrupt  bool
	}{
		{name: "no snapshot", log: [3]uint64{1, 9, 1}, want: [2]uint64{1, 9}},
		{name: "no log", snapshot: [2]uint64{7, 2}},
		{name: "a log that covers it", log: [3]uint64{1, 9, 1}, snapshot: [2]uint64{7, 1}, want: [2]uint64{1, 9}},
		{name: "a log that ends with it", log: [3]uint64{1, 9, 1}, snapshot: [2]uint64{9, 1}, want: [2]uint64{1, 9}},
		{name: "a log right after it", log: [3]uint64{8, 9, 1}, snapshot: [2]uint64{7, 1}, want: [2]uint64{8, 9}},
		{name: "a log that ends before it", log: [3]uint64{1, 6, 1}, snapshot: [2]uint64{7, 1}},
		{name: "a log of another term", log: [3]uint64{1, 9, 1}, snapshot: [2]uint64{7, 2}},
		{name: "a hole", log: [3]uint64{9, 10, 1}, snapshot: [2]uint64{7, 1}, corrupt: true},
		{name: "a log without its beginning", log: [3]uint64{2, 10, 1}, corrupt: true},
	} {
		s := s.below(i)
		l := s.open(t)
		if c.log[1] > 0 {
			keep(t, l, storagetest.Entries(c.log[0], c.log[1], c.log[2])...)
		}
		if c.snapshot[0] > 0 {
			snapshot(t, l, c.snapshot[0], c.snapshot[1])
		}
		r := s.readWhile(t, l)
		l, err := s.try()
		if c.corrupt {
			require.ErrorAs(t, err, new(*raftlog.CorruptError), c.name)
			require.NotEmpty(t, r.Damage, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Empty(t, r.Damage, c.name)
		require.Equal(t, c.want, span(all(t, l)), c.name)
		require.Equal(t, c.want, [2]uint64{r.First, r.Last}, c.name)
		end := max(c.want[1], c.snapshot[0])
		require.Equal(t, end, l.Durable(), c.name)
		keep(t, l, storagetest.Entry(end+1, 3))
		l = s.reopen(t, l)
		require.Equal(t, end+1, span(all(t, l))[1], c.name)
		finish(t, l)
	}
}

// A log with another entry at the end of the newest snapshot is dropped, here by Realign and there by Open.
func testAstray(t *testing.T, s site) {
	for i, realign := range []bool{true, false} {
		s := s.below(i)
		l := s.open(t)
		keep(t, l, storagetest.Entries(1, 9, 1)...)
		snapshot(t, l, 5, 1)
		require.False(t, l.Astray())
		snapshot(t, l, 6, 2)
		require.True(t, l.Astray())
		if realign {
			require.NoError(t, l.Realign())
			holds(t, l)
		}
		l = s.reopen(t, l)
		require.False(t, l.Astray())
		holds(t, l)
		require.EqualValues(t, 6, l.Durable())
		store(t, l, storagetest.Entries(7, 8, 3)...)
		finish(t, s.verify(t, l, storagetest.Entries(7, 8, 3)...))
	}
}

// Applied entries are never discarded: the log fails, and the directory is rejected from then on.
func testDivergence(t *testing.T, s site) {
	for i, discard := range []func(l *raftlog.Log) error{
		func(l *raftlog.Log) error { return l.Logs().DeleteRange(5, 8) },
		func(l *raftlog.Log) error { return l.Logs().DeleteRange(1, 8) },
		func(l *raftlog.Log) error { return l.Logs().StoreLogs(storagetest.Entries(5, 6, 3)) },
	} {
		s := s.below(i)
		l := s.open(t)
		keep(t, l, storagetest.Entries(1, 8, 1)...)
		l.Applied(6)
		require.ErrorIs(t, discard(l), raftlog.ErrDiverged)
		require.ErrorIs(t, l.Condition().Err, raftlog.ErrDiverged)
		holds(t, l, storagetest.Entries(1, 8, 1)...)
		require.Error(t, l.Logs().StoreLog(storagetest.Entry(9, 2)))
		_ = l.Close(t.Context()) // it may report that the log has failed
		_, err := s.try()
		require.ErrorIs(t, err, raftlog.ErrDiverged)
		require.ErrorAs(t, err, new(*raftlog.CorruptError))
		r := s.read(t)
		require.ErrorIs(t, r.Diverged, raftlog.ErrDiverged)
		require.Equal(t, [2]uint64{1, 8}, [2]uint64{r.First, r.Last})
	}
}

// A question about a leader's entries reads the entries of this log, wherever they are.
func testContradiction(t *testing.T, s site) {
	l := s.open(t)
	keep(t, l, append(storagetest.Entries(1, 6, 2), storagetest.Entries(7, 9, 3)...)...)
	snapshot(t, l, 5, 2)
	remove(t, l, 1, 3)
	l.Applied(7)
	for l.Recorded() < 7 {
		settle(t, l)
	}
	for range 2 {
		for _, c := range []raftlog.Claim{
			{},
			{Index: 7, Term: 3, Entries: storagetest.Entries(8, 9, 3)},
			{Index: 7, Term: 3, Entries: storagetest.Entries(8, 9, 4)},
			{Index: 5, Term: 2},
		} {
			require.NoError(t, l.Contradiction(c))
		}
		other := *storagetest.Entry(7, 3)
		other.Data = []byte("another")
		for _, c := range []raftlog.Claim{
			{Index: 6, Term: 3},
			{Index: 5, Term: 1},
			{Index: 6, Term: 2, Entries: []*raft.Log{&other}},
			{Index: 7, Term: 3, Committed: 8, Entries: storagetest.Entries(8, 9, 4)},
		} {
			require.ErrorIs(t, l.Contradiction(c), raftlog.ErrDiverged)
		}
		require.NoError(t, l.Condition().Err, "a question changes nothing")
		l = s.reopen(t, l)
	}
	finish(t, l)
}
