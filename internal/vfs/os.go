// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"io"
	"os"
	"path/filepath"
)

// OS is the operating system's file system.
type OS struct{}

// MkdirAll is FS.
func (fs OS) MkdirAll(dir string) error {
	parent := filepath.Dir(dir)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		// Whoever made it may have been killed before it was durable. A parent that must not be opened
		// is not one in which this process has made it.
		_ = fs.SyncDir(parent)
		return nil
	}
	if parent != dir {
		if err := fs.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		// Somebody else may have made it meanwhile, but not a file.
		if info, statErr := os.Stat(dir); statErr != nil || !info.IsDir() {
			return err
		}
	}
	return fs.SyncDir(parent)
}

// Create is FS.
func (OS) Create(name string) (File, error) {
	return open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

// Open is FS.
func (OS) Open(name string) (File, error) { return open(name, os.O_RDWR) }

func open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename is FS.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove is FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// ReadDir is FS.
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

// SyncDir is FS.
func (OS) SyncDir(dir string) error { return syncDir(dir) }

// Lock is FS.
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

type osFile struct{ *os.File }

// Size is File.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Allocate is File.
func (f osFile) Allocate(size int64) error { return allocate(f.File, size) }

// Sync is File.
func (f osFile) Sync() error { return syncError(syncFile(f.File)) }

// lengthen makes a file at least so long, where the system cannot be asked for room.
func lengthen(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return f.Truncate(size)
}
