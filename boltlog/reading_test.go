// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestReadingChangesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	all := entries(1, 50, 500)
	write(t, s, 4, appended(all))
	require.NoError(t, s.Identity().Save([]byte("identity")))
	s.Extend(storage.Extent{Index: 50, Term: 3})
	require.NoError(t, s.Close())
	files := func() map[string]string {
		found := map[string]string{}
		names, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range names {
			info, err := e.Info()
			require.NoError(t, err)
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			require.NoError(t, err)
			found[e.Name()] = info.ModTime().String() + string(b)
		}
		return found
	}
	before := files()
	require.NoError(t, os.Chmod(dir, 0o500))
	defer os.Chmod(dir, 0o700)
	r, err := New(Options{}).Format().Read(vfs.ReadOnly(vfs.OS{}), dir, func(_ string, err error) { t.Error(err) })
	require.NoError(t, err)
	require.Equal(t, storage.Loaded{First: 1, Last: 50, Applied: 4, Reached: storage.Extent{Index: 50, Term: 3}}, r.Loaded())
	require.Zero(t, r.Torn())
	require.Equal(t, s.db.name, r.File(7))
	for _, l := range all {
		got, err := r.Entry(l.Index)
		require.NoError(t, err)
		require.Equal(t, l, got)
	}
	for _, index := range []uint64{0, 51} {
		_, err := r.Entry(index)
		require.Equal(t, raft.ErrLogNotFound, err)
	}
	vote, err := r.Vote()
	require.NoError(t, err)
	require.Nil(t, vote)
	identity, err := r.Identity()
	require.NoError(t, err)
	require.Equal(t, "identity", string(identity))
	require.NoError(t, r.Close())
	require.Equal(t, before, files())
}

func TestReadingOfNothingIsEmpty(t *testing.T) {
	r, err := New(Options{}).Format().Read(vfs.ReadOnly(vfs.OS{}), t.TempDir(), func(_ string, err error) { t.Error(err) })
	require.NoError(t, err)
	require.Zero(t, r.Loaded())
	_, err = r.Entry(1)
	require.Equal(t, raft.ErrLogNotFound, err)
	require.NoError(t, r.Close())
}

func TestDamagedRecordIsReported(t *testing.T) {
	for _, key := range []string{keyVote, keyIdentity, keyState} {
		dir := t.TempDir()
		s := open(t, dir)
		write(t, s, 4, appended(entries(1, 5, 50)))
		require.NoError(t, s.db.bolt.Set([]byte(key), []byte("damaged")))
		require.NoError(t, s.Close())
		var reported []error
		r, err := read(vfs.ReadOnly(vfs.OS{}), dir, func(file string, err error) {
			require.Equal(t, s.db.name, file)
			reported = append(reported, err)
		})
		require.NoError(t, err)
		_, vote := r.Vote()
		_, identity := r.Identity()
		require.Equal(t, key == keyVote, vote != nil)
		require.Equal(t, key == keyIdentity, identity != nil)
		require.Equal(t, key == keyState, len(reported) > 0)
		require.NoError(t, r.Close())
		if s, err := openStore(vfs.OS{}, dir, Options{}); err == nil {
			_, vote = s.Vote().Load()
			_, identity = s.Identity().Load()
			require.NoError(t, s.Close())
		} else {
			require.Equal(t, keyState, key)
			vote = err
		}
		var corrupt *storage.CorruptError
		for _, err := range append(reported, vote, identity) {
			if err != nil {
				require.ErrorAs(t, err, &corrupt)
				require.Equal(t, s.db.name, corrupt.File)
			}
		}
	}
}
