// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

// requireLost checks that Open and a Reader find the same loss in a directory, and that Open changes
// nothing.
func requireLost(t *testing.T, files vfs.FS, what string, texts ...string) {
	t.Helper()
	for range 2 {
		l, err := openWith(files, home, false, tinySegment)
		if err == nil {
			finish(t, l)
		}
		require.ErrorAs(t, err, new(*CorruptError), what)
		r, readErr := Read(files, home, segments.Format{})
		require.NoError(t, readErr, what)
		require.NoError(t, r.Close(), what)
		require.Len(t, r.Damage, 1, what)
		require.Equal(t, err.Error(), r.Damage[0].Error(), what)
		for _, text := range texts {
			require.ErrorContains(t, err, text, what)
		}
	}
}

// filled makes a log of several segments, and returns an earlier copy of the newest one. Then the process
// is killed, or the log closed.
func filled(t *testing.T, snapshots, killed bool) (disk *vfs.Memory, older []byte, ends []int64) {
	t.Helper()
	disk = vfs.NewForgetful()
	l, err := openWith(disk.Mount(), home, false, tinySegment)
	require.NoError(t, err)
	require.NoError(t, l.Identify(crashIdentity))
	elect(t, l, 3, "a")
	for i := uint64(1); i <= 40; i++ {
		keep(t, l, storagetest.Entry(i, 2))
	}
	l.Applied(20)
	if snapshots {
		snapshot(t, l, 15, 2)
		require.NoError(t, l.Logs().DeleteRange(1, 14))
	}
	newest, _ := newestSegment(t, disk.Mount())
	for i := uint64(41); len(ends) < 4; i++ {
		keep(t, l, storagetest.Entry(i, 2))
		name, end := newestSegment(t, disk.Mount())
		if name != newest {
			newest, ends = name, nil
		}
		if ends = append(ends, end); len(ends) == 2 {
			older = vfstest.Load(t, disk.Mount(), name)
		}
	}
	if killed {
		synctest.Wait()
		disk.Kill()
		_ = l.Close(t.Context())
	} else {
		finish(t, l)
		disk.Crash(nil)
	}
	return disk, older, ends
}

func TestLogWithoutItsEndIsRejected(t *testing.T) {
	for _, killed := range []bool{false, true} {
		for _, snapshots := range []bool{false, true} {
			for name, lose := range map[string]func(files vfs.FS, segments []string, older []byte, ends []int64){
				"gone": func(files vfs.FS, segments []string, _ []byte, _ []int64) {
					for _, name := range segments {
						require.NoError(t, files.Remove(name))
					}
				},
				"emptied": func(files vfs.FS, segments []string, _ []byte, _ []int64) {
					for _, name := range segments[1:] {
						require.NoError(t, files.Remove(name))
					}
					vfstest.Save(t, files, segments[0], nil)
				},
				"without its newest segment": func(files vfs.FS, segments []string, _ []byte, _ []int64) {
					require.NoError(t, files.Remove(segments[len(segments)-1]))
				},
				"with an empty newest segment": func(files vfs.FS, segments []string, _ []byte, _ []int64) {
					vfstest.Save(t, files, segments[len(segments)-1], nil)
				},
				"with an older newest segment": func(files vfs.FS, segments []string, older []byte, _ []int64) {
					vfstest.Save(t, files, segments[len(segments)-1], older)
				},
				"cut after its first batch": func(files vfs.FS, segments []string, _ []byte, ends []int64) {
					name := segments[len(segments)-1]
					vfstest.Save(t, files, name, vfstest.Load(t, files, name)[:ends[0]])
				},
				"cut before its last batch": func(files vfs.FS, segments []string, _ []byte, ends []int64) {
					name := segments[len(segments)-1]
					vfstest.Save(t, files, name, vfstest.Load(t, files, name)[:ends[len(ends)-2]])
				},
				"torn in its last batch": func(files vfs.FS, segments []string, _ []byte, ends []int64) {
					name := segments[len(segments)-1]
					vfstest.Save(t, files, name, vfstest.Load(t, files, name)[:ends[len(ends)-1]-9])
				},
			} {
				if killed && name == "gone" && !snapshots {
					continue // it had no lock to wait for
				}
				synctest.Test(t, func(t *testing.T) {
					disk, older, ends := filled(t, snapshots, killed)
					files := disk.Mount()
					lose(files, names(t, files, segmentDir, segmentSuffix), older, ends)
					requireLost(t, files, name, "it had reached", "of term 2")
				})
			}
		}
	}
}

// Truncated entries are no loss, wherever the process ends.
func TestTruncatedLogIsWhole(t *testing.T) {
	for name, shorten := range map[string]func(l *Log){
		"truncated": func(l *Log) { require.NoError(t, l.Logs().DeleteRange(5, 40)) },
		"reset":     func(l *Log) { require.NoError(t, l.Logs().DeleteRange(1, 40)) },
	} {
		for _, settled := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				disk := vfs.NewForgetful()
				l := openSized(t, disk.Mount(), tinySegment)
				require.NoError(t, l.Identify(crashIdentity))
				keep(t, l, storagetest.Entries(1, 40, 2)...)
				elect(t, l, 3, "a")
				shorten(l)
				if settled {
					settle(t, l)
				}
				disk.Crash(nil)
				_ = l.Close(t.Context())
				l, err := openWith(disk.Mount(), home, false, tinySegment)
				require.NoError(t, err, name)
				finish(t, l)
			})
		}
	}
}

// A segment of another log is not accepted as the newest one.
func TestSegmentOfAnotherLogIsRejected(t *testing.T) {
	logs := []vfs.FS{}
	for range 2 {
		files := vfs.NewMemory().Mount()
		l := open(t, files)
		require.NoError(t, l.Identify(crashIdentity))
		keep(t, l, storagetest.Entries(1, 5, 2)...)
		finish(t, l)
		logs = append(logs, files)
	}
	name := names(t, logs[0], segmentDir, segmentSuffix)[0]
	vfstest.Save(t, logs[0], name, vfstest.Load(t, logs[1], name))
	requireLost(t, logs[0], "", "it had reached")
}

func TestLostSnapshotIsFound(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	require.NoError(t, l.Identify(crashIdentity))
	keep(t, l, storagetest.Entries(1, 5, 2)...)
	id := snapshot(t, l, 20, 2) // from the leader
	require.NoError(t, l.Logs().DeleteRange(1, 5))
	settle(t, l)
	finish(t, l)
	require.NoError(t, files.Remove(filepath.Join(home, snapshotDir, id+snapshotSuffix)))
	requireLost(t, files, "", "there was a snapshot of entry 20")
}

// Directories of earlier versions have no extents. There the identity shows that a log existed.
func TestIdentityShowsThatLogIsMissing(t *testing.T) {
	for name, test := range map[string]struct {
		id   Identity
		lost bool
	}{
		"a founder on record":        {Identity{Cluster: 1, Member: 2, Incarnation: 3, Since: 7}, true},
		"one that joins":             {Identity{Cluster: 1, Member: 2, Incarnation: 3, Since: 7, Floor: 2}, false},
		"one that is not on record":  {Identity{Member: 2, Incarnation: 3}, false},
		"a founder not on record":    {crashIdentity, false},
		"one that was asked to vote": {Identity{Cluster: 1, Member: 2, Incarnation: 3, Since: 7, Floor: 9}, false},
	} {
		files := vfs.NewMemory().Mount()
		l := open(t, files)
		require.NoError(t, l.Identify(test.id))
		finish(t, l)
		if test.lost {
			requireLost(t, files, name, "it has no entry")
			continue
		}
		l = open(t, files)
		finish(t, l)
	}
}

// The vote file is made before the identity, and the identity before any entry.
func TestMissingVoteOrIdentityIsFound(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	require.NoError(t, l.Identify(crashIdentity))
	finish(t, l)
	require.NoError(t, files.Remove(voteName))
	requireLost(t, files, "the vote", "it is missing")

	files = vfs.NewMemory().Mount()
	l = open(t, files)
	keep(t, l, storagetest.Entry(1, 1))
	require.ErrorContains(t, l.Identify(crashIdentity), "it is missing, and the log is not")
	finish(t, l)
}

// reached returns the newest extent in a directory.
func reached(t testing.TB, files vfs.FS) storage.Extent {
	t.Helper()
	r, err := segments.Format{}.Read(files, home, func(_ string, err error) { require.NoError(t, err) })
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return r.Loaded().Reached
}

// A vote file of an earlier version has no space for extents.
func TestVoteOfEarlierVersionIsRead(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	require.NoError(t, l.Identify(crashIdentity))
	keep(t, l, storagetest.Entries(1, 5, 1)...)
	elect(t, l, 4, "b")
	finish(t, l)
	vfstest.Save(t, files, voteName, vfstest.Load(t, files, voteName)[:extentsAt])
	l = open(t, files)
	requireBallot(t, l, 4, 4, "b")
	keep(t, l, storagetest.Entry(6, 4))
	finish(t, l)
	require.Len(t, vfstest.Load(t, files, voteName), voteFileSize)
	e := reached(t, files)
	require.EqualValues(t, 6, e.Index)
	require.EqualValues(t, 4, e.Term)
}

// A node with a full disk is upgraded from an earlier version. It starts, as it did before.
func TestFullDiskOpensVoteOfEarlierVersion(t *testing.T) {
	disk := vfs.NewMemory()
	files := disk.Mount()
	l := open(t, files)
	require.NoError(t, l.Identify(crashIdentity))
	keep(t, l, storagetest.Entries(1, 5, 1)...)
	elect(t, l, 4, "b")
	finish(t, l)
	vfstest.Save(t, files, voteName, vfstest.Load(t, files, voteName)[:extentsAt])
	disk.Fill(true)
	l = open(t, files)
	requireBallot(t, l, 4, 4, "b")
	disk.Fill(false)
	keep(t, l, storagetest.Entry(6, 4))
	finish(t, l)
	require.EqualValues(t, 6, reached(t, files).Index)
}
