// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

// founding returns the founding of the tests; state tells attempts apart.
func founding(t testing.TB, state string) Founding {
	return Founding{
		Identity: crashIdentity,
		Members:  []Member{{ID: "a", Addr: "host:1", Voter: true}, {ID: "b", Addr: "host:2", Voter: true}},
		State: func(w io.Writer) error {
			_, err := w.Write(body(t, state))
			return err
		},
	}
}

// requireFounded checks that a directory has all of a founding, and that the log can be used.
func requireFounded(t testing.TB, files vfs.FS, state string) {
	t.Helper()
	l, err := Open(files, home, segments.Format{}, false)
	require.NoError(t, err)
	id, known := l.Identity()
	require.True(t, known)
	require.Equal(t, crashIdentity, id)
	term, err := l.Stable().GetUint64(keyTerm)
	require.NoError(t, err)
	require.EqualValues(t, FoundingTerm, term)
	require.EqualValues(t, FoundingIndex, l.Durable())
	metas, err := l.Snapshots().List()
	require.NoError(t, err)
	require.Len(t, metas, 1)
	require.Equal(t, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "host:1"}, {ID: "b", Address: "host:2"}}}, metas[0].Configuration)
	require.EqualValues(t, FoundingIndex, metas[0].ConfigurationIndex)
	got, err := records(t, l, metas[0].ID)
	require.NoError(t, err)
	require.Equal(t, []string{state}, got)
	keep(t, l, storagetest.Entries(2, 3, 2)...)
	finish(t, l)
}

func TestDirectoryIsFoundedOnce(t *testing.T) {
	files := vfs.NewMemory().Mount()
	require.NoError(t, Found(files, home, segments.Format{}, founding(t, "state")))
	require.ErrorIs(t, Found(files, home, segments.Format{}, founding(t, "other")), fault.ErrDirNotEmpty)
	requireFounded(t, files, "state")
}

func TestFoundRejectsDirectoryWithData(t *testing.T) {
	for _, name := range []string{
		identityFile, voteFile, earlierStore, filepath.Join(segmentDir, segmentName(1)), filepath.Join(snapshotDir, "x.part"),
	} {
		files := withFile(t, name, []byte("content"))
		require.ErrorIs(t, Found(files, home, segments.Format{}, founding(t, "state")), fault.ErrDirNotEmpty, name)
		require.Equal(t, "content", string(vfstest.Load(t, files, filepath.Join(home, name))))
	}
	files := withFile(t, "other", nil) // a file that the file system itself has put there
	require.NoError(t, Found(files, home, segments.Format{}, founding(t, "state")))
}

func TestFoundRejectsOpenDirectory(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	require.ErrorIs(t, Found(files, home, segments.Format{}, founding(t, "state")), fault.ErrDirInUse)
	finish(t, l)
}

func TestFailedFoundingLeavesNoNode(t *testing.T) {
	broken := errors.New("broken")
	files := vfs.NewMemory().Mount()
	f := founding(t, "state")
	f.State = func(io.Writer) error { return broken }
	require.ErrorIs(t, Found(files, home, segments.Format{}, f), broken)
	_, err := Open(files, home, segments.Format{}, false)
	require.ErrorIs(t, err, fault.ErrRestoreUnfinished)
	f.State = func(w io.Writer) error { _, err := w.Write([]byte("no stream")); return err }
	require.Error(t, Found(files, home, segments.Format{}, f), "a snapshot that cannot be read")
	require.NoError(t, Found(files, home, segments.Format{}, founding(t, "state")))
	requireFounded(t, files, "state")
}

func TestFailedSyncFailsFounding(t *testing.T) {
	broken := errors.New("broken")
	disk := vfs.NewForgetful()
	disk.FailSync(broken)
	require.ErrorIs(t, Found(disk.Mount(), home, segments.Format{}, founding(t, "state")), broken)
}

// eachEnd runs Found on a disk that stops after each of its changes, ends it in each possible way, and
// calls look with the remaining files.
func eachEnd(t *testing.T, lie bool, look func(n int, end string, files vfs.FS, done bool)) {
	t.Helper()
	r := random(t)
	ends := map[string]func(*vfs.Memory){
		"killed":          func(d *vfs.Memory) { d.Kill() },
		"crashed":         func(d *vfs.Memory) { d.Crash(nil) },
		"crashed, random": func(d *vfs.Memory) { d.Crash(rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))) },
	}
	for end, stop := range ends {
		for n, done := 0, false; !done; n++ {
			require.Less(t, n, 100)
			disk := vfs.NewForgetful()
			disk.Lie(lie)
			disk.FreezeAfter(n)
			done = Found(disk.Mount(), home, segments.Format{}, founding(t, "first")) == nil
			if done {
				require.Greater(t, n, 10)
			}
			stop(disk)
			disk.Lie(false)
			look(n, end, disk.Mount(), done)
		}
	}
}

// begun reports whether Found was interrupted.
func begun(files vfs.FS) (bool, error) {
	known, err := exists(files, filepath.Join(home, identityFile))
	if err != nil || known {
		return false, err
	}
	return exists(files, filepath.Join(home, foundingFile))
}

func TestFoundingIsAtomic(t *testing.T) {
	eachEnd(t, false, func(n int, end string, files vfs.FS, done bool) {
		unfinished, err := begun(files)
		require.NoError(t, err)
		if unfinished {
			_, err := Open(files, home, segments.Format{}, false)
			require.ErrorIs(t, err, fault.ErrRestoreUnfinished, "%s after %d", end, n)
		}
		state := "second"
		err = Found(files, home, segments.Format{}, founding(t, state))
		if errors.Is(err, fault.ErrDirNotEmpty) {
			require.False(t, unfinished)
			state = "first"
		} else {
			require.NoError(t, err, "%s after %d", end, n)
			require.False(t, done, "%s after %d: a completed founding is gone", end, n)
		}
		requireFounded(t, files, state)
	})
}

// Found is interrupted, and interrupted again on its second attempt.
func TestFoundingInterruptedTwiceIsRepeated(t *testing.T) {
	for n := range 40 {
		for again := range 40 {
			disk := vfs.NewForgetful()
			disk.FreezeAfter(n)
			if Found(disk.Mount(), home, segments.Format{}, founding(t, "first")) == nil {
				return
			}
			disk.Crash(nil)
			disk.FreezeAfter(again)
			second := Found(disk.Mount(), home, segments.Format{}, founding(t, "second"))
			disk.Kill()
			files := disk.Mount()
			switch third := Found(files, home, segments.Format{}, founding(t, "third")); {
			case third == nil:
				require.Error(t, second)
				requireFounded(t, files, "third")
			default:
				require.ErrorIs(t, third, fault.ErrDirNotEmpty)
				requireFounded(t, files, "second")
			}
			if second == nil {
				break
			}
		}
	}
}

// This is the control: a disk with syncs that do nothing is detected.
func TestFoundingOnLyingDiskIsDetected(t *testing.T) {
	lost := 0
	eachEnd(t, true, func(_ int, end string, files vfs.FS, done bool) {
		if known, err := exists(files, filepath.Join(home, identityFile)); end == "crashed" && done && (err != nil || !known) {
			lost++
		}
	})
	require.NotZero(t, lost)
}

func TestFoundersOfOneStateHaveSameFiles(t *testing.T) {
	var first []byte
	for range 2 {
		files := vfs.NewMemory().Mount()
		require.NoError(t, Found(files, home, segments.Format{}, founding(t, "state")))
		got := vfstest.Load(t, files, filepath.Join(home, snapshotDir, snapshotID(FoundingTerm, FoundingIndex)+snapshotSuffix))
		if first == nil {
			first = got
		}
		require.True(t, bytes.Equal(first, got))
	}
}

// A founding that ends between the identity and the removal of the marker is complete.
func TestMarkerBesideAnIdentityIsRemoved(t *testing.T) {
	files := vfs.NewMemory().Mount()
	require.NoError(t, Found(files, home, segments.Format{}, founding(t, "state")))
	marker := filepath.Join(home, foundingFile)
	for _, content := range []string{"", "an identity, as earlier versions wrote it"} {
		vfstest.Save(t, files, marker, []byte(content))
		r, err := Read(files, home, segments.Format{})
		require.NoError(t, err)
		require.True(t, r.Known)
		require.False(t, r.Unfinished)
		require.Empty(t, r.Damage)
		require.NoError(t, r.Close())
		require.ErrorIs(t, Found(files, home, segments.Format{}, founding(t, "other")), fault.ErrDirNotEmpty)
		l := open(t, files)
		finish(t, l)
		there, err := exists(files, marker)
		require.NoError(t, err)
		require.False(t, there)
	}
	requireFounded(t, files, "state")
}

// A damaged identity is no missing one: the directory is not vacated.
func TestMarkerBesideDamagedIdentityIsDamage(t *testing.T) {
	files := vfs.NewMemory().Mount()
	require.NoError(t, Found(files, home, segments.Format{}, founding(t, "state")))
	vfstest.Save(t, files, filepath.Join(home, foundingFile), nil)
	vfstest.Save(t, files, filepath.Join(home, identityFile), []byte("damaged"))
	var corrupt *CorruptError
	require.ErrorAs(t, Found(files, home, segments.Format{}, founding(t, "other")), &corrupt)
	_, err := Open(files, home, segments.Format{}, false)
	require.ErrorAs(t, err, &corrupt)
	r, err := Read(files, home, segments.Format{})
	require.NoError(t, err)
	require.False(t, r.Unfinished)
	require.Len(t, r.Damage, 1)
	require.NoError(t, r.Close())
}
