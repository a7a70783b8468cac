// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"io"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// outlived returns a disk with the directory of a node. Its log names two members, and so does its
// snapshot.
func outlived(t *testing.T) *vfs.Memory {
	t.Helper()
	disk := vfs.NewForgetful()
	l := open(t, disk.Mount())
	require.NoError(t, l.Identify(crashIdentity))
	require.NoError(t, l.Stable().SetUint64(keyTerm, 4))
	both := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "host:1"}, {ID: "b", Address: "host:2"}}})
	keep(t, l, storagetest.Entries(1, 9, 3)...)
	snapshot(t, l, 5, 3)
	snapshot(t, l, 7, 3)
	keep(t, l, &raft.Log{Index: 10, Term: 4, Type: raft.LogConfiguration, Data: both}, storagetest.Entry(11, 4))
	finish(t, l)
	return disk
}

func continuation(t *testing.T, state string) func(*Reader) (Continuation, error) {
	return func(r *Reader) (Continuation, error) {
		return Continuation{
			Index: max(r.Last, r.Snapshots[0].Index), Term: r.Term + 1, Member: Member{ID: "a", Addr: "host:1", Voter: true},
			State: func(w io.Writer) error { _, err := w.Write(body(t, state)); return err },
		}, nil
	}
}

func TestRecoverKeepsOneMemberAndDropsLog(t *testing.T) {
	disk := outlived(t)
	files := disk.Mount()
	for round := range uint64(3) {
		require.NoError(t, Recover(files, home, segments.Format{}, continuation(t, "state")))
		r, err := Read(files, home, segments.Format{})
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Empty(t, r.Damage)
		require.Equal(t, []Member{{ID: "a", Addr: "host:1", Voter: true}}, r.Members)
		require.Equal(t, []uint64{0, 0, 5 + round, 5 + round}, []uint64{r.First, r.Last, r.LastTerm, r.Term})
		require.Equal(t, []uint64{11, 5 + round}, []uint64{r.Snapshots[0].Index, r.Snapshots[0].Term})
	}
	l := open(t, files)
	require.Empty(t, all(t, l), "a joining member receives the snapshot")
	got, err := records(t, l, snapshotID(7, 11))
	require.NoError(t, err)
	require.Equal(t, []string{"state"}, got)
	keep(t, l, storagetest.Entry(12, 8))
	finish(t, l)
	l = open(t, files)
	require.Equal(t, [2]uint64{12, 12}, [2]uint64(span(all(t, l))))
	finish(t, l)
}

func TestRejectedRecoveryWritesNothing(t *testing.T) {
	disk := outlived(t)
	files := disk.Mount()
	changes := disk.Changes()
	broken := errors.New("broken")
	require.ErrorIs(t, Recover(files, home, segments.Format{}, func(*Reader) (Continuation, error) { return Continuation{}, broken }), broken)
	require.Equal(t, changes, disk.Changes())
	require.NoError(t, Recover(files, home, segments.Format{}, func(r *Reader) (Continuation, error) {
		_, err := Open(files, home, segments.Format{}, false)
		require.ErrorIs(t, err, fault.ErrDirInUse)
		return continuation(t, "state")(r)
	}))
	l := open(t, files)
	require.ErrorIs(t, Recover(files, home, segments.Format{}, continuation(t, "state")), fault.ErrDirInUse)
	finish(t, l)
	require.True(t, isNotExist(Recover(files, "/nowhere", segments.Format{}, continuation(t, "state"))))
}

// Every way to end after every change leaves the old state or the new one. On a disk that lies about
// syncs a completed recovery may be gone, and the test detects that.
func TestInterruptedRecoveryIsAtomic(t *testing.T) {
	lost := map[bool]int{}
	for _, lie := range []bool{false, true} {
		for end, stop := range map[string]func(*vfs.Memory){
			"killed":  (*vfs.Memory).Kill,
			"crashed": func(d *vfs.Memory) { d.Crash(nil) },
		} {
			for n, done := 0, false; !done; n++ {
				require.Less(t, n, 100)
				disk := outlived(t)
				disk.Lie(lie)
				disk.FreezeAfter(n)
				done = Recover(disk.Mount(), home, segments.Format{}, continuation(t, "state")) == nil
				stop(disk)
				disk.Lie(false)
				files := disk.Mount()
				l, err := Open(files, home, segments.Format{}, false)
				require.NoError(t, err, "%s after %d", end, n)
				if got := all(t, l); len(got) > 0 {
					require.Equal(t, []uint64{11, 4}, []uint64{got[len(got)-1].Index, got[len(got)-1].Term}, "%s after %d", end, n)
					if done {
						lost[lie]++
					}
				} else {
					got, err := records(t, l, snapshotID(5, 11))
					require.NoError(t, err, "%s after %d", end, n)
					require.Equal(t, []string{"state"}, got)
					term, err := l.Stable().GetUint64(keyTerm)
					require.NoError(t, err)
					require.EqualValues(t, 5, term)
				}
				finish(t, l)
				require.Empty(t, names(t, files, snapshotDir, partSuffix), filepath.Join(home, snapshotDir))
			}
		}
	}
	require.Equal(t, map[bool]int{true: 1}, lost)
}
