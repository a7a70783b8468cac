// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"math/rand/v2"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestEntriesAreAppendedAndRead(t *testing.T) {
	inBoth(t, func(t *testing.T, l *Log) {
		logs := l.Logs()
		holds(t, logs)
		require.NoError(t, logs.StoreLog(entry(1, 1)))
		holds(t, logs, entry(1, 1))
		require.NoError(t, logs.StoreLogs(entries(2, 9, 2)))
		require.NoError(t, logs.StoreLogs(nil))
		holds(t, logs, append(entries(1, 1, 1), entries(2, 9, 2)...)...)
	})
}

func TestALogMayBeginAnywhere(t *testing.T) {
	inBoth(t, func(t *testing.T, l *Log) {
		require.NoError(t, l.Logs().StoreLogs(entries(100, 105, 1)))
		holds(t, l.Logs(), entries(100, 105, 1)...)
	})
}

func TestEntriesAreDeletedFromEitherEnd(t *testing.T) {
	inBoth(t, func(t *testing.T, l *Log) {
		logs := l.Logs()
		require.NoError(t, logs.StoreLogs(entries(1, 20, 1)))
		require.NoError(t, logs.DeleteRange(1, 5))
		holds(t, logs, entries(6, 20, 1)...)
		require.NoError(t, logs.DeleteRange(1, 6))
		holds(t, logs, entries(7, 20, 1)...)
		require.NoError(t, logs.DeleteRange(18, 20))
		holds(t, logs, entries(7, 17, 1)...)
		require.NoError(t, logs.DeleteRange(17, 30))
		holds(t, logs, entries(7, 16, 1)...)
		for _, none := range [][2]uint64{{1, 6}, {17, 30}, {12, 11}} {
			require.NoError(t, logs.DeleteRange(none[0], none[1]))
			holds(t, logs, entries(7, 16, 1)...)
		}
		require.NoError(t, logs.DeleteRange(0, 100))
		holds(t, logs)
		require.NoError(t, logs.StoreLogs(entries(7, 8, 3)))
		holds(t, logs, entries(7, 8, 3)...)
	})
}

func TestALogInMemoryHasNoHoles(t *testing.T) {
	logs := OpenMemory().Logs()
	require.NoError(t, logs.StoreLogs(entries(1, 20, 1)))
	require.Error(t, logs.DeleteRange(5, 15))
	holds(t, logs, entries(1, 20, 1)...)
}

func TestAConflictingTailIsReplaced(t *testing.T) {
	inBoth(t, func(t *testing.T, l *Log) {
		require.NoError(t, l.Logs().StoreLogs(entries(1, 20, 1)))
		require.NoError(t, l.Logs().DeleteRange(15, 20))
		require.NoError(t, l.Logs().StoreLogs(entries(15, 17, 2)))
		holds(t, l.Logs(), append(entries(1, 14, 1), entries(15, 17, 2)...)...)
		require.NoError(t, l.Logs().StoreLogs(entries(18, 22, 3)))
		holds(t, l.Logs(), append(append(entries(1, 14, 1), entries(15, 17, 2)...), entries(18, 22, 3)...)...)
	})
}

// After a snapshot came from the leader, raft goes on behind it and leaves a gap.
func TestAGapInMemoryBeginsTheLogAnew(t *testing.T) {
	l := OpenMemory()
	require.NoError(t, l.Logs().StoreLogs(entries(1, 20, 1)))
	require.NoError(t, l.Logs().StoreLogs(entries(100, 102, 2)))
	holds(t, l.Logs(), entries(100, 102, 2)...)
	require.NoError(t, l.Logs().StoreLogs(append(entries(103, 104, 2), entries(200, 201, 3)...)))
	holds(t, l.Logs(), entries(200, 201, 3)...)
}

func TestAGapInADirectoryLastsUntilTheOldIsDeleted(t *testing.T) {
	l := open(t, t.TempDir())
	require.NoError(t, l.Logs().StoreLogs(entries(1, 20, 1)))
	require.NoError(t, l.Logs().StoreLogs(entries(100, 102, 2)))
	for _, w := range append(entries(1, 20, 1), entries(100, 102, 2)...) {
		got, err := read(l.Logs(), w.Index)
		require.NoError(t, err)
		require.Equal(t, w, got)
	}
	_, err := read(l.Logs(), 50)
	require.ErrorIs(t, err, raft.ErrLogNotFound)
	require.NoError(t, l.Logs().DeleteRange(1, 99))
	holds(t, l.Logs(), entries(100, 102, 2)...)
}

func TestSizeCountsSinceTheLastSnapshot(t *testing.T) {
	inBoth(t, func(t *testing.T, l *Log) {
		size := func(wantEntries uint64, wantBytes int64) {
			t.Helper()
			n, bytes := l.Size()
			require.Equal(t, wantEntries, n)
			require.Equal(t, wantBytes, bytes)
		}
		size(0, 0)
		require.NoError(t, l.Logs().StoreLogs([]*raft.Log{sized(1, 100), sized(2, 0)}))
		size(2, 100+2*entryOverhead)
		require.NoError(t, l.Logs().StoreLog(sized(3, 1000)))
		size(3, 1100+3*entryOverhead)
		require.NoError(t, l.Logs().DeleteRange(1, 2))
		size(3, 1100+3*entryOverhead)
		_, err := l.Snapshots().Create(1, 3, 1, raft.Configuration{}, 0, nil)
		require.NoError(t, err)
		size(0, 0)
		require.NoError(t, l.Logs().StoreLog(sized(4, 10)))
		size(1, 10+entryOverhead)
	})
}

func TestTailCountsWhatFits(t *testing.T) {
	inBoth(t, func(t *testing.T, l *Log) {
		const each = 100 + entryOverhead
		require.Zero(t, l.Tail(1<<40))
		for i := range uint64(10) {
			require.NoError(t, l.Logs().StoreLog(sized(i+1, 100)))
		}
		for bytes, want := range map[int64]uint64{0: 0, each - 1: 0, each: 1, 2*each - 1: 1, 5 * each: 5, 10 * each: 10, 1 << 40: 10} {
			require.Equal(t, want, l.Tail(bytes), "%d bytes", bytes)
		}
		require.NoError(t, l.Logs().StoreLog(sized(11, 1000)))
		require.Zero(t, l.Tail(each), "the newest does not fit")
		require.EqualValues(t, 3, l.Tail(1000+entryOverhead+2*each))
		require.NoError(t, l.Logs().DeleteRange(11, 11))
		require.EqualValues(t, 2, l.Tail(2*each))
		require.NoError(t, l.Logs().DeleteRange(1, 6))
		require.EqualValues(t, 4, l.Tail(1<<40))
		require.NoError(t, l.Logs().StoreLog(sized(50, 100)))
		require.EqualValues(t, 1, l.Tail(1<<40), "there is a gap before the newest")
	})
}

// checkCache verifies what a sizedLog remembers of its newest entries.
func checkCache(t testing.TB, l *sizedLog) {
	t.Helper()
	require.LessOrEqual(t, len(l.cached), len(l.sizes))
	begin := len(l.sizes) - len(l.cached)
	held := int64(0)
	for i, log := range l.cached {
		require.Equal(t, l.first+uint64(begin+i), log.Index)
		require.EqualValues(t, len(log.Data)+entryOverhead, l.sizes[begin+i])
		held += int64(l.sizes[begin+i])
	}
	require.Equal(t, held, l.held)
	require.LessOrEqual(t, held, int64(cacheBytes))
}

func TestTheCacheIsBounded(t *testing.T) {
	inBoth(t, func(t *testing.T, l *Log) {
		const size = 2 << 20
		var want []*raft.Log
		for i := range uint64(10) {
			want = append(want, sized(i+1, size))
			require.NoError(t, l.Logs().StoreLogs(want[i:]))
			checkCache(t, l.logs)
		}
		require.Len(t, l.logs.cached, cacheBytes/(size+entryOverhead))
		same(t, l.Logs(), want)
	})
}

func TestAnEntryLargerThanTheCacheLeavesItEmpty(t *testing.T) {
	l := OpenMemory()
	want := []*raft.Log{sized(1, 1), sized(2, cacheBytes)}
	require.NoError(t, l.Logs().StoreLogs(want))
	checkCache(t, l.logs)
	require.Empty(t, l.logs.cached)
	want = append(want, sized(3, 1))
	require.NoError(t, l.Logs().StoreLogs(want[2:]))
	checkCache(t, l.logs)
	require.Len(t, l.logs.cached, 1)
	same(t, l.Logs(), want)
}

// same checks that a store has these entries; their data may be large.
func same(t *testing.T, store raft.LogStore, want []*raft.Log) {
	t.Helper()
	for _, w := range want {
		got, err := read(store, w.Index)
		require.NoError(t, err)
		require.Equal(t, w.Index, got.Index)
		require.True(t, string(w.Data) == string(got.Data), "entry %d", w.Index)
	}
}

// A model of a log does what raft does to one, at random, and compares.
func TestALogAgreesWithAModel(t *testing.T) {
	r := random(t)
	inBoth(t, func(t *testing.T, l *Log) {
		var model []*raft.Log
		rounds := 150 // to write to a disk takes time
		if _, ok := l.closer.(*memoryLog); ok {
			rounds = 3000
		}
		for term := range uint64(rounds) {
			model = step(t, r, l, model, term)
			checkCache(t, l.logs)
			if term%16 == 0 {
				holds(t, l.Logs(), model...)
			}
		}
		holds(t, l.Logs(), model...)
	})
}

func step(t *testing.T, r *rand.Rand, l *Log, model []*raft.Log, term uint64) []*raft.Log {
	next := uint64(1)
	if len(model) > 0 {
		next = model[len(model)-1].Index + 1
	}
	n := r.IntN(len(model) + 1)
	switch r.IntN(6) {
	case 0:
		if n > 0 { // compacted after a snapshot
			require.NoError(t, l.Logs().DeleteRange(model[0].Index, model[n-1].Index))
		}
		return model[n:]
	case 1:
		if n < len(model) { // in conflict with the leader's
			require.NoError(t, l.Logs().DeleteRange(model[n].Index, next-1))
		}
		return model[:n:n]
	case 2:
		if r.IntN(8) == 0 && len(model) > 0 { // a snapshot came, and the log before it was deleted
			require.NoError(t, l.Logs().DeleteRange(model[0].Index, next-1))
			model, next = nil, next+uint64(r.IntN(50))
		}
	}
	batch := entries(next, next+uint64(r.IntN(8)), term)
	require.NoError(t, l.Logs().StoreLogs(batch))
	return append(model, batch...)
}
