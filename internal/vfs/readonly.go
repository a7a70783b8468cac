// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"io"
	"os"
	"syscall"
)

// ReadOnly returns a file system with the files of fs that rejects every change with syscall.EROFS. It
// takes a lock only if the lock file exists. Files of the operating system are opened without write
// permission.
func ReadOnly(fs FS) FS {
	if _, ok := fs.(OS); ok {
		fs = readOnlyOS{}
	}
	return readOnly{fs}
}

// readOnlyOS is OS, but opens files only for reading.
type readOnlyOS struct{ OS }

func (readOnlyOS) Open(name string) (File, error) { return open(name, os.O_RDONLY) }

func (readOnlyOS) Lock(name string) (io.Closer, error) { return lock(name, os.O_RDONLY) }

type readOnly struct{ fs FS }

func refuse(op, name string) error { return &os.PathError{Op: op, Path: name, Err: syscall.EROFS} }

// MkdirAll implements FS.
func (readOnly) MkdirAll(dir string) error { return refuse("mkdir", dir) }

// Create implements FS.
func (readOnly) Create(name string) (File, error) { return nil, refuse("create", name) }

// Open implements FS.
func (r readOnly) Open(name string) (File, error) {
	f, err := r.fs.Open(name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f, name}, nil
}

// Rename implements FS.
func (readOnly) Rename(from, _ string) error { return refuse("rename", from) }

// Remove implements FS.
func (readOnly) Remove(name string) error { return refuse("remove", name) }

// ReadDir implements FS.
func (r readOnly) ReadDir(dir string) ([]string, error) { return r.fs.ReadDir(dir) }

// SyncDir implements FS.
func (readOnly) SyncDir(dir string) error { return refuse("sync", dir) }

// Lock implements FS.
func (r readOnly) Lock(name string) (io.Closer, error) {
	f, err := r.fs.Open(name) // to lock a missing file would create it
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return r.fs.Lock(name)
}

type readOnlyFile struct {
	File
	name string
}

// WriteAt implements File.
func (f readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, refuse("write", f.name) }

// Allocate implements File.
func (f readOnlyFile) Allocate(int64) error { return refuse("allocate", f.name) }

// Truncate implements File.
func (f readOnlyFile) Truncate(int64) error { return refuse("truncate", f.name) }

// Flush implements File. There is nothing to write.
func (readOnlyFile) Flush(int64, int64) {}

// Sync implements File.
func (f readOnlyFile) Sync() error { return refuse("sync", f.name) }
