// SPDX-License-Identifier: Apache-2.0

package vfs_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// childLock is set in a child process of this test. Its value is the lock that the child tries to take.
const childLock = "VFS_TEST_LOCK"

func TestMain(m *testing.M) {
	if name := os.Getenv(childLock); name != "" {
		_, err := vfs.OS{}.Lock(name)
		fmt.Print(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// inBoth runs a test on both file systems, with an existing directory.
func inBoth(t *testing.T, test func(t *testing.T, fs vfs.FS, dir string)) {
	t.Helper()
	t.Run("OS", func(t *testing.T) { test(t, vfs.OS{}, t.TempDir()) })
	for name, disk := range map[string]*vfs.Memory{"Memory": vfs.NewMemory(), "Forgetful": vfs.NewForgetful()} {
		t.Run(name, func(t *testing.T) {
			fs := disk.Mount()
			require.NoError(t, fs.MkdirAll("/node"))
			test(t, fs, "/node")
		})
	}
}

// content returns the contents of a file.
func content(t testing.TB, f vfs.File) []byte {
	t.Helper()
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size+1)
	n, err := f.ReadAt(b, 0)
	require.ErrorIs(t, err, io.EOF)
	require.EqualValues(t, size, n)
	return b[:n]
}

// write makes a file with the given contents, which are not durable.
func write(t testing.TB, fs vfs.FS, name, text string) vfs.File {
	t.Helper()
	f, err := fs.Create(name)
	require.NoError(t, err)
	n, err := f.WriteAt([]byte(text), 0)
	require.NoError(t, err)
	require.Equal(t, len(text), n)
	return f
}

// read returns the contents of the file with a name.
func read(t testing.TB, fs vfs.FS, name string) string {
	t.Helper()
	f, err := fs.Open(name)
	require.NoError(t, err)
	defer f.Close()
	return string(content(t, f))
}

func TestReadAndWriteAtOffsets(t *testing.T) {
	inBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		f := write(t, fs, filepath.Join(dir, "file"), "hello")
		_, err := f.WriteAt([]byte("XY"), 1)
		require.NoError(t, err)
		require.Equal(t, "hXYlo", string(content(t, f)))
		_, err = f.WriteAt([]byte("end"), 8)
		require.NoError(t, err)
		require.Equal(t, "hXYlo\x00\x00\x00end", string(content(t, f)), "gaps are zeros")

		b := make([]byte, 4)
		n, err := f.ReadAt(b, 1)
		require.NoError(t, err)
		require.Equal(t, "XYlo", string(b[:n]))
		n, err = f.ReadAt(b, 9)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, "nd", string(b[:n]))
		n, err = f.ReadAt(b, 100)
		require.ErrorIs(t, err, io.EOF)
		require.Zero(t, n)
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
		require.Equal(t, "hXYlo\x00\x00\x00end", read(t, fs, filepath.Join(dir, "file")))
	})
}

func TestTruncateAndAllocateFillWithZeros(t *testing.T) {
	inBoth(t, func(t *testing.T, fs vfs.FS, dir string) {
		f := write(t, fs, filepath.Join(dir, "file"), "hello world")
		defer f.Close()
		require.NoError(t, f.Truncate(5))
		require.Equal(t, "hello", string(content(t, f)))
		require.NoError(t, f.Truncate(8))
		require.Equal(t, "hello\x00\x00\x00", string(content(t, f)), "truncated bytes do not come back")
		_, err := f.WriteAt([]byte("!"), 6)
		require.NoError(t, err)
		require.Equal(t, "hello\x00!\x00", string(content(t, f)))

		require.NoError(t, f.Allocate(5))
		require.Equal(t, "hello\x00!\x00", string(content(t, f)), "the file is long enough already")
		require.NoError(t, f.Allocate(4096))
		want := append([]byte("hello\x00!"), make([]byte, 4096-7)...)
		require.True(t, bytes.Equal(want, content(t, f)))
		require.NoError(t, f.Truncate(2))
		require.NoError(t, f.Allocate(4))
		require.Equal(t, "he\x00\x00", string(content(t, f)))
		require.NoError(t, f.Truncate(0))
		require.Empty(t, content(t, f))
	})
}

func TestFlushKeepsContents(t *testing.T) {
	inBoth(t, func(t *testing.T, files vfs.FS, dir string) {
		f := write(t, files, filepath.Join(dir, "a"), "some text")
		f.Flush(5, 4)
		f.Flush(0, 1<<20) // beyond the end
		require.Equal(t, "some text", string(content(t, f)))
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
		f.Flush(0, 1) // too late, and no error
	})
}

func TestCreateRenameRemove(t *testing.T) {
	inBoth(t, func(t *testing.T, files vfs.FS, dir string) {
		a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
		_, err := files.Open(a)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorIs(t, files.Remove(a), fs.ErrNotExist)
		require.ErrorIs(t, files.Rename(a, b), fs.ErrNotExist)

		for _, name := range []string{c, b, a} {
			require.NoError(t, write(t, files, name, name).Close())
		}
		names, err := files.ReadDir(dir)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b", "c"}, names)

		old, err := files.Open(b)
		require.NoError(t, err)
		defer old.Close()
		require.NoError(t, files.Rename(a, b))
		require.Equal(t, a, read(t, files, b))
		require.Equal(t, b, string(content(t, old)), "an open file stays readable")
		require.NoError(t, files.Remove(c))
		names, err = files.ReadDir(dir)
		require.NoError(t, err)
		require.Equal(t, []string{"b"}, names)
		require.NoError(t, files.SyncDir(dir))

		f, err := files.Create(b)
		require.NoError(t, err)
		defer f.Close()
		require.Empty(t, content(t, f), "Create empties an existing file")
		require.Empty(t, read(t, files, b))
	})
}

func TestMkdirAllMakesParents(t *testing.T) {
	inBoth(t, func(t *testing.T, files vfs.FS, dir string) {
		deep := filepath.Join(dir, "a", "b", "c")
		_, err := files.ReadDir(deep)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = files.Create(filepath.Join(deep, "file"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorIs(t, files.SyncDir(deep), fs.ErrNotExist)
		for range 2 {
			require.NoError(t, files.MkdirAll(deep+string(filepath.Separator)))
		}
		require.NoError(t, write(t, files, filepath.Join(deep, "file"), "x").Close())
		require.NoError(t, write(t, files, filepath.Join(dir, "file"), "x").Close())
		for above, want := range map[string][]string{
			deep: {"file"}, filepath.Dir(deep): {"c"}, filepath.Join(dir, "a"): {"b"}, dir: {"a", "file"},
		} {
			names, err := files.ReadDir(above)
			require.NoError(t, err)
			require.Equal(t, want, names, above)
			require.NoError(t, files.SyncDir(above))
		}
		require.Error(t, files.MkdirAll(filepath.Join(dir, "file")), "a file is not a directory")
		require.Error(t, files.MkdirAll(filepath.Join(dir, "file", "below")))
	})
}

func TestLockIsExclusive(t *testing.T) {
	inBoth(t, func(t *testing.T, files vfs.FS, dir string) {
		name := filepath.Join(dir, "lock")
		for range 2 {
			l, err := files.Lock(name)
			require.NoError(t, err)
			_, err = files.Lock(name)
			require.ErrorIs(t, err, vfs.ErrLocked)
			require.NoError(t, l.Close())
		}
		_, err := files.Lock(filepath.Join(dir, "missing", "lock"))
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func TestOneOfManyGetsLock(t *testing.T) {
	inBoth(t, func(t *testing.T, files vfs.FS, dir string) {
		for i := range 20 {
			var all sync.WaitGroup
			taken := make(chan io.Closer, 8)
			for range cap(taken) {
				all.Go(func() {
					if l, err := files.Lock(filepath.Join(dir, fmt.Sprint(i))); err == nil {
						taken <- l
					}
				})
			}
			all.Wait()
			require.Len(t, taken, 1)
			require.NoError(t, (<-taken).Close())
		}
	})
}

func TestLockEndsWithProcess(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	other := func() string {
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), childLock+"="+name, "GORACE=atexit_sleep_ms=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err)
		return strings.TrimSpace(string(out))
	}
	l, err := vfs.OS{}.Lock(name)
	require.NoError(t, err)
	require.Equal(t, vfs.ErrLocked.Error(), other())
	require.NoError(t, l.Close())
	require.Equal(t, "<nil>", other())
	l, err = vfs.OS{}.Lock(name)
	require.NoError(t, err, "the other process has ended")
	require.NoError(t, l.Close())
}

func TestContextCarriesFileSystem(t *testing.T) {
	require.Nil(t, vfs.From(t.Context()))
	files := vfs.NewMemory().Mount()
	require.Same(t, files, vfs.From(vfs.With(t.Context(), files)))
}
