// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// random returns a source of random numbers and logs its seed.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	a, b := rand.Uint64(), rand.Uint64()
	t.Logf("seed %d, %d", a, b)
	return rand.New(rand.NewPCG(a, b))
}

// forgetful returns an empty disk with a directory.
func forgetful(t testing.TB) (*Memory, FS) {
	t.Helper()
	disk := NewForgetful()
	files := disk.Mount()
	require.NoError(t, files.MkdirAll("/d"))
	return disk, files
}

func put(t testing.TB, files FS, name, text string) File {
	t.Helper()
	f, err := files.Create(name)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	require.NoError(t, err)
	return f
}

func TestCopyIsIndependent(t *testing.T) {
	disk, files := forgetful(t)
	f := put(t, files, "/d/file", "first")
	_, err := files.Lock("/d/lock")
	require.NoError(t, err)
	other := disk.Copy()
	_, err = f.WriteAt([]byte("other"), 0)
	require.NoError(t, err)
	other.Crash(nil)
	copied := other.Mount()
	require.Equal(t, map[string]string{"file": "first", "lock": ""}, state(t, copied))
	_, err = copied.Lock("/d/lock")
	require.NoError(t, err)
	lasting(t, copied, "/d/file", "second")
	require.Equal(t, "other", state(t, files)["file"])
}

// lasting makes a durable file.
func lasting(t testing.TB, files FS, name, text string) File {
	t.Helper()
	f := put(t, files, name, text)
	require.NoError(t, f.Sync())
	require.NoError(t, files.SyncDir("/d"))
	return f
}

// state returns the contents of the files in a directory, by name.
func state(t testing.TB, files FS) map[string]string {
	t.Helper()
	names, err := files.ReadDir("/d")
	require.NoError(t, err)
	all := map[string]string{}
	for _, name := range names {
		f, err := files.Open("/d/" + name)
		require.NoError(t, err)
		size, err := f.Size()
		require.NoError(t, err)
		b := make([]byte, size)
		if size > 0 {
			_, err = f.ReadAt(b, 0)
			require.NoError(t, err)
		}
		all[name] = string(b)
	}
	return all
}

func TestCrashKeepsExactlySyncedData(t *testing.T) {
	disk, files := forgetful(t)
	kept := lasting(t, files, "/d/kept", "kept")
	lasting(t, files, "/d/moved", "moved")
	lasting(t, files, "/d/removed", "removed")
	lasting(t, files, "/d/replaced", "old")
	_, err := kept.WriteAt([]byte("KEPT and more"), 0)
	require.NoError(t, err)
	require.NoError(t, files.Rename("/d/moved", "/d/elsewhere"))
	require.NoError(t, files.Remove("/d/removed"))
	require.NoError(t, put(t, files, "/d/part", "new").Sync())
	require.NoError(t, files.Rename("/d/part", "/d/replaced"))
	require.NoError(t, put(t, files, "/d/made", "made").Sync())
	disk.Crash(nil)
	files = disk.Mount()
	want := map[string]string{"kept": "kept", "moved": "moved", "removed": "removed", "replaced": "old"}
	require.Equal(t, want, state(t, files))

	// The same, with the directory synced.
	require.NoError(t, files.Rename("/d/moved", "/d/elsewhere"))
	require.NoError(t, files.Remove("/d/removed"))
	require.NoError(t, put(t, files, "/d/part", "new").Sync())
	require.NoError(t, files.Rename("/d/part", "/d/replaced"))
	put(t, files, "/d/made", "made")
	require.NoError(t, files.SyncDir("/d"))
	disk.Crash(nil)
	files = disk.Mount()
	require.Equal(t, map[string]string{"kept": "kept", "elsewhere": "moved", "replaced": "new", "made": ""}, state(t, files))
}

func TestCrashUndoesUnsyncedSizes(t *testing.T) {
	disk, files := forgetful(t)
	f := lasting(t, files, "/d/f", "hello")
	require.NoError(t, f.Truncate(2))
	require.NoError(t, f.Allocate(10))
	disk.Crash(nil)
	files = disk.Mount()
	require.Equal(t, map[string]string{"f": "hello"}, state(t, files))

	f, err := files.Open("/d/f")
	require.NoError(t, err)
	require.NoError(t, f.Truncate(2))
	require.NoError(t, f.Truncate(4))
	require.NoError(t, f.Sync())
	disk.Crash(nil)
	require.Equal(t, map[string]string{"f": "he\x00\x00"}, state(t, disk.Mount()))
}

func TestRandomCrashKeepsSomeUnsyncedData(t *testing.T) {
	r := random(t)
	seen := map[string]bool{}
	for range 300 {
		disk, files := forgetful(t)
		f := lasting(t, files, "/d/f", "aaaa")
		_, err := f.WriteAt([]byte("bb"), 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("c"), 3)
		require.NoError(t, err)
		require.NoError(t, files.Rename("/d/f", "/d/g"))
		require.NoError(t, files.Rename("/d/g", "/d/h"))
		disk.Crash(r)
		got := state(t, disk.Mount())
		require.Len(t, got, 1, "a rename is done or not")
		for name, text := range got {
			require.Contains(t, []string{"f", "g", "h"}, name)
			require.Contains(t, []string{"aaaa", "baaa", "bbaa", "aaac", "baac", "bbac"}, text)
			seen[name], seen[text] = true, true
		}
	}
	require.Len(t, seen, 9, "each outcome may happen")
}

func TestRandomCrashKeepsSyncedData(t *testing.T) {
	r := random(t)
	for range 50 {
		disk, files := forgetful(t)
		lasting(t, files, "/d/a", "aaaa")
		put(t, files, "/d/b", "bbbb")
		disk.Crash(r)
		got := state(t, disk.Mount())
		require.Equal(t, "aaaa", got["a"])
		require.True(t, strings.HasPrefix("bbbb", got["b"]), got["b"])
	}
}

func TestOpenFilesFailAfterCrash(t *testing.T) {
	disk, files := forgetful(t)
	f := lasting(t, files, "/d/f", "hello")
	lock, err := files.Lock("/d/lock")
	require.NoError(t, err)
	require.NoError(t, files.SyncDir("/d"))
	disk.Crash(nil)
	now := disk.Mount()
	changes := disk.Changes()
	_, err = f.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = f.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = f.Size()
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = files.Open("/d/f")
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = files.Create("/d/g")
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = files.ReadDir("/d")
	require.ErrorIs(t, err, os.ErrClosed)
	for _, err := range []error{
		f.Sync(), f.Truncate(0), f.Allocate(9), files.Remove("/d/f"), files.Rename("/d/f", "/d/g"), files.SyncDir("/d"), files.MkdirAll("/e"),
	} {
		require.ErrorIs(t, err, os.ErrClosed)
	}
	require.Equal(t, changes, disk.Changes(), "operations of a dead process change nothing")
	require.Equal(t, "hello", state(t, now)["f"])

	again, err := now.Lock("/d/lock")
	require.NoError(t, err, "the lock ended with its process")
	require.NoError(t, lock.Close())
	_, err = now.Lock("/d/lock")
	require.ErrorIs(t, err, ErrLocked, "the dead process can no longer release it")
	require.NoError(t, again.Close())
}

func TestKillKeepsDataUntilCrash(t *testing.T) {
	disk, files := forgetful(t)
	f := lasting(t, files, "/d/f", "hello")
	_, err := files.Lock("/d/f")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("J"), 0)
	require.NoError(t, err)
	disk.FreezeAfter(0)
	require.Error(t, f.Sync())
	disk.Kill()
	require.ErrorIs(t, f.Sync(), os.ErrClosed)
	now := disk.Mount()
	require.Equal(t, map[string]string{"f": "Jello"}, state(t, now))
	_, err = now.Lock("/d/f")
	require.NoError(t, err)
	disk.Crash(nil)
	require.Equal(t, map[string]string{"f": "hello"}, state(t, disk.Mount()))
}

func TestStallBlocksChangesNotReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files := forgetful(t)
		f := lasting(t, files, "/d/f", "hello")
		disk.Stall(true)
		done := make(chan error, 4)
		for _, change := range []func() error{
			func() error { _, err := f.WriteAt([]byte("J"), 0); return err },
			f.Sync,
			func() error { return files.SyncDir("/d") },
			func() error { _, err := files.Create("/d/g"); return err },
		} {
			go func() { done <- change() }()
		}
		time.Sleep(time.Hour) // the clock of a bubble advances only if all goroutines are durably blocked
		require.Empty(t, done)
		require.Equal(t, map[string]string{"f": "hello"}, state(t, files))
		disk.Stall(false)
		for range cap(done) {
			require.NoError(t, <-done)
		}
		require.Equal(t, map[string]string{"f": "Jello", "g": ""}, state(t, files))

		disk.Stall(true)
		go func() { done <- f.Sync() }()
		synctest.Wait()
		disk.Crash(nil)
		require.ErrorIs(t, <-done, os.ErrClosed)
	})
}

func TestDelayAppliesToChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files := forgetful(t)
		f := lasting(t, files, "/d/f", "hello")
		disk.Delay(time.Second)
		begin := time.Now()
		state(t, files)
		require.Zero(t, time.Since(begin))
		_, err := f.WriteAt([]byte("x"), 0)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		require.Equal(t, 2*time.Second, time.Since(begin))
	})
}

func TestFullDiskRejectsGrowth(t *testing.T) {
	disk, files := forgetful(t)
	f := lasting(t, files, "/d/f", "hello")
	disk.Fill(true)
	_, err := f.WriteAt([]byte("Hello"), 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("!"), 5)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorIs(t, f.Allocate(6), syscall.ENOSPC)
	require.NoError(t, f.Allocate(5))
	_, err = files.Create("/d/g")
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Truncate(4))
	require.NoError(t, f.Sync())
	require.Equal(t, map[string]string{"f": "Hell"}, state(t, files))
	disk.Fill(false)
	_, err = f.WriteAt([]byte("o!"), 4)
	require.NoError(t, err)
}

func TestFailedOrLyingSyncIsNotDurable(t *testing.T) {
	disk, files := forgetful(t)
	f := lasting(t, files, "/d/f", "hello")
	broken := errors.New("broken")
	disk.FailSync(broken)
	_, err := f.WriteAt([]byte("J"), 0)
	require.NoError(t, err)
	require.ErrorIs(t, f.Sync(), broken)
	disk.FailSync(nil)
	disk.Lie(true)
	require.NoError(t, f.Sync())
	require.NoError(t, put(t, files, "/d/g", "x").Sync())
	require.NoError(t, files.SyncDir("/d"))
	disk.Crash(nil)
	require.Equal(t, map[string]string{"f": "hello"}, state(t, disk.Mount()))
}

func TestFrozenDiskFailsUntilCrash(t *testing.T) {
	disk, files := forgetful(t)
	f := lasting(t, files, "/d/f", "hello")
	before := disk.Changes()
	disk.FreezeAfter(1)
	_, err := f.WriteAt([]byte("J"), 0)
	require.NoError(t, err)
	require.ErrorIs(t, f.Sync(), os.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, os.ErrClosed)
	require.Equal(t, before+2, disk.Changes())
	disk.Crash(nil)
	files = disk.Mount()
	require.Equal(t, map[string]string{"f": "hello"}, state(t, files))
	lasting(t, files, "/d/f", "again")
}

func TestDamageFlipsBitDurably(t *testing.T) {
	disk, files := forgetful(t)
	f := lasting(t, files, "/d/f", "a")
	require.NoError(t, f.Truncate(3))
	require.NoError(t, f.Sync())
	require.True(t, disk.Damage("/d/f", 0))
	require.True(t, disk.Damage("/d/f", 2), "unwritten zeros count as bytes")
	require.False(t, disk.Damage("/d/f", 3))
	require.False(t, disk.Damage("/d/g", 0))
	require.False(t, disk.Damage("/e/g", 0))
	require.Equal(t, map[string]string{"f": "`\x00\x01"}, state(t, files))
	disk.Crash(nil)
	require.Equal(t, map[string]string{"f": "`\x00\x01"}, state(t, disk.Mount()))
}

func TestDurableDiskKeepsNoWrites(t *testing.T) {
	disk := NewMemory()
	files := disk.Mount()
	require.NoError(t, files.MkdirAll("/d"))
	f := put(t, files, "/d/f", "x")
	for i := range 100 {
		_, err := f.WriteAt([]byte("x"), int64(i))
		require.NoError(t, err)
		require.NoError(t, f.Truncate(int64(i)))
		require.NoError(t, f.Allocate(int64(i)))
		put(t, files, "/d/g", "x")
		require.NoError(t, files.Rename("/d/g", "/d/h"))
		require.NoError(t, files.SyncDir("/d"))
	}
	require.Empty(t, disk.dirs["/d"].pending)
	require.Empty(t, disk.dirs["/d"].durable)
	for _, c := range disk.dirs["/d"].names {
		require.Empty(t, c.pending)
		require.Empty(t, c.durable)
	}
}
