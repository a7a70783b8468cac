// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"errors"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"weak"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

// A newer version may write records of kinds that this one does not know.
func TestUnknownRecordsAreSkipped(t *testing.T) {
	files := vfs.NewMemory().Mount()
	s, _ := open(t, files, 0)
	add(t, s, storagetest.Entries(1, 2, 1)...)
	require.NoError(t, s.Close())
	g := s.files[0]
	b := vfstest.Load(t, files, g.name)
	unknown := newBatch()
	unknown.number(99, 7)
	unknown.entry(storagetest.Entry(3, 1))
	unknown.number(1000, 1)
	copy(b[g.end:], sealed(unknown, place{g.salt, g.end}))
	vfstest.Save(t, files, g.name, b)
	s, _ = open(t, files, 0)
	holds(t, s, storagetest.Entries(1, 3, 1)...)
	add(t, s, storagetest.Entry(4, 1))
	require.NoError(t, s.Close())
	s, _ = open(t, files, 0)
	holds(t, s, storagetest.Entries(1, 4, 1)...)
	require.NoError(t, s.Close())
}

// The space of a removed file is free when nothing has the file open any more.
func TestRemovedSegmentIsClosed(t *testing.T) {
	s, _ := open(t, vfs.NewMemory().Mount(), smallSegment)
	var segments []weak.Pointer[segment]
	for i := range uint64(20) {
		add(t, s, sized(i+1, smallSegment))
		segments = append(segments, weak.Make(s.files[i]))
	}
	require.NoError(t, s.Compact(16))
	left := 15
	for try := 0; left > 0 && try < 20; try++ {
		runtime.GC()
		left = 0
		for _, g := range segments[:15] {
			if g.Value() != nil {
				left++
			}
		}
	}
	require.Zero(t, left)
	require.NotNil(t, segments[15].Value())
	require.NoError(t, s.Close())
}

// Readers of entries that are removed at the same time find the entry or nothing, and never another index.
func TestEntryDuringRemovalIsRightOrAbsent(t *testing.T) {
	s, _ := open(t, vfs.NewMemory().Mount(), smallSegment)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				index := 1 + i%60
				l, err := s.Entry(index)
				if err == nil && l.Index != index || err != nil && !errors.Is(err, raft.ErrLogNotFound) {
					t.Errorf("entry %d: %v, %v", index, l, err)
					return
				}
				s.Size(index)
			}
		})
	}
	for round := range uint64(often(200)) {
		_, err := s.Write([]storage.Change{
			{Kind: storage.Reset}, {Kind: storage.Append, Entries: storagetest.Entries(1, 60, round)},
		}, round)
		require.NoError(t, err)
		require.NoError(t, s.Compact(20))
		_, err = s.Write([]storage.Change{
			{Kind: storage.Truncate, Index: 30}, {Kind: storage.Append, Entries: storagetest.Entries(30, 50, round)},
		}, round)
		require.NoError(t, err)
	}
	close(stop)
	readers.Wait()
	require.NoError(t, s.Close())
}

// An entry is verified when it is read, whether this process has written it or has found it.
func TestDamagedEntryIsNotRead(t *testing.T) {
	files := vfs.NewMemory().Mount()
	s, _ := open(t, files, 4*largeData)
	all := append(storagetest.Entries(1, 3, 1), sized(4, largeData), storagetest.Entry(5, 1))
	add(t, s, all[:2]...)
	add(t, s, all[2:]...)
	for range 2 {
		holds(t, s, all...)
		for _, l := range all {
			r, _ := s.contents.at(l.Index)
			last := make([]byte, 1)
			_, err := r.segment.file.ReadAt(last, r.offset+int64(r.size)-1)
			require.NoError(t, err)
			_, err = r.segment.file.WriteAt([]byte{^last[0]}, r.offset+int64(r.size)-1)
			require.NoError(t, err)
			var corrupt *storage.CorruptError
			_, err = s.Entry(l.Index)
			require.ErrorAs(t, err, &corrupt, "entry %d", l.Index)
			_, err = r.segment.file.WriteAt(last, r.offset+int64(r.size)-1)
			require.NoError(t, err)
		}
		require.NoError(t, s.Close())
		s, _ = open(t, files, 4*largeData)
	}
	require.NoError(t, s.Close())
}

func TestLargeEntriesFillSegments(t *testing.T) {
	s, _ := open(t, vfs.NewMemory().Mount(), 3*allocateStep)
	for i := range uint64(5) {
		add(t, s, sized(1+i, allocateStep))
		g := s.files[len(s.files)-1]
		require.GreaterOrEqual(t, g.allocated, g.end)
		require.Len(t, s.files, int(1+i/2))
	}
	require.NoError(t, s.Close())
}

// A failingFile fails with err after some writes. It writes half of the data of the write that fails.
type failingFile struct {
	vfs.File
	left int
	err  error
}

func (f *failingFile) WriteAt(b []byte, at int64) (int, error) {
	if f.left == 0 {
		n, _ := f.File.WriteAt(b[:len(b)/2], at)
		return n, f.err
	}
	f.left--
	return f.File.WriteAt(b, at)
}

// Another batch takes the place of one that could not be written, whichever part of that one failed.
func TestFailedWriteLeavesNothing(t *testing.T) {
	const parts = 5 // of the batch: data, and the bytes around it
	for left := range parts + 1 {
		files := vfs.NewMemory().Mount()
		s, _ := open(t, files, 0)
		before := storagetest.Entries(1, 3, 1)
		add(t, s, before...)
		g := s.files[0]
		file := g.file
		g.file = &failingFile{file, left, syscall.ENOSPC}
		batch := []*raft.Log{sized(4, largeData), storagetest.Entry(5, 1), sized(6, largeData)}
		_, err := s.Write([]storage.Change{{Kind: storage.Append, Entries: batch}}, 0)
		g.file = file
		if left == parts {
			require.NoError(t, err)
			holds(t, s, append(before, batch...)...)
			continue
		}
		require.ErrorIs(t, err, syscall.ENOSPC, "write %d", left)
		require.Len(t, vfstest.Load(t, files, g.name), int(g.end))
		holds(t, s, before...)
		add(t, s, storagetest.Entry(4, 2))
		require.Len(t, vfstest.Load(t, files, g.name), int(g.allocated))
		require.NoError(t, s.Close())
		s, _ = open(t, files, 0)
		holds(t, s, append(before, storagetest.Entry(4, 2))...)
		require.NoError(t, s.Close())
	}
}

func TestEmptyWriteChangesNothing(t *testing.T) {
	disk := vfs.NewMemory()
	s, found := open(t, disk.Mount(), 0)
	require.Zero(t, found)
	before := disk.Changes()
	n, err := s.Write(nil, 0)
	require.NoError(t, err)
	require.Zero(t, n)
	s.Extend(storage.Extent{})
	s.Sync()
	require.Equal(t, before, disk.Changes())
	require.NoError(t, s.Close())
}
