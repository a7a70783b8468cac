// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Raft's main loop stores and truncates, its snapshot goroutine compacts, its follower goroutines read,
// and the transport waits: all at once, on the real file system.
func TestConcurrentUseByRaft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "if needed")
	l, err := openWith(vfs.OS{}, dir, false, smallSegment)
	require.NoError(t, err)
	require.NoError(t, l.Stable().SetUint64(keyTerm, 1))
	r := random(t)
	var last, compacted atomic.Uint64 // never truncated; possibly compacted
	stop := make(chan struct{})
	var all sync.WaitGroup
	loop := func(fn func()) {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					fn()
				}
			}
		})
	}
	loop(func() { // a follower
		low, high := compacted.Load(), last.Load()
		for i := low + 1; i <= high; i++ {
			var got raft.Log
			if err := l.Logs().GetLog(i, &got); err == nil {
				if got.Index != i || len(got.Data) == 0 {
					t.Errorf("entry %d is %d", i, got.Index)
				}
			} else if i > compacted.Load() {
				t.Errorf("entry %d: %v", i, err)
			}
		}
	})
	loop(func() { // a snapshot
		at := last.Load()
		if at < 30 || l.AwaitIndex(t.Context(), at) != nil {
			return
		}
		l.Applied(at)
		sink, err := l.Snapshots().Create(1, at, 1, configuration, 1, nil)
		if err == nil {
			_, err = sink.Write(body(t, "state"))
		}
		if err == nil {
			err = sink.Close()
		}
		if err != nil {
			t.Errorf("snapshot: %v", err)
		}
		first, _ := l.Logs().FirstIndex()
		compacted.Store(max(compacted.Load(), at-10))
		if err := l.Logs().DeleteRange(first, at-10); err != nil {
			t.Errorf("compaction: %v", err)
		}
	})
	loop(func() { // the transport
		if err := l.Await(t.Context(), l.Position()); err != nil {
			t.Errorf("await: %v", err)
		}
		if err := l.AwaitRoom(t.Context()); err != nil {
			t.Errorf("await: %v", err)
		}
		l.Durable()
		l.Tail(100, 1<<20)
		l.Growth()
		l.Condition()
	})
	next := uint64(1)
	for range often(1500) {
		n := 1 + r.Uint64N(4)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(next, next+n-1, 1)))
		last.Store(next + n - 1)
		next += n
		if r.IntN(10) == 0 { // a conflicting tail
			require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(next, next+5, 2)))
			require.NoError(t, l.Logs().DeleteRange(next, next+5))
		}
		if r.IntN(20) == 0 {
			require.NoError(t, l.Await(t.Context(), l.Position()))
		}
	}
	close(stop)
	all.Wait()
	settle(t, l)
	finish(t, l)
	for range 2 {
		l, err = openWith(vfs.OS{}, dir, false, smallSegment)
		require.NoError(t, err)
		first, err := l.Logs().FirstIndex()
		require.NoError(t, err)
		require.LessOrEqual(t, first, compacted.Load()+1)
		require.Equal(t, next-1, l.Durable())
		for i := first; i < next; i++ {
			require.Equal(t, storagetest.Entry(i, 1), get(t, l, i))
		}
		finish(t, l)
	}
	left, err := os.ReadDir(filepath.Join(dir, segmentDir))
	require.NoError(t, err)
	t.Logf("%d entries, %d segments are left", next-1, len(left))
	_, monotonic := l.Logs().(raft.MonotonicLogStore)
	require.False(t, monotonic, "the store itself handles the gap after a snapshot")
}
