// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// interrupted returns a disk with the directory of a node in segments, a file of bbolt, and the note of a conversion
// from one format to another that was interrupted.
func interrupted(t *testing.T, from, to, state string) *vfs.Memory {
	t.Helper()
	disk := outlived(t)
	files := disk.Mount()
	for name, text := range map[string]string{
		"log.db":     "remains",
		"conversion": fmt.Sprintf("from %s to %s, the old files are in %s-1, %s\n", from, to, from, state),
	} {
		f, err := files.Create(filepath.Join(home, name))
		require.NoError(t, err)
		_, err = f.WriteAt([]byte(text), 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	return disk
}

// A conversion from segments that has only begun leaves the remains of the new file. One to segments that is done leaves
// those of the old one. In both cases the directory has segments.
func TestOpenEndsInterruptedConversion(t *testing.T) {
	for _, note := range [][3]string{{storage.Segments, storage.Bolt, "begun"}, {storage.Bolt, storage.Segments, "done"}} {
		for name, do := range map[string]func(t *testing.T, files vfs.FS){
			"Open": func(t *testing.T, files vfs.FS) { finish(t, open(t, files)) },
			"Recover": func(t *testing.T, files vfs.FS) {
				require.NoError(t, Recover(files, home, segments.Format{}, continuation(t, "state")))
			},
		} {
			files := interrupted(t, note[0], note[1], note[2]).Mount()
			r, err := Read(files, home, segments.Format{})
			require.NoError(t, err, "a Reader changes nothing, and reads the format that the directory has")
			require.Empty(t, r.Damage)
			require.EqualValues(t, 11, r.Last)
			require.NoError(t, r.Close())
			do(t, files)
			left, err := files.ReadDir(home)
			require.NoError(t, err)
			require.NotContains(t, left, "log.db", name)
			require.NotContains(t, left, "conversion", name)
		}
	}
}

// locked counts the locks of a directory, and checks that the directory is locked whenever files are removed.
type locked struct {
	vfs.FS
	t     *testing.T
	locks int
}

func (l *locked) Lock(name string) (io.Closer, error) {
	l.locks++
	return l.FS.Lock(name)
}

func (l *locked) Remove(name string) error {
	_, err := l.FS.Lock(filepath.Join(home, lockFile))
	require.ErrorIs(l.t, err, vfs.ErrLocked, name)
	return l.FS.Remove(name)
}

// No node can open the directory between the end of an interrupted conversion and the next one.
func TestConvertLocksDirectoryOnce(t *testing.T) {
	for note, want := range map[[3]string]error{
		{storage.Segments, storage.Bolt, "begun"}: ErrSameFormat,
		{storage.Bolt, storage.Segments, "done"}:  nil,
	} {
		files := &locked{FS: interrupted(t, note[0], note[1], note[2]).Mount(), t: t}
		done, err := Convert(files, home, Conversion{
			To: segments.Format{}, Formats: func(string) storage.Format { return segments.Format{} },
		})
		require.ErrorIs(t, err, want)
		require.Equal(t, 1, files.locks)
		if want == nil {
			require.Equal(t, Converted{From: storage.Bolt, Kept: filepath.Join(home, "bolt-1"), First: 1, Last: 11}, done)
		}
		finish(t, open(t, files.FS))
	}
}

// Recover does not release the lock between its decision and its changes.
func TestRecoverHoldsLockThroughout(t *testing.T) {
	files := &locked{FS: interrupted(t, storage.Segments, storage.Bolt, "begun").Mount(), t: t}
	require.NoError(t, Recover(files, home, segments.Format{}, continuation(t, "state")))
	require.Equal(t, 1, files.locks)
}

// Open with the other format rejects the directory.
func TestInterruptedConversionHasOneFormat(t *testing.T) {
	for _, note := range [][3]string{{storage.Segments, storage.Bolt, "done"}, {storage.Bolt, storage.Segments, "begun"}} {
		files := interrupted(t, note[0], note[1], note[2]).Mount()
		var mismatch *MismatchError
		_, err := Read(files, home, segments.Format{})
		require.ErrorAs(t, err, &mismatch)
		require.ErrorIs(t, err, fault.ErrStorageMismatch)
		require.Equal(t, MismatchError{Dir: home, Has: storage.Bolt, Wants: storage.Segments}, *mismatch)
		_, err = Open(files, home, segments.Format{}, false)
		require.ErrorAs(t, err, &mismatch)
	}
}
