// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"io"
	"os"
	"syscall"
)

// ReadOnly returns a file system that has what fs has and refuses every change with syscall.EROFS.
// A lock it takes only if its file is there. Of the operating system's it asks no right to write.
func ReadOnly(fs FS) FS {
	if _, ok := fs.(OS); ok {
		fs = readOnlyOS{}
	}
	return readOnly{fs}
}

// readOnlyOS is OS where no file is opened to be written.
type readOnlyOS struct{ OS }

func (readOnlyOS) Open(name string) (File, error) { return open(name, os.O_RDONLY) }

func (readOnlyOS) Lock(name string) (io.Closer, error) { return lock(name, os.O_RDONLY) }

type readOnly struct{ fs FS }

func refuse(op, name string) error { return &os.PathError{Op: op, Path: name, Err: syscall.EROFS} }

// MkdirAll is FS.
func (readOnly) MkdirAll(dir string) error { return refuse("mkdir", dir) }

// Create is FS.
func (readOnly) Create(name string) (File, error) { return nil, refuse("create", name) }

// Open is FS.
func (r readOnly) Open(name string) (File, error) {
	f, err := r.fs.Open(name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f, name}, nil
}

// Rename is FS.
func (readOnly) Rename(from, _ string) error { return refuse("rename", from) }

// Remove is FS.
func (readOnly) Remove(name string) error { return refuse("remove", name) }

// ReadDir is FS.
func (r readOnly) ReadDir(dir string) ([]string, error) { return r.fs.ReadDir(dir) }

// SyncDir is FS.
func (readOnly) SyncDir(dir string) error { return refuse("sync", dir) }

// Lock is FS.
func (r readOnly) Lock(name string) (io.Closer, error) {
	f, err := r.fs.Open(name) // to take a lock whose file is missing would make it
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

// WriteAt is File.
func (f readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, refuse("write", f.name) }

// Allocate is File.
func (f readOnlyFile) Allocate(int64) error { return refuse("allocate", f.name) }

// Truncate is File.
func (f readOnlyFile) Truncate(int64) error { return refuse("truncate", f.name) }

// Sync is File.
func (f readOnlyFile) Sync() error { return refuse("sync", f.name) }
