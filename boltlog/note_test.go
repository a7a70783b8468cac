// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/slot"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Without its note, a log is whole. Without its log, a note says that the log is lost. So files that are removed one
// after the other, from the last one of Files to the first, never look like a loss.
func TestFilesEndWithTheNote(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	write(t, s, 1, appended(entries(1, 3, 10)))
	s.Extend(storage.Extent{Index: 3})
	require.NoError(t, s.Close())
	files, err := format{}.Files(vfs.OS{}, dir)
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, file := range slices.Backward(files) {
		require.NoError(t, os.Remove(file))
		require.NoError(t, open(t, dir).Close())
	}
}

// The transaction of an extent may be older than that of a vote, which another goroutine has saved meanwhile.
func TestNoteKeepsTheNewestTransaction(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	newest := s.db.transaction.Load() + 7
	s.note.advance(newest)
	s.Extend(storage.Extent{Index: 3})
	found, _, err := readNote(vfs.OS{}, dir)
	require.NoError(t, err)
	require.Equal(t, reached{newest, storage.Extent{Index: 3}}, found)
	require.NoError(t, s.Close())
}

func TestExtentIsKept(t *testing.T) {
	s := open(t, t.TempDir())
	for i := uint64(1); i <= 5; i++ {
		e := storage.Extent{Index: i, Term: 3, Snapshot: i / 2}
		write(t, s, 0, appended(entries(i, i, 10)))
		s.Extend(e)
		require.Equal(t, s.db.transaction.Load(), s.note.reached.transaction)
		s.Sync()
		require.False(t, s.note.dirty)
		s = reopen(t, s)
		loaded, err := s.Load()
		require.NoError(t, err)
		require.Equal(t, e, loaded.Reached)
	}
	require.NoError(t, s.Close())
}

func TestOlderFileIsFound(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	name := s.db.name
	save := func() []byte {
		require.NoError(t, s.Close())
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		s = open(t, dir)
		return b
	}
	write(t, s, 0, appended(entries(1, 5, 100)))
	older := [][]byte{save()}
	write(t, s, 0, appended(entries(6, 6, 100)))
	s.Extend(storage.Extent{Index: 6, Term: 3})
	older = append(older, save())
	require.NoError(t, s.Vote().Save([]byte("vote")))
	newest := save()
	require.NoError(t, s.Close())
	for range 3 { // an attempt to open a file does not make it newer
		for _, b := range older {
			require.NoError(t, os.WriteFile(name, b, 0o600))
			_, err := openStore(vfs.OS{}, dir, Options{})
			var corrupt *storage.CorruptError
			require.ErrorAs(t, err, &corrupt)
			require.Equal(t, name, corrupt.File)
			require.ErrorContains(t, err, "entry 6 of term 3")
			reported := false
			r, err := read(vfs.ReadOnly(vfs.OS{}), dir, func(file string, err error) {
				reported = true
				require.Equal(t, name, file)
				require.ErrorContains(t, err, "entry 6 of term 3")
			})
			require.NoError(t, err)
			require.True(t, reported)
			require.NoError(t, r.Close())
		}
	}
	require.NoError(t, os.WriteFile(name, newest, 0o600))
	s = open(t, dir)
	require.NoError(t, s.Close())
}

func TestMissingFileIsFound(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	write(t, s, 0, appended(entries(1, 5, 100)))
	s.Extend(storage.Extent{Index: 5, Term: 3})
	require.NoError(t, s.Close())
	files, err := format{}.Files(vfs.OS{}, dir)
	require.NoError(t, err)
	require.Equal(t, []string{s.db.name, filepath.Join(dir, noteFile)}, files)
	require.NoError(t, os.Remove(s.db.name))
	_, err = openStore(vfs.OS{}, dir, Options{})
	var corrupt *storage.CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, s.db.name, corrupt.File)
	require.ErrorContains(t, err, "it is missing")
	require.NoFileExists(t, s.db.name)
	_, err = read(vfs.OS{}, dir, func(_ string, err error) { require.ErrorContains(t, err, "it is missing") })
	require.NoError(t, err)
}

func TestDamagedNoteIsIgnored(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := uint64(1); i <= 2; i++ {
		write(t, s, 0, appended(entries(i, i, 100)))
		s.Extend(storage.Extent{Index: i, Term: 3})
	}
	name := filepath.Join(dir, noteFile)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	for i, want := range []uint64{1, 0} { // the older note, and none
		newest := s.note.serial - uint64(i)
		b[newest%slot.Count*slot.Size+slot.Header] ^= 1
		require.NoError(t, os.WriteFile(name, b, 0o600))
		found, _, err := readNote(vfs.OS{}, dir)
		require.NoError(t, err)
		require.Equal(t, want, found.extent.Index)
	}
	s = reopen(t, s)
	require.NoError(t, os.Remove(name))
	s = reopen(t, s)
	require.FileExists(t, name)
	require.NoError(t, s.Close())
}
