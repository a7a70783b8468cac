// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestTailCountsEntriesThatFit(t *testing.T) {
	l := open(t, vfs.NewMemory().Mount())
	const each = 1000 + entryOverhead
	require.Zero(t, l.Tail(1<<40))
	for i := range uint64(10) {
		require.NoError(t, l.Logs().StoreLog(sized(i+1, 1000)))
	}
	check := func() {
		t.Helper()
		for bytes, want := range map[int64]uint64{0: 0, each - 1: 0, each: 1, 2*each - 1: 1, 5 * each: 5, 10 * each: 10, 1 << 40: 10} {
			require.Equal(t, want, l.Tail(bytes), "%d bytes", bytes)
		}
	}
	check()
	settle(t, l)
	check()
	keep(t, l, sized(11, 10_000))
	require.Zero(t, l.Tail(each), "the newest entry does not fit")
	require.EqualValues(t, 3, l.Tail(10_000+entryOverhead+2*each))
	require.NoError(t, l.Logs().DeleteRange(11, 11))
	require.EqualValues(t, 2, l.Tail(2*each))
	require.NoError(t, l.Logs().DeleteRange(1, 6))
	require.EqualValues(t, 4, l.Tail(1<<40))
	snapshot(t, l, 49, 1)
	require.NoError(t, l.Logs().StoreLog(sized(50, 100)))
	require.EqualValues(t, 1, l.Tail(1<<40), "there is a gap before the newest entry")
	require.NoError(t, l.Logs().DeleteRange(50, 50))
	require.Zero(t, l.Tail(1<<40))
	finish(t, l)
}

func TestTailCountsEntriesOnDisk(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	keep(t, l, entries(1, 10, 1)...)
	finish(t, l)
	l = open(t, files)
	require.EqualValues(t, 10, l.Tail(1<<40))
	require.NoError(t, l.Logs().StoreLogs(entries(11, 15, 1)))
	require.EqualValues(t, 15, l.Tail(1<<40))
	require.NoError(t, l.Logs().DeleteRange(1, 3))
	require.EqualValues(t, 12, l.Tail(1<<40))
	require.NoError(t, l.Logs().DeleteRange(9, 15))
	require.EqualValues(t, 5, l.Tail(1<<40))
	finish(t, l)
}

func TestSizeCountsSinceLastSnapshot(t *testing.T) {
	l := open(t, vfs.NewMemory().Mount())
	size := func(entries uint64, bytes int64) {
		t.Helper()
		n, size := l.Size()
		require.Equal(t, entries, n)
		require.Equal(t, bytes, size)
	}
	size(0, 0)
	keep(t, l, sized(1, 100), sized(2, 200))
	size(2, 300+2*entryOverhead)
	snapshot(t, l, 2, 1)
	size(0, 0)
	keep(t, l, sized(3, 10))
	size(1, 10+entryOverhead)
	finish(t, l)
}
