// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A span is a part of a file.
type span struct{ from, to int64 }

// A watchedFile notes its writes since the last look at them.
type watchedFile struct {
	vfs.File
	writes, flushes []span
}

func (f *watchedFile) WriteAt(b []byte, at int64) (int, error) {
	f.writes = append(f.writes, span{at, at + int64(len(b))})
	return f.File.WriteAt(b, at)
}

func (f *watchedFile) Flush(at, n int64) { f.flushes = append(f.flushes, span{at, at + n}) }

// look returns the notes since the last look.
func (f *watchedFile) look() (writes, flushes []span) {
	writes, flushes = f.writes, f.flushes
	f.writes, f.flushes = nil, nil
	return writes, flushes
}

// watch opens a log with one batch of a small entry, and watches its segment.
func watch(t *testing.T, files vfs.FS, size int64) (*store, *watchedFile) {
	t.Helper()
	s, _ := open(t, files, size)
	add(t, s, sized(1, 10))
	f := &watchedFile{File: s.files[0].file}
	s.files[0].file = f
	s.Extend(storage.Extent{})
	return s, f
}

// Without the zeros, each sync of a new batch would also write a note of the file system.
func TestBatchesOverwriteZeros(t *testing.T) {
	for _, size := range []int{10, 300, 20 << 10, 100 << 10, zerosBatch - 1<<10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s, f := watch(t, vfs.NewMemory().Mount(), 0)
			g := s.files[0]
			add(t, s, sized(2, size)) // a batch of another size than the one before it
			s.Extend(storage.Extent{})
			f.look()
			total := int64(0)
			for index := uint64(3); g.end+2*s.size <= s.limit && index < 5000; index++ {
				zeros := g.zeros
				add(t, s, sized(index, size))
				writes, flushes := f.look()
				require.LessOrEqual(t, g.end, zeros, "batch %d", index)
				require.Equal(t, []span{{g.end - s.size, g.end}}, merged(writes), "a batch does not wait for zeros")
				require.Empty(t, flushes)
				s.Extend(storage.Extent{})
				writes, flushes = f.look()
				if s.size < longSync {
					require.Empty(t, flushes)
				} else {
					require.Equal(t, writes, flushes)
				}
				for _, w := range writes {
					require.Equal(t, span{zeros, g.zeros}, w)
					total += w.to - w.from
				}
				require.LessOrEqual(t, g.zeros, min(g.end+2*zerosMost, s.limit))
				require.LessOrEqual(t, g.zeros, g.allocated)
			}
			require.Positive(t, total)
			require.NoError(t, s.Close())
			require.Len(t, s.files, 1)
		})
	}
}

// merged combines spans that follow each other.
func merged(spans []span) (all []span) {
	for _, s := range spans {
		if n := len(all); n > 0 && all[n-1].to == s.from {
			all[n-1].to = s.to
			continue
		}
		all = append(all, s)
	}
	return all
}

func TestLargestBatchesNeedNoZeros(t *testing.T) {
	s, f := watch(t, vfs.NewMemory().Mount(), 0)
	f.look()
	for index := uint64(2); index < 10; index++ {
		add(t, s, sized(index, zerosBatch))
		s.Extend(storage.Extent{})
	}
	writes, flushes := f.look()
	require.Len(t, merged(writes), 1)
	require.Empty(t, flushes)
	require.NoError(t, s.Close())
}

// A node that writes little needs little space.
func TestZerosNeedLittleSpace(t *testing.T) {
	files := vfs.NewMemory().Mount()
	s, _ := open(t, files, 0)
	for index := uint64(1); index <= 1000; index++ {
		add(t, s, sized(index, 300))
		s.Extend(storage.Extent{})
		size, err := s.files[0].file.Size()
		require.NoError(t, err)
		require.EqualValues(t, allocateStep, size)
	}
	for index := uint64(1001); index <= 1010; index++ {
		add(t, s, sized(index, 100<<10))
		s.Extend(storage.Extent{})
		require.Less(t, s.files[0].allocated, s.files[0].end+zerosMost+allocateStep)
	}
	names, err := files.ReadDir(s.dir)
	require.NoError(t, err)
	require.Equal(t, []string{segmentName(1)}, names)
	require.NoError(t, s.Close())
}

// The batch is durable before there are zeros behind it. The log goes on without them.
func TestFullDiskNeedsNoZeros(t *testing.T) {
	disk := vfs.NewMemory()
	s, f := watch(t, disk.Mount(), 0)
	g := s.files[0]
	add(t, s, sized(2, 200<<10))
	disk.Fill(true)
	index := uint64(3)
	for ; g.end+s.size <= allocateStep; index++ {
		s.Extend(storage.Extent{})
		add(t, s, sized(index, 200<<10))
	}
	s.Extend(storage.Extent{})
	require.EqualValues(t, allocateStep, g.allocated)
	_, err := s.Write([]storage.Change{{Kind: storage.Append, Entries: nil}}, 7)
	require.NoError(t, err, "there is still space for a small batch")
	disk.Fill(false)
	f.look()
	add(t, s, sized(index, 200<<10))
	s.Extend(storage.Extent{})
	_, flushes := f.look()
	require.Len(t, flushes, 1, "the disk has space again")
	require.NoError(t, s.Close())
	s, found := open(t, disk.Mount(), 0)
	require.Equal(t, index, found.Last)
	require.NoError(t, s.Close())
}

// On some file systems, a write may fail in allocated space. Then the batches of the segment get all that is left.
func TestFailedZerosAreNotRepeated(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EIO} {
		files := vfs.NewMemory().Mount()
		s, f := watch(t, files, 1<<20)
		add(t, s, sized(2, 50<<10))
		s.files[0].file = &failingFile{f, 0, err}
		s.Extend(storage.Extent{})
		s.files[0].file = f
		f.look()
		index := uint64(3)
		for ; len(s.files) == 1; index++ {
			add(t, s, sized(index, 50<<10))
			s.Extend(storage.Extent{})
		}
		writes, flushes := f.look()
		require.Len(t, merged(writes), 1, "batches alone")
		require.Empty(t, flushes)
		require.Positive(t, s.files[1].zeros, "the next segment has zeros")
		require.NoError(t, s.Close())
		s, found := open(t, files, 1<<20)
		require.Equal(t, index-1, found.Last)
		require.NoError(t, s.Close())
	}
}

// A batch that cannot be written is cut off, and the zeros behind it with it.
func TestFailedWriteRemovesZeros(t *testing.T) {
	s, f := watch(t, vfs.NewMemory().Mount(), 0)
	g := s.files[0]
	require.Positive(t, g.zeros)
	g.file = &failingFile{f, 0, syscall.ENOSPC}
	_, err := s.Write([]storage.Change{{Kind: storage.Append, Entries: []*raft.Log{sized(2, 300)}}}, 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	g.file = f
	f.look()
	add(t, s, sized(2, 300))
	s.Extend(storage.Extent{})
	writes, _ := f.look()
	require.Equal(t, []span{{g.end - s.size, g.end + zerosLeast}}, merged(writes))
	require.NoError(t, s.Close())
}

// A crash may leave any part of the zeros, and of a batch that overwrites them.
func TestCrashAmongZerosKeepsBatches(t *testing.T) {
	const limit = 256 << 10
	sizes := []int{300, 20 << 10, 70 << 10, 20 << 10, 300, 100 << 10, 30 << 10, 300, 30 << 10, 30 << 10}
	r := random(t)
	prepared := 0
	run := func(disk *vfs.Memory) (acked uint64, whole bool) {
		s, err := Format{SegmentSize: limit}.Open(disk.Mount(), home)
		if err != nil {
			return 0, false
		}
		defer s.Close()
		if _, err := s.Load(); err != nil {
			return 0, false
		}
		for i, size := range sizes {
			index := uint64(i + 1)
			if _, err := s.Write([]storage.Change{{Kind: storage.Append, Entries: []*raft.Log{sized(index, size)}}}, 0); err != nil {
				return acked, false
			}
			acked = index
			s.Extend(storage.Extent{Index: index, Term: 1})
			files := s.(*store).files
			if g := files[len(files)-1]; g.zeros > g.end {
				prepared++
			}
		}
		return acked, true
	}
	for steps, whole := 0, false; !whole; steps++ {
		for _, source := range []*rand.Rand{nil, r, r} {
			disk := vfs.NewForgetful()
			require.NoError(t, disk.Mount().MkdirAll(filepath.Join(home, segmentDir)))
			disk.FreezeAfter(steps)
			var acked uint64
			acked, whole = run(disk)
			disk.Crash(source)
			s, found := open(t, disk.Mount(), limit)
			require.GreaterOrEqual(t, found.Last, acked, "after %d changes", steps)
			require.LessOrEqual(t, found.Last, acked+1)
			for index := found.Last + 1; index <= found.Last+3; index++ {
				add(t, s, sized(index, 40<<10))
				s.Extend(storage.Extent{Index: index, Term: 1})
			}
			require.NoError(t, s.Close())
			s, again := open(t, disk.Mount(), limit)
			require.Equal(t, found.Last+3, again.Last)
			require.NoError(t, s.Close())
		}
	}
	require.Greater(t, prepared, 100)
}
