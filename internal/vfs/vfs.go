// SPDX-License-Identifier: Apache-2.0

// Package vfs is the file system interface that storage code uses. It is implemented by the operating
// system's file system, and by one in memory that loses unsynced data in a crash, and that can stall,
// fill up or damage its contents. All storage code uses FS, so that tests can simulate every crash.
package vfs

import (
	"context"
	"errors"
	"io"
)

// ErrLocked: the lock is taken.
var ErrLocked = errors.New("vfs: locked")

// An FS is a file system. Its methods may be called concurrently. Names are paths in the system's format.
// Data written to a file is durable after the file's Sync. That a name exists, is gone, or refers to
// another file is durable after SyncDir of its directory.
type FS interface {
	// MkdirAll durably makes a directory and its parents, unless they exist.
	MkdirAll(dir string) error
	// Create makes a file. If the file exists, Create empties it.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Rename renames a file, and replaces another file of the new name.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes the names in a directory durable. A *SyncError says that the sync itself failed.
	SyncDir(dir string) error
	// Lock takes a lock that is held until Close or the end of the process. It returns ErrLocked if the
	// lock is taken.
	Lock(name string) (io.Closer, error)
}

// A File is an open file. ReadAt may be called concurrently with all other methods.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Size returns the file's length.
	Size() (int64, error)
	// Allocate makes the file at least size bytes long, filled with zeros, and allocates disk space for
	// it.
	Allocate(size int64) error
	// Truncate shortens the file, or lengthens it with zeros.
	Truncate(size int64) error
	// Flush asks the system to begin to write n bytes from an offset to the disk, and does not wait for them. They are
	// durable only after Sync, which then takes less time. Sync reports the errors of the disk. Some systems ignore Flush.
	Flush(at, n int64)
	// Sync makes the written data durable, or returns a *SyncError.
	Sync() error
	// Close closes the file without a Sync.
	Close() error
}

type contextKey struct{}

// With returns a context that passes a file system to Open: tests use it to inject faults below a node.
func With(ctx context.Context, fs FS) context.Context {
	return context.WithValue(ctx, contextKey{}, fs)
}

// For returns the file system in ctx, or the operating system's.
func For(ctx context.Context) FS {
	if fs := From(ctx); fs != nil {
		return fs
	}
	return OS{}
}

// From returns the file system in ctx, or nil.
func From(ctx context.Context) FS {
	fs, _ := ctx.Value(contextKey{}).(FS)
	return fs
}
