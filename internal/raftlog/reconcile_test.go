// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Without the entry at the snapshot's end nothing shows whether the log continues the snapshot.
func TestLastEntryOfSnapshotStays(t *testing.T) {
	l := open(t, vfs.NewMemory().Mount())
	keep(t, l, storagetest.Entries(1, 9, 1)...)
	snapshot(t, l, 5, 1)
	require.NoError(t, l.Logs().DeleteRange(1, 5))
	holds(t, l, storagetest.Entries(5, 9, 1)...)
	require.NoError(t, l.Logs().DeleteRange(5, 5))
	holds(t, l, storagetest.Entries(5, 9, 1)...)
	snapshot(t, l, 9, 1)
	require.NoError(t, l.Logs().DeleteRange(5, 9))
	holds(t, l)
	require.EqualValues(t, 9, l.Durable())
	keep(t, l, storagetest.Entries(10, 12, 1)...)
	holds(t, l, storagetest.Entries(10, 12, 1)...)
	finish(t, l)
}

func TestAstray(t *testing.T) {
	for name, c := range map[string]struct {
		index, term uint64 // of the snapshot
		astray      bool
	}{
		"no snapshot":                 {0, 0, false},
		"its entry":                   {5, 1, false},
		"its last entry":              {9, 1, false},
		"beyond its end":              {10, 2, false},
		"another entry":               {5, 2, true},
		"another entry, its last":     {9, 2, true},
		"another entry, of long ago":  {5, 0, true},
		"another entry, of the first": {1, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, compacted := range []bool{false, true} {
				files := vfs.NewMemory().Mount()
				l := openSized(t, files, tinySegment)
				keep(t, l, storagetest.Entries(1, 9, 1)...)
				if c.index > 0 {
					snapshot(t, l, c.index, c.term)
				}
				want := storagetest.Entries(1, 9, 1)
				if compacted && c.index > 0 && c.index < 9 {
					require.NoError(t, l.Logs().DeleteRange(1, c.index))
					want = want[c.index-1:]
				}
				require.Equal(t, c.astray, l.Astray())
				holds(t, l, want...)
				require.NoError(t, l.Realign())
				require.False(t, l.Astray())
				if c.astray {
					want = nil
				}
				holds(t, l, want...)
				require.EqualValues(t, max(c.index, span(want)[1]), l.Durable())
				next := l.Durable() + 1
				keep(t, l, storagetest.Entry(next, 3))
				finish(t, l)
				l = openSized(t, files, tinySegment)
				require.Equal(t, next, span(all(t, l))[1], "the same on the disk")
				finish(t, l)
			}
		})
	}
}

// A crash may come before raft is restarted. Then Open drops the log.
func TestOpenDropsAstrayLog(t *testing.T) {
	disk := vfs.NewForgetful()
	l := openSized(t, disk.Mount(), tinySegment)
	for i := uint64(1); i <= 9; i++ {
		big := sized(i, tinySegment)
		keep(t, l, big) // each in a segment of its own
	}
	snapshot(t, l, 5, 2)
	require.NoError(t, l.Logs().DeleteRange(1, 5))
	settle(t, l)
	disk.Crash(nil)
	l = openSized(t, disk.Mount(), tinySegment)
	holds(t, l)
	require.EqualValues(t, 5, l.Durable())
	finish(t, l)
}
