// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// OS is the operating system's file system.
type OS struct{}

// MkdirAll implements FS.
func (fs OS) MkdirAll(dir string) error {
	parent := filepath.Dir(dir)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		// The process that made it may have been killed before the sync. If this process may not open the
		// parent, it has not made dir there.
		_ = fs.SyncDir(parent)
		return nil
	}
	if parent != dir {
		if err := fs.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		// Another process may have made the directory in the meantime.
		if info, statErr := os.Stat(dir); statErr != nil || !info.IsDir() {
			return err
		}
	}
	return fs.SyncDir(parent)
}

// Create implements FS.
func (OS) Create(name string) (File, error) {
	return open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

// Open implements FS.
func (OS) Open(name string) (File, error) { return open(name, os.O_RDWR) }

func open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename implements FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// ReadDir implements FS.
func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// SyncDir implements FS.
func (OS) SyncDir(dir string) error { return syncDir(dir) }

// Lock implements FS.
func (OS) Lock(name string) (io.Closer, error) { return lock(name, os.O_RDWR|os.O_CREATE) }

func lock(name string, flag int) (io.Closer, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// LockFile opens a file and takes its lock, as OS.Lock does. UnlockFile or the end of the process releases the lock.
// Closing the file does, too, unless a part of the file is mapped into memory.
func LockFile(name string) (*os.File, error) {
	lock, err := OS{}.Lock(name)
	if err != nil {
		return nil, err
	}
	return lock.(*os.File), nil
}

// UnlockFile releases the lock of LockFile and closes the file.
func UnlockFile(f *os.File) error { return errors.Join(unlockFile(f), f.Close()) }

type osFile struct{ *os.File }

// Size implements File.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Allocate implements File.
func (f osFile) Allocate(size int64) error { return allocate(f.File, size) }

// Flush implements File.
func (f osFile) Flush(at, n int64) { flush(f.File, at, n) }

// Sync implements File.
func (f osFile) Sync() error { return syncError(syncFile(f.File)) }

// lengthen makes a file at least size bytes long, on systems that cannot allocate space.
func lengthen(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return f.Truncate(size)
}
