// SPDX-License-Identifier: Apache-2.0

// Package vfs is the file system as storage needs it: that of the operating system, and one in
// memory that forgets in a crash what was not synced, and that can be made to stall, fill up or
// damage what it holds. All storage code is written against FS, so that every crash can be tried.
package vfs

import (
	"context"
	"errors"
	"io"
)

// ErrLocked: somebody else has the lock.
var ErrLocked = errors.New("vfs: locked")

// An FS is a file system. Its methods may be called concurrently. Names are paths of the system's
// form. What is written to a file is durable after the file's Sync; that a name exists, is gone, or
// names another file, after SyncDir of its directory.
type FS interface {
	// MkdirAll makes a directory and those above it, durably, unless they exist.
	MkdirAll(dir string) error
	// Create makes a file, or empties the one that has the name.
	Create(name string) (File, error)
	// Open opens a file that exists, to read and to write.
	Open(name string) (File, error)
	// Rename gives a file another name, which another may have had.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes durable which names the directory has. A *SyncError says that it began to and failed.
	SyncDir(dir string) error
	// Lock takes a lock that ends with Close, or with the process. ErrLocked if it is taken.
	Lock(name string) (io.Closer, error)
}

// A File is an open file. ReadAt may be called concurrently with everything else.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Size returns the file's length.
	Size() (int64, error)
	// Allocate makes the file at least so long, filled with zeros, with room on the disk.
	Allocate(size int64) error
	// Truncate cuts the file, or lengthens it with zeros.
	Truncate(size int64) error
	// Sync makes what was written durable, or returns a *SyncError.
	Sync() error
	// Close closes the file, without a Sync.
	Close() error
}

type contextKey struct{}

// With returns a context by which Open is handed a file system: for tests, which have no other way
// to put faults below a node.
func With(ctx context.Context, fs FS) context.Context {
	return context.WithValue(ctx, contextKey{}, fs)
}

// For returns the file system that ctx has, or the operating system's.
func For(ctx context.Context) FS {
	if fs := From(ctx); fs != nil {
		return fs
	}
	return OS{}
}

// From returns the file system that ctx has, or nil.
func From(ctx context.Context) FS {
	fs, _ := ctx.Value(contextKey{}).(FS)
	return fs
}
