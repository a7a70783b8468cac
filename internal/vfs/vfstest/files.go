// SPDX-License-Identifier: Apache-2.0

package vfstest

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// Load returns the contents of a file.
func Load(t testing.TB, files vfs.FS, name string) []byte {
	t.Helper()
	f, err := files.Open(name)
	require.NoError(t, err)
	defer f.Close()
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
	}
	return b
}

// Save writes a file and makes it durable.
func Save(t testing.TB, files vfs.FS, name string, b []byte) {
	t.Helper()
	require.NoError(t, files.MkdirAll(filepath.Dir(name)))
	f, err := files.Create(name)
	require.NoError(t, err)
	_, err = f.WriteAt(b, 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	require.NoError(t, files.SyncDir(filepath.Dir(name)))
}
