// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
)

// verify checks that a log has exactly some entries: at once, when they are durable, and when it was reopened.
func (s site) verify(t *testing.T, l *raftlog.Log, want ...*raft.Log) *raftlog.Log {
	t.Helper()
	holds(t, l, want...)
	settle(t, l)
	holds(t, l, want...)
	l = s.reopen(t, l)
	holds(t, l, want...)
	return l
}

func testEntries(t *testing.T, s site) {
	l := s.open(t)
	l = s.verify(t, l)
	full := storagetest.Entry(11, 1<<60)
	full.Type = raft.LogConfiguration
	full.Data = append(full.Data, 0, 0xff)
	want := append(storagetest.Entries(1, 10, 1), full, &raft.Log{Index: 12, Term: 1 << 60, Type: raft.LogBarrier},
		storagetest.Sized(13, 1<<60, 3<<20))
	store(t, l, want[0])
	store(t, l, want[1:]...)
	l = s.verify(t, l, want...)
	want = append(want, storagetest.Entries(14, 20, 1<<60)...)
	store(t, l, want[13:]...)
	finish(t, s.verify(t, l, want...))
}

func testCopies(t *testing.T, s site) {
	l := s.open(t)
	logs := storagetest.Entries(1, 3, 1)
	store(t, l, logs...)
	for _, log := range logs {
		log.Index, log.Term = 77, 77 // raft reuses its entries
	}
	all(t, l)[1].Term = 77
	finish(t, s.verify(t, l, storagetest.Entries(1, 3, 1)...))
}

func testDeletions(t *testing.T, s site) {
	l := s.open(t)
	store(t, l, storagetest.Entries(1, 20, 1)...)
	remove(t, l, 16, 20)
	remove(t, l, 5, 1)
	remove(t, l, 16, 30)
	require.Error(t, l.Logs().DeleteRange(5, 6), "the middle")
	l = s.verify(t, l, storagetest.Entries(1, 15, 1)...)
	for term := uint64(2); term < 6; term++ {
		remove(t, l, 5, 20)
		store(t, l, storagetest.Entries(5, 10, term)...)
	}
	l = s.verify(t, l, append(storagetest.Entries(1, 4, 1), storagetest.Entries(5, 10, 5)...)...)
	remove(t, l, 1, 10)
	l = s.verify(t, l)
	store(t, l, storagetest.Entries(1, 2, 7)...)
	finish(t, s.verify(t, l, storagetest.Entries(1, 2, 7)...))
}

// Compacted entries may be there again after an Open, but none of them after one that is missing.
func testCompaction(t *testing.T, s site) {
	l := s.open(t)
	for i := uint64(1); i <= 40; i++ {
		keep(t, l, storagetest.Sized(i, 1, 100<<10))
	}
	snapshot(t, l, 20, 1)
	remove(t, l, 1, 20)
	require.Equal(t, [2]uint64{20, 40}, span(all(t, l)), "the last entry of the snapshot stays")
	require.NoError(t, l.Logs().DeleteRange(0, 15), "lower indexes are gone already")
	l = s.reopen(t, l)
	found := span(all(t, l))
	require.LessOrEqual(t, found[0], uint64(20))
	require.EqualValues(t, 40, found[1])
	snapshot(t, l, 40, 1)
	remove(t, l, found[0], 35)
	remove(t, l, 36, 40)
	holds(t, l)
	l = s.reopen(t, l)
	require.EqualValues(t, 40, l.Durable())
	next := storagetest.Entries(41, 42, 1)
	keep(t, l, next...)
	l = s.reopen(t, l)
	got := all(t, l)
	require.EqualValues(t, 42, span(got)[1])
	same(t, next, got[len(got)-2:])
	finish(t, l)
}

// After raft installs a snapshot, it continues with the next entry, whatever the log has.
func testGap(t *testing.T, s site) {
	l := s.open(t)
	store(t, l, storagetest.Entries(1, 10, 1)...)
	snapshot(t, l, 50, 2)
	require.EqualValues(t, 50, l.Durable())
	store(t, l, storagetest.Entries(51, 55, 2)...)
	l = s.verify(t, l, storagetest.Entries(51, 55, 2)...)
	require.EqualValues(t, 55, l.Durable())
	finish(t, l)
}

// Raft needs the term of the entry before an append. If a snapshot ends there, the log has its term and nothing
// else of it.
func testBase(t *testing.T, s site) {
	l := s.open(t)
	snapshot(t, l, 5, 3)
	for range 2 {
		base, term := l.Base()
		require.Equal(t, [2]uint64{5, 3}, [2]uint64{base, term})
		var end raft.Log
		require.NoError(t, l.Logs().GetLog(5, &end))
		require.Equal(t, raft.Log{Index: 5, Term: 3, Type: raft.LogNoop}, end)
		require.ErrorIs(t, l.Logs().GetLog(4, &end), raft.ErrLogNotFound)
		_, err := l.Entry(5)
		require.ErrorIs(t, err, raft.ErrLogNotFound)
		keep(t, l, storagetest.Entries(6, 7, 3)...)
		l = s.reopen(t, l)
		remove(t, l, 6, 7)
	}
	keep(t, l, storagetest.Entries(6, 7, 3)...)
	snapshot(t, l, 6, 3)
	base, _ := l.Base()
	require.Zero(t, base, "the log has the entry")
	finish(t, l)
}
