// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// replace makes the descriptor of a database refer to another file. It returns a function that undoes that.
func replace(t *testing.T, d *database, by string) (restore func()) {
	t.Helper()
	other, err := os.OpenFile(by, os.O_RDWR, 0)
	require.NoError(t, err)
	defer other.Close()
	own := int(d.file.Fd())
	saved, err := syscall.Dup(own) // it keeps the lock, too
	require.NoError(t, err)
	require.NoError(t, syscall.Dup3(int(other.Fd()), own, syscall.O_CLOEXEC))
	return func() {
		require.NoError(t, syscall.Dup3(saved, own, syscall.O_CLOEXEC))
		require.NoError(t, syscall.Close(saved))
	}
}

func TestFullDiskCanBeRepeated(t *testing.T) {
	s := open(t, t.TempDir())
	all := entries(1, 20, 100)
	write(t, s, 1, appended(all[:5]))
	write(t, s, 1, appended(all[5:10]))
	restore := replace(t, s.db, "/dev/full")
	changes := []storage.Change{appended(all[10:15]), truncated(14), appended(entries(14, 20, 100))}
	for range 3 {
		_, err := s.Write(changes, 2)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.True(t, vfs.Short(err))
		require.ErrorIs(t, s.Vote().Save([]byte("vote")), syscall.ENOSPC)
	}
	l, err := s.Entry(7)
	require.NoError(t, err)
	require.Equal(t, all[6], l)
	restore()
	write(t, s, 2, changes...)
	require.NoError(t, s.Vote().Save([]byte("vote")))
	s = reopen(t, s)
	holds(t, s, 2, all)
	require.NoError(t, s.Close())
}

func TestFailedSyncIsNotRepeated(t *testing.T) {
	s := open(t, t.TempDir())
	write(t, s, 1, appended(entries(1, 5, 10)))
	write(t, s, 1, appended(entries(6, 7, 10)))
	restore := replace(t, s.db, "/dev/null") // it accepts every write and cannot be synced
	_, err := s.Write([]storage.Change{appended(entries(8, 8, 10))}, 1)
	restore()
	var failed *vfs.SyncError
	require.ErrorAs(t, err, &failed)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.False(t, vfs.Short(err))
	require.ErrorAs(t, s.Vote().Save(nil), &failed) // the system may have dropped data
	_ = s.Close()
	s = open(t, filepath.Dir(s.db.name))
	holds(t, s, 1, entries(1, 7, 10))
	require.NoError(t, s.Close())
}

// The system ends a process that reads a mapping beyond the end of the file, unless the process prevents that.
func TestShortenedFileEndsNoProcess(t *testing.T) {
	s := open(t, t.TempDir())
	write(t, s, 1, appended(entries(1, 2000, 1000)))
	whole, err := os.ReadFile(s.db.name)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(s.db.name, int64(4*os.Getpagesize())))
	var corrupt *storage.CorruptError
	for range 2 {
		_, err = s.Entry(1500)
		require.ErrorAs(t, err, &corrupt)
		require.Equal(t, s.db.name, corrupt.File)
		require.ErrorContains(t, err, "shortened the file")
	}
	_, err = s.Write([]storage.Change{appended(entries(2001, 2001, 10))}, 1)
	require.ErrorAs(t, err, &corrupt)
	_, err = s.Identity().Load()
	require.ErrorAs(t, err, &corrupt)
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(s.db.name, whole, 0o600))
	s = open(t, filepath.Dir(s.db.name)) // the lock is free
	require.NoError(t, s.Close())
}

func TestShortenedFileEndsNoWriter(t *testing.T) {
	s := open(t, t.TempDir())
	write(t, s, 1, appended(entries(1, 2000, 1000)))
	require.NoError(t, os.Truncate(s.db.name, 0))
	_, err := s.Write([]storage.Change{truncated(1000)}, 1)
	var corrupt *storage.CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.NoError(t, s.Close())
}

// limited runs the rest of a test in a process of its own, so that it can lower limits of the process. It returns
// false in the process that has started the other one.
func limited(t *testing.T) bool {
	t.Helper()
	const inside = "BOLTLOG_TEST_LIMITED"
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
	return false
}

// limit lowers a limit, and returns a function that raises it again.
func limit(t *testing.T, resource int, n uint64) (restore func()) {
	t.Helper()
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(resource, &old))
	require.NoError(t, syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: old.Max}))
	return func() { require.NoError(t, syscall.Setrlimit(resource, &old)) }
}

func TestShortageOfDescriptorsIsShort(t *testing.T) {
	if !limited(t) {
		return
	}
	dir := t.TempDir()
	s := open(t, dir)
	require.NoError(t, s.Close())
	for free := range uint64(6) {
		for _, dir := range []string{dir, t.TempDir()} { // an old log, and a new one
			next, err := os.Open(dir)
			require.NoError(t, err)
			restore := limit(t, syscall.RLIMIT_NOFILE, uint64(next.Fd())+free)
			require.NoError(t, next.Close())
			s, err := openStore(vfs.OS{}, dir, Options{})
			restore()
			if err == nil {
				require.NoError(t, s.Close())
				continue
			}
			require.True(t, vfs.Short(err), "%v", err)
			s = open(t, dir)
			require.NoError(t, s.Close())
		}
	}
}

// used returns how much address space the process uses.
func used(t *testing.T) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	pages, err := strconv.ParseUint(strings.Fields(string(b))[0], 10, 64)
	require.NoError(t, err)
	return pages * uint64(os.Getpagesize())
}

// When the file outgrows its mapping, bbolt gives the mapping up before it asks for a larger one.
func TestShortageOfMemoryIsShort(t *testing.T) {
	if !limited(t) {
		return
	}
	s := open(t, t.TempDir())
	const size, batch = 64 << 10, 16
	next := uint64(1)
	add := func() error {
		_, err := s.Write([]storage.Change{appended(entries(next, next+batch-1, size))}, 1)
		if err == nil {
			next += batch
		}
		return err
	}
	for next*size < 50<<20 {
		require.NoError(t, add())
	}
	restore := limit(t, syscall.RLIMIT_AS, used(t)+16<<20)
	var err error
	for next*size < 200<<20 && err == nil {
		err = add()
	}
	require.ErrorIs(t, err, syscall.ENOMEM)
	require.True(t, vfs.Short(err), "%v", err)
	err = add()
	require.True(t, vfs.Short(err), "%v", err)
	_, err = s.Entry(3) // bbolt has no mapping
	require.True(t, vfs.Short(err), "%v", err)
	restore()
	require.NoError(t, add())
	holds(t, s, 1, entries(1, next-1, size))
	s = reopen(t, s)
	holds(t, s, 1, entries(1, next-1, size))
	require.NoError(t, s.Close())
}

func TestLimitOfFileSizeIsAnError(t *testing.T) {
	if !limited(t) {
		return
	}
	s := open(t, t.TempDir())
	restore := limit(t, syscall.RLIMIT_FSIZE, 1<<20)
	all := entries(1, 300, 10<<10)
	var err error
	for n := 0; n < len(all) && err == nil; n += 5 {
		_, err = s.Write([]storage.Change{appended(all[n : n+5])}, 1)
	}
	restore()
	require.ErrorIs(t, err, syscall.EFBIG)
	require.False(t, vfs.Short(err))
	require.NoError(t, s.Close())
	s = open(t, filepath.Dir(s.db.name))
	require.NoError(t, s.Close())
}

func TestFullFileSystemCanBeRepeated(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	defer func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	s := open(t, dir)
	filler := filepath.Join(dir, "filler")
	all := entries(1, 1000, 10<<10)
	n, shortages := 0, 0
	for ; shortages < 3 && n < len(all); n += 2 {
		_, err := s.Write([]storage.Change{appended(all[n : n+2])}, 1)
		if err == nil {
			continue
		}
		require.True(t, vfs.Short(err), "%v", err)
		shortages++
		l, err := s.Entry(1)
		require.NoError(t, err)
		require.Equal(t, all[0], l)
		require.NoError(t, s.Compact(1)) // a change that needs no space
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size="+strconv.Itoa(2+2*shortages)+"m"))
		write(t, s, 1, appended(all[n:n+2]))
	}
	require.Equal(t, 3, shortages)
	holds(t, s, 1, all[:n])
	for n := 1 << 20; n > 0; n /= 2 { // nothing is left for a new file
		f, err := os.OpenFile(filler, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		for err == nil {
			_, err = f.Write(make([]byte, n))
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.NoError(t, f.Close())
	}
	other := filepath.Join(dir, "other")
	require.NoError(t, os.Mkdir(other, 0o700))
	_, err := openStore(vfs.OS{}, other, Options{})
	require.True(t, vfs.Short(err), "%v", err)
	require.NoError(t, os.Remove(filler))
	o := open(t, other)
	require.NoError(t, o.Close())
	s = reopen(t, s)
	holds(t, s, 1, all[:n])
	require.NoError(t, s.Close())
}

func TestCallsAfterCloseFail(t *testing.T) {
	s := open(t, t.TempDir())
	write(t, s, 0, appended(entries(1, 2, 10)))
	require.NoError(t, s.Close())
	_, err := s.Entry(1)
	require.Error(t, err)
	require.False(t, errors.Is(err, raft.ErrLogNotFound))
}
