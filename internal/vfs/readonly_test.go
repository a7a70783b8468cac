// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestReadOnlyRejectsEveryChange(t *testing.T) {
	disk := vfs.NewMemory()
	for name, c := range map[string]struct {
		fs  vfs.FS
		dir string
	}{"system": {vfs.OS{}, t.TempDir()}, "memory": {disk.Mount(), "/dir"}} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, c.fs.MkdirAll(c.dir))
			file, lock := filepath.Join(c.dir, "file"), filepath.Join(c.dir, "lock")
			f, err := c.fs.Create(file)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte("content"), 0)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			before := disk.Changes()

			fs := vfs.ReadOnly(c.fs)
			_, err = fs.Lock(lock)
			require.ErrorIs(t, err, os.ErrNotExist)
			f, err = fs.Open(file)
			require.NoError(t, err)
			b := make([]byte, 7)
			_, err = f.ReadAt(b, 0)
			require.NoError(t, err)
			require.Equal(t, "content", string(b))
			size, err := f.Size()
			require.NoError(t, err)
			require.EqualValues(t, 7, size)
			_, err = f.WriteAt([]byte("other"), 0)
			require.ErrorIs(t, err, syscall.EROFS)
			f.Flush(0, 7)
			for _, err := range []error{
				f.Allocate(100), f.Truncate(0), f.Sync(), fs.MkdirAll(filepath.Join(c.dir, "below")),
				fs.Rename(file, lock), fs.Remove(file), fs.SyncDir(c.dir),
			} {
				require.ErrorIs(t, err, syscall.EROFS)
			}
			_, err = fs.Create(lock)
			require.ErrorIs(t, err, syscall.EROFS)
			require.NoError(t, f.Close())
			names, err := fs.ReadDir(c.dir)
			require.NoError(t, err)
			require.Equal(t, []string{"file"}, names)
			require.Equal(t, before, disk.Changes())

			held, err := c.fs.Lock(lock)
			require.NoError(t, err)
			_, err = fs.Lock(lock)
			require.ErrorIs(t, err, vfs.ErrLocked)
			require.NoError(t, held.Close())
			held, err = fs.Lock(lock)
			require.NoError(t, err)
			_, err = c.fs.Lock(lock)
			require.ErrorIs(t, err, vfs.ErrLocked)
			require.NoError(t, held.Close())
		})
	}
}

func TestReadOnlyNeedsNoWritePermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everything")
	}
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, nil, 0o400))
	f, err := vfs.ReadOnly(vfs.OS{}).Open(name)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
