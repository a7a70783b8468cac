// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// reopened runs a check of a log, and runs it again after closing and opening the log.
func reopened(t *testing.T, files vfs.FS, l *Log, check func(l *Log)) *Log {
	t.Helper()
	check(l)
	settle(t, l)
	check(l)
	finish(t, l)
	l = openSized(t, files, smallSegment)
	check(l)
	return l
}

func TestEveryFieldOfEntryIsKept(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	full := storagetest.Entry(2, 1<<60)
	full.Type = raft.LogConfiguration
	full.Data = append(full.Data, 0, 0xff)
	want := []*raft.Log{{Index: 1}, full, {Index: 3, Type: raft.LogBarrier}}
	require.NoError(t, l.Logs().StoreLogs(want))
	reopened(t, files, l, func(l *Log) { holds(t, l, want...) })
}

func TestEntriesAreDeletedFromEitherEnd(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := openSized(t, files, smallSegment)
	require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(1, 20, 1)))
	require.NoError(t, l.Logs().DeleteRange(16, 20))
	holds(t, l, storagetest.Entries(1, 15, 1)...)
	require.NoError(t, l.Logs().DeleteRange(5, 1), "nothing")
	require.NoError(t, l.Logs().DeleteRange(16, 30), "nothing")
	require.Error(t, l.Logs().DeleteRange(5, 6), "the middle")
	l = reopened(t, files, l, func(l *Log) { holds(t, l, storagetest.Entries(1, 15, 1)...) })
	snapshot(t, l, 9, 1)
	require.NoError(t, l.Logs().DeleteRange(1, 6))
	require.NoError(t, l.Logs().DeleteRange(14, 100))
	holds(t, l, storagetest.Entries(7, 13, 1)...)
	settle(t, l)
	holds(t, l, storagetest.Entries(7, 13, 1)...)
	require.NoError(t, l.Logs().DeleteRange(0, 8), "lower indexes are gone already")
	holds(t, l, storagetest.Entries(9, 13, 1)...)
	finish(t, l)

	// Compacted entries come back if their segment is still there.
	l = openSized(t, files, smallSegment)
	holds(t, l, storagetest.Entries(1, 13, 1)...)
	finish(t, l)
}

// Without trailing entries a compaction removes the whole log. Entries in the remaining segment that were
// compacted earlier must not come back below the gap.
func TestWhollyCompactedLogContinues(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := openSized(t, files, smallSegment)
	keep(t, l, storagetest.Entries(1, 10, 1)...)
	snapshot(t, l, 10, 1)
	require.NoError(t, l.Logs().DeleteRange(1, 5))
	require.NoError(t, l.Logs().DeleteRange(6, 10))
	l = reopened(t, files, l, func(l *Log) { holds(t, l) })
	keep(t, l, storagetest.Entries(11, 12, 1)...)
	l = reopened(t, files, l, func(l *Log) { holds(t, l, storagetest.Entries(11, 12, 1)...) })
	finish(t, l)
}

func TestLogCompactedInTwoStepsContinues(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := openSized(t, files, smallSegment)
	keep(t, l, storagetest.Entries(1, 10, 1)...)
	snapshot(t, l, 10, 1)
	require.NoError(t, l.Logs().DeleteRange(1, 5))
	require.NoError(t, l.Logs().DeleteRange(6, 10))
	keep(t, l, storagetest.Entries(11, 12, 1)...)
	l = reopened(t, files, l, func(l *Log) { holds(t, l, storagetest.Entries(11, 12, 1)...) })
	finish(t, l)
}

func TestMemoryOfDurableEntriesIsBounded(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	const size = 1 << 20
	var want []*raft.Log
	for i := range uint64(24) {
		want = append(want, sized(i+1, size))
		keep(t, l, want[i])
		require.LessOrEqual(t, l.store.held, int64(cacheBytes))
	}
	require.Equal(t, cacheBytes/(size+entryOverhead), inMemory(l))
	holds(t, l, want...)
	require.Greater(t, len(names(t, files, segmentDir, segmentSuffix)), 1)
	keep(t, l, sized(25, cacheBytes))
	require.Zero(t, inMemory(l))
	want = append(want, sized(25, cacheBytes))
	holds(t, l, want...)
	finish(t, l)
}

func TestSegmentsRoll(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := openSized(t, files, smallSegment)
	var want []*raft.Log
	for i, size := range []int{10, smallSegment - 100, 10, 3 * smallSegment, 0, smallSegment, allocateStep + 5, 1} {
		want = append(want, sized(uint64(i+1), size))
		keep(t, l, want[i])
	}
	l = reopened(t, files, l, func(l *Log) { holds(t, l, want...) })
	require.Greater(t, len(names(t, files, segmentDir, segmentSuffix)), 4)
	finish(t, l)
}

func TestCompactionRemovesTheOldestSegments(t *testing.T) {
	disk := vfs.NewMemory()
	files := disk.Mount()
	l := openSized(t, files, smallSegment)
	var want []*raft.Log
	for i := range uint64(40) {
		want = append(want, sized(i+1, smallSegment/4))
		keep(t, l, want[i])
	}
	before := names(t, files, segmentDir, segmentSuffix)
	require.Greater(t, len(before), 10)
	snapshot(t, l, 38, 1)
	require.NoError(t, l.Logs().DeleteRange(1, 20))
	settle(t, l)
	finish(t, l)
	after := names(t, files, segmentDir, segmentSuffix)
	require.Less(t, len(after), len(before)*2/3)
	require.Equal(t, before[len(before)-len(after):], after, "oldest first")
	l = openSized(t, files, smallSegment)
	got := all(t, l)
	require.LessOrEqual(t, got[0].Index, uint64(21))
	require.Equal(t, want[got[0].Index-1:], got)

	require.NoError(t, l.Logs().DeleteRange(got[0].Index, 40))
	holds(t, l)
	settle(t, l)
	finish(t, l)
	l = openSized(t, files, smallSegment)
	require.EqualValues(t, 38, l.Durable())
	holds(t, l)
	finish(t, l)
}

// The test applies raft's operations to the log in random order, and compares the log with a slice.
func TestLogAgreesWithModel(t *testing.T) {
	r := random(t)
	disk := vfs.NewMemory()
	files := disk.Mount()
	l := openSized(t, files, smallSegment)
	m := &model{r: r}
	for step := range often(4000) {
		m.step(t, l, uint64(step/10+1))
		switch {
		case r.IntN(200) == 0:
			finish(t, l)
			l = openSized(t, files, smallSegment)
			// Compacted entries may be back.
			got := all(t, l)
			if len(m.logs) > 0 {
				require.NotEmpty(t, got)
				require.LessOrEqual(t, got[0].Index, m.logs[0].Index)
				require.Equal(t, m.logs, got[m.logs[0].Index-got[0].Index:])
				m.logs = got
			} else {
				require.LessOrEqual(t, span(got)[1], m.snapshot)
				m.logs = got
			}
		case r.IntN(20) == 0:
			holds(t, l, m.logs...)
			require.EqualValues(t, len(m.logs), l.Tail(1<<40, 1<<40))
		case r.IntN(10) == 0:
			settle(t, l)
		case len(m.logs) > 0:
			w := m.logs[r.IntN(len(m.logs))]
			require.Equal(t, w, get(t, l, w.Index))
		}
	}
	holds(t, l, m.logs...)
	finish(t, l)
}

// A model is a log in a slice, and the index of the newest snapshot.
type model struct {
	r        *rand.Rand
	logs     []*raft.Log
	snapshot uint64
}

func (m *model) last() uint64 {
	if len(m.logs) == 0 {
		return m.snapshot
	}
	return max(m.snapshot, m.logs[len(m.logs)-1].Index)
}

func (m *model) step(t *testing.T, l *Log, term uint64) {
	t.Helper()
	r := m.r
	switch r.IntN(8) {
	case 0: // a snapshot of durable entries, and compaction
		if len(m.logs) == 0 {
			break
		}
		settle(t, l)
		at := m.logs[r.IntN(len(m.logs))]
		if at.Index <= m.snapshot {
			break
		}
		snapshot(t, l, at.Index, at.Term)
		m.snapshot = at.Index
		kept := r.IntN(10)
		if n := int(at.Index-m.logs[0].Index) + 1 - kept; n > 0 {
			require.NoError(t, l.Logs().DeleteRange(m.logs[0].Index, m.logs[n-1].Index))
			if kept == 0 && n < len(m.logs) {
				n-- // the snapshot's last entry stays while others follow it
			}
			m.logs = m.logs[n:]
		}
		return
	case 1: // in conflict with the leader's entries
		n := 0
		for n < len(m.logs) && m.logs[n].Index <= m.snapshot {
			n++
		}
		if n < len(m.logs) {
			n += r.IntN(len(m.logs) - n)
			require.NoError(t, l.Logs().DeleteRange(m.logs[n].Index, m.last()))
			m.logs = slices.Clone(m.logs[:n])
		}
	case 2: // a snapshot from the leader
		if r.IntN(5) == 0 {
			m.snapshot = m.last() + 1 + uint64(r.IntN(20))
			snapshot(t, l, m.snapshot, term)
			m.logs = nil
			next := storagetest.Entries(m.snapshot+1, m.snapshot+2, term)
			require.NoError(t, l.Logs().StoreLogs(next))
			m.logs = append(m.logs, next...)
			return
		}
	}
	next := m.last() + 1
	batch := storagetest.Entries(next, next+uint64(r.IntN(8)), term)
	if r.IntN(30) == 0 {
		large := sized(batch[len(batch)-1].Index+1, r.IntN(2*smallSegment))
		large.Term = term // terms never decrease
		batch = append(batch, large)
	}
	require.NoError(t, l.Logs().StoreLogs(batch))
	m.logs = append(m.logs, batch...)
}
