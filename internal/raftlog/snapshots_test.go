// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

func TestSnapshotsAreWrittenAndRead(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	list, err := l.Snapshots().List()
	require.NoError(t, err)
	require.Empty(t, list)

	sink := create(t, l, 7, 3, body(t, "a", "b"))
	list, err = l.Snapshots().List()
	require.NoError(t, err)
	require.Empty(t, list, "the snapshot is not finished")
	require.Zero(t, l.Durable())
	require.NoError(t, sink.Close())
	require.NoError(t, sink.Close(), "raft closes it again")
	require.NoError(t, sink.Cancel(), "or cancels it")
	require.EqualValues(t, 7, l.Durable())

	for range 2 {
		list, err = l.Snapshots().List()
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, sink.ID(), list[0].ID)
		require.Equal(t, []uint64{7, 3, 2, 1}, []uint64{list[0].Index, list[0].Term, list[0].ConfigurationIndex, uint64(list[0].Version)})
		require.Equal(t, configuration, list[0].Configuration)
		require.EqualValues(t, len(body(t, "a", "b")), list[0].Size)
		got, err := records(t, l, sink.ID())
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, got)
		finish(t, l)
		l = open(t, files)
		require.EqualValues(t, 7, l.Durable())
	}
	_, _, err = l.Snapshots().Open("another")
	require.Error(t, err)
	finish(t, l)
}

func TestNewestSnapshotsAreKept(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	var ids []string
	for i, at := range [][2]uint64{{9, 1}, {10, 1}, {300, 2}, {301, 15}, {302, 16}} {
		ids = append(ids, snapshot(t, l, at[0], at[1]))
		list, err := l.Snapshots().List()
		require.NoError(t, err)
		require.Equal(t, ids[i], list[0].ID, "the newest first")
		require.Len(t, list, min(i+1, snapshotsKept))
		require.Equal(t, ids[max(0, i-1)], list[len(list)-1].ID)
	}
	require.Len(t, names(t, files, snapshotDir, ""), snapshotsKept)
	finish(t, l)
}

func TestCancelledSnapshotLeavesNothing(t *testing.T) {
	disk := vfs.NewForgetful()
	files := disk.Mount()
	l := open(t, files)
	sink := create(t, l, 7, 3, body(t, "a"))
	require.NoError(t, sink.Cancel())
	require.NoError(t, sink.Cancel())
	require.NoError(t, sink.Close())
	require.Empty(t, names(t, files, snapshotDir, ""))
	require.Zero(t, l.Durable())

	create(t, l, 8, 3, body(t, "a"))
	finish(t, l)
	require.Len(t, names(t, files, snapshotDir, partSuffix), 1)
	l = open(t, files)
	require.Empty(t, names(t, files, snapshotDir, ""), "Open removes the remains of a crash")
	finish(t, l)
}

func TestDamagedIncomingSnapshotIsRejected(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	kept := snapshot(t, l, 5, 1)
	whole := body(t, "a record", "another")
	refused := func(b []byte, what string, at int) {
		t.Helper()
		require.Error(t, create(t, l, 7, 3, b).Close(), "%s at %d", what, at)
		require.Len(t, names(t, files, snapshotDir, ""), 1)
	}
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x10
		refused(damaged, "a flip", at)
		refused(whole[:at], "a cut", at)
	}
	refused(append(bytes.Clone(whole), 0), "more", 0)
	require.EqualValues(t, 5, l.Durable())
	list, err := l.Snapshots().List()
	require.NoError(t, err)
	require.Equal(t, kept, list[0].ID)
	require.NoError(t, create(t, l, 7, 3, whole).Close())
	finish(t, l)
}

func TestSnapshotThatDiskRejectsLeavesNothing(t *testing.T) {
	disk := vfs.NewForgetful()
	files := disk.Mount()
	l := open(t, files)
	disk.Fill(true)
	_, err := l.Snapshots().Create(1, 7, 3, configuration, 2, nil)
	require.Error(t, err)
	disk.Fill(false)
	sink := create(t, l, 7, 3, body(t, "a"))
	disk.Fill(true)
	require.Error(t, sink.Close())
	disk.Fill(false)
	sink = create(t, l, 7, 3, body(t, "a"))
	disk.FailSync(errBroken)
	require.ErrorIs(t, sink.Close(), errBroken)
	disk.FailSync(nil)
	require.Empty(t, names(t, files, snapshotDir, ""))
	require.Zero(t, l.Durable())
	require.NoError(t, l.Condition().Err, "the log has not failed")
	finish(t, l)
}

func TestReconcile(t *testing.T) {
	for name, c := range map[string]struct {
		log      []uint64 // first, last, term
		snapshot []uint64 // index, term
		want     []uint64 // first, last
		corrupt  string
	}{
		"no snapshot":                 {[]uint64{1, 9, 1}, nil, []uint64{1, 9}, ""},
		"no log":                      {nil, []uint64{7, 2}, []uint64{0, 0}, ""},
		"a log that covers it":        {[]uint64{1, 9, 1}, []uint64{7, 1}, []uint64{1, 9}, ""},
		"a log that ends with it":     {[]uint64{1, 9, 1}, []uint64{9, 1}, []uint64{1, 9}, ""},
		"a log right after it":        {[]uint64{8, 9, 1}, []uint64{7, 1}, []uint64{8, 9}, ""},
		"a log that ends before it":   {[]uint64{1, 6, 1}, []uint64{7, 1}, []uint64{0, 0}, ""},
		"a log of another term":       {[]uint64{1, 9, 1}, []uint64{7, 2}, []uint64{0, 0}, ""},
		"a hole":                      {[]uint64{9, 10, 1}, []uint64{7, 1}, nil, snapshotDir},
		"a log without its beginning": {[]uint64{2, 10, 1}, nil, nil, snapshotDir},
	} {
		t.Run(name, func(t *testing.T) {
			files := vfs.NewMemory().Mount()
			l := open(t, files)
			if c.log != nil {
				keep(t, l, storagetest.Entries(c.log[0], c.log[1], c.log[2])...)
			}
			if c.snapshot != nil {
				snapshot(t, l, c.snapshot[0], c.snapshot[1])
			}
			finish(t, l)
			if c.corrupt != "" {
				_, err := Open(files, home, segments.Format{}, false)
				var corrupt *CorruptError
				require.ErrorAs(t, err, &corrupt)
				require.Equal(t, filepath.Join(home, c.corrupt), corrupt.File)
				return
			}
			l = open(t, files)
			defer func() { finish(t, l) }()
			require.Equal(t, c.want, span(all(t, l)))
			if c.snapshot == nil {
				return
			}
			require.EqualValues(t, max(c.want[1], c.snapshot[0]), l.Durable())
			next := max(c.want[1], c.snapshot[0]) + 1
			keep(t, l, storagetest.Entry(next, 3))
			finish(t, l)
			l = open(t, files)
			require.Equal(t, next, span(all(t, l))[1])
		})
	}
}

func TestAppliedBeyondLogIsDamage(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	keep(t, l, storagetest.Entries(1, 5, 1)...)
	l.store.mu.Lock()
	l.store.applied = 6 // Applied would not allow it
	l.store.mu.Unlock()
	finish(t, l)
	_, err := Open(files, home, segments.Format{}, false)
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, filepath.Join(home, segmentDir), corrupt.File)
}

func TestUnknownFilesAreKept(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	keep(t, l, storagetest.Entries(1, 5, 1)...)
	snapshot(t, l, 3, 1)
	id := snapshot(t, l, 4, 1)
	finish(t, l)
	segment, snap := names(t, files, segmentDir, segmentSuffix)[0], names(t, files, snapshotDir, snapshotSuffix)[1]
	others := map[string][]byte{
		filepath.Join(home, "notes"):                                        []byte("text"),
		filepath.Join(home, segmentDir, "notes.log"):                        []byte("text"),
		filepath.Join(home, segmentDir, "1.log"):                            vfstest.Load(t, files, segment),
		filepath.Join(home, segmentDir, "0000000000000001 (copy).log"):      vfstest.Load(t, files, segment),
		filepath.Join(home, segmentDir, "0000000000000002.log.bak"):         vfstest.Load(t, files, segment),
		filepath.Join(home, segmentDir, "000000000000000A.log"):             vfstest.Load(t, files, segment),
		filepath.Join(home, snapshotDir, "notes.snap"):                      []byte("text"),
		filepath.Join(home, snapshotDir, id+" (copy).snap"):                 vfstest.Load(t, files, snap),
		filepath.Join(home, snapshotDir, "ffffffffffffffff.snap"):           []byte("text"),
		filepath.Join(home, snapshotDir, id+".snap.bak"):                    vfstest.Load(t, files, snap),
		filepath.Join(home, snapshotDir, "0000000000000001-000000000.snap"): []byte("text"),
	}
	for name, b := range others {
		vfstest.Save(t, files, name, b)
	}
	l = open(t, files)
	holds(t, l, storagetest.Entries(1, 5, 1)...)
	list, err := l.Snapshots().List()
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, id, list[0].ID)
	snapshot(t, l, 5, 1)
	finish(t, l)
	for name, b := range others {
		require.Equal(t, b, vfstest.Load(t, files, name))
	}
}

// A kept state stays in memory and is encoded whenever it is read.
func TestMemorySnapshotIsEncodedWhenRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(vfs.NewMemory().Mount(), home, segments.Format{}, true)
		require.NoError(t, err)
		defer func() { finish(t, l) }()
		list, err := l.Snapshots().List()
		require.NoError(t, err)
		require.Empty(t, list)
		sink := func(index uint64, writeTo func(io.Writer) (int64, error)) string {
			sink, err := l.Snapshots().Create(1, index, 3, configuration, 2, nil)
			require.NoError(t, err)
			sink.(*memorySnapshot).Keep(writeTo)
			require.NoError(t, sink.Close())
			return sink.ID()
		}
		encoded := body(t, "a", "b")
		id := sink(7, func(w io.Writer) (int64, error) { n, err := w.Write(encoded); return int64(n), err })
		require.EqualValues(t, 7, l.Durable())
		for range 2 {
			got, err := records(t, l, id)
			require.NoError(t, err)
			require.Equal(t, []string{"a", "b"}, got)
		}
		_, r, err := l.Snapshots().Open(id)
		require.NoError(t, err)
		require.NoError(t, r.Close(), "closing a partly read snapshot leaves no goroutine")

		id = sink(8, func(w io.Writer) (int64, error) { return 0, errBroken })
		_, r, err = l.Snapshots().Open(id)
		require.NoError(t, err)
		_, err = io.ReadAll(r)
		require.True(t, errors.Is(err, errBroken))

		received := create(t, l, 9, 3, encoded)
		require.NoError(t, received.Close())
		list, err = l.Snapshots().List()
		require.NoError(t, err)
		require.Len(t, list, 1)
		got, err := records(t, l, received.ID())
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, got)
		_, _, err = l.Snapshots().Open(id)
		require.Error(t, err)
		require.NoError(t, create(t, l, 10, 3, encoded).Cancel())
	})
}

var _ raft.SnapshotSink = (*snapshotFile)(nil)

// countingFS counts the syncs of files, and the steps in which files shrink.
type countingFS struct {
	vfs.FS
	syncs, cuts *int
}

type countingFile struct {
	vfs.File
	fs countingFS
}

func (f countingFS) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return countingFile{file, f}, err
}

func (f countingFS) Open(name string) (vfs.File, error) {
	file, err := f.FS.Open(name)
	return countingFile{file, f}, err
}

func (f countingFile) Sync() error { *f.fs.syncs++; return f.File.Sync() }

func (f countingFile) Truncate(size int64) error { *f.fs.cuts++; return f.File.Truncate(size) }

func TestOwnSnapshotIsSyncedInPieces(t *testing.T) {
	var syncs, cuts int
	files := countingFS{vfs.NewMemory().Mount(), &syncs, &cuts}
	const dir = "/snapshots"
	require.NoError(t, files.MkdirAll(dir))
	s := &snapshotFiles{fs: files, dir: dir, done: func(*raft.SnapshotMeta) {}, grown: func() int64 { return 0 }}
	large := body(t, string(make([]byte, 20<<20)))
	take := func(index uint64, own bool) {
		t.Helper()
		sink, err := s.Create(1, index, 1, configuration, 1, nil)
		require.NoError(t, err)
		if own {
			sink.(*snapshotFile).Own(func() error { return nil })
		}
		_, err = sink.Write(large)
		require.NoError(t, err)
		require.NoError(t, sink.Close())
		list, err := s.List()
		require.NoError(t, err)
		require.Equal(t, index, list[0].Index)
		require.EqualValues(t, len(large), list[0].Size)
		require.Len(t, list, min(int(index), snapshotsKept))
	}
	take(1, false)
	require.Equal(t, 1, syncs, "raft waits for a snapshot of another node")
	take(2, true)
	require.InDelta(t, 1+len(large)/syncBytes, syncs-1, 1)
	require.Zero(t, cuts)
	take(3, true)
	require.Equal(t, 2, cuts, "the oldest one is removed in steps")
	left, err := files.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, snapshotsKept)
}

// A node that closes waits for the removal of an old snapshot, which may be large.
func TestOldSnapshotIsRemovedFastOnClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := vfs.NewMemory().Mount()
		const dir = "/snapshots"
		require.NoError(t, files.MkdirAll(dir))
		var broken error
		done := func(m *raft.SnapshotMeta) {
			if m.Index == 3 {
				broken = errors.New("the node closes")
			}
		}
		s := &snapshotFiles{fs: files, dir: dir, done: done, grown: func() int64 { return 0 }}
		large, small := body(t, string(make([]byte, 10*eraseStep))), body(t, "a")
		var took time.Duration
		for index := uint64(1); index <= 3; index++ {
			sink, err := s.Create(1, index, 1, configuration, 1, nil)
			require.NoError(t, err)
			sink.(*snapshotFile).Own(func() error { return broken })
			content := small
			if index == 1 {
				content = large
			}
			_, err = sink.Write(content)
			require.NoError(t, err)
			begin := time.Now()
			require.NoError(t, sink.Close())
			took = time.Since(begin)
		}
		require.Zero(t, took)
		left, err := files.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, left, snapshotsKept)
	})
}

func TestOwnSnapshotEndsWhenNodeCloses(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	closing := errors.New("the node closes")
	var broken error
	sink := create(t, l, 7, 3, nil)
	sink.(*snapshotFile).Own(func() error { return broken })
	_, err := sink.Write(body(t, string(make([]byte, 1<<20))))
	require.NoError(t, err)
	broken = closing
	_, err = sink.Write(make([]byte, 1<<20))
	require.ErrorIs(t, err, closing)
	require.ErrorIs(t, sink.Close(), closing)
	require.Empty(t, names(t, files, snapshotDir, ""))
	finish(t, l)
}
