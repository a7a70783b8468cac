// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestReplayAppliesEntriesInOrder(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	keep(t, l, storagetest.Entries(1, 3000, 1)...)
	finish(t, l)

	l = open(t, files)
	next := uint64(5)
	require.NoError(t, l.Replay(5, 2500, func(batch []*raft.Log) {
		require.LessOrEqual(t, len(batch), replayEntries)
		for _, e := range batch {
			require.Equal(t, storagetest.Entries(next, next, 1)[0].Data, e.Data)
			require.Equal(t, next, e.Index)
			next++
		}
	}))
	require.EqualValues(t, 2501, next)
	require.Len(t, l.store.tail, 2996, "the entries after them stay in memory, too")

	for _, index := range []uint64{1, 4, 5, 3000} {
		var e raft.Log
		require.NoError(t, l.Logs().GetLog(index, &e))
		require.Equal(t, index, e.Index)
	}
	keep(t, l, storagetest.Entries(3001, 3001, 1)...)
	require.Len(t, l.store.tail, 2997)
	require.NoError(t, l.Replay(3002, 3001, func([]*raft.Log) { t.Error("there is nothing to apply") }))
	require.Error(t, l.Replay(3002, 3002, func([]*raft.Log) { t.Error("there is no such entry") }))
	finish(t, l)
}

func TestReplayKeepsNewestEntries(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	const size = 1 << 20
	for i := range uint64(40) {
		keep(t, l, sized(i+1, size))
	}
	finish(t, l)

	l = open(t, files)
	applied := 0
	require.NoError(t, l.Replay(1, 40, func(batch []*raft.Log) {
		require.LessOrEqual(t, len(batch), replayBytes/size)
		applied += len(batch)
	}))
	require.Equal(t, 40, applied)
	require.Len(t, l.store.tail, cacheBytes/(size+entryOverhead))
	require.LessOrEqual(t, l.store.held, int64(cacheBytes))
	finish(t, l)
}
