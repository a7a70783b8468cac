// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestTailCountsEntriesThatFit(t *testing.T) {
	l := open(t, vfs.NewMemory().Mount())
	const each = 1000 + entryOverhead
	require.Zero(t, l.Tail(100, 1<<40))
	for i := range uint64(10) {
		require.NoError(t, l.Logs().StoreLog(sized(i+1, 1000)))
	}
	check := func() {
		t.Helper()
		for bytes, want := range map[int64]uint64{0: 0, each - 1: 0, each: 1, 2*each - 1: 1, 5 * each: 5, 10 * each: 10, 1 << 40: 10} {
			require.Equal(t, want, l.Tail(100, bytes), "%d bytes", bytes)
		}
	}
	check()
	settle(t, l)
	check()
	keep(t, l, sized(11, 10_000))
	require.Zero(t, l.Tail(100, each), "the newest entry does not fit")
	require.EqualValues(t, 3, l.Tail(100, 10_000+entryOverhead+2*each))
	require.NoError(t, l.Logs().DeleteRange(11, 11))
	require.EqualValues(t, 2, l.Tail(100, 2*each))
	require.NoError(t, l.Logs().DeleteRange(1, 6))
	require.EqualValues(t, 4, l.Tail(100, 1<<40))
	snapshot(t, l, 49, 1)
	require.NoError(t, l.Logs().StoreLog(sized(50, 100)))
	require.EqualValues(t, 1, l.Tail(100, 1<<40), "there is a gap before the newest entry")
	require.NoError(t, l.Logs().DeleteRange(50, 50))
	require.Zero(t, l.Tail(100, 1<<40))
	finish(t, l)
}

func TestTailCountsEntriesOnDisk(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	keep(t, l, storagetest.Entries(1, 10, 1)...)
	finish(t, l)
	l = open(t, files)
	require.EqualValues(t, 10, l.Tail(100, 1<<40))
	require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(11, 15, 1)))
	require.EqualValues(t, 15, l.Tail(100, 1<<40))
	require.NoError(t, l.Logs().DeleteRange(1, 3))
	require.EqualValues(t, 12, l.Tail(100, 1<<40))
	require.NoError(t, l.Logs().DeleteRange(9, 15))
	require.EqualValues(t, 5, l.Tail(100, 1<<40))
	finish(t, l)
}

func TestTailIsBounded(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	keep(t, l, storagetest.Entries(1, 10, 1)...)
	finish(t, l)
	l = open(t, files)
	require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(11, 15, 1)))
	for _, most := range []uint64{0, 3, 5, 12} {
		require.Equal(t, most, l.Tail(most, 1<<40))
	}
	finish(t, l)
}

func TestGrowthCountsSinceNewestSnapshot(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	check := func(index uint64, size int, bytes int64) {
		t.Helper()
		require.Equal(t, Growth{index, int64(size), bytes}, l.Growth())
	}
	state := len(body(t, "state"))
	check(0, 0, 0)
	keep(t, l, sized(1, 100), sized(2, 200))
	check(0, 0, 300+2*entryOverhead)
	sink := create(t, l, 2, 1, body(t, "state"))
	keep(t, l, sized(3, 10))
	require.NoError(t, sink.Close())
	check(2, state, 10+entryOverhead)
	keep(t, l, sized(4, 20))
	check(2, state, 30+2*entryOverhead)
	finish(t, l)

	l = open(t, files)
	require.Equal(t, l.disk.Size(3)+l.disk.Size(4), l.Growth().Bytes, "entries on the disk count")
	check(2, state, l.Growth().Bytes)
	require.NoError(t, l.Logs().DeleteRange(1, 4))
	check(2, state, 0)
	finish(t, l)
}
