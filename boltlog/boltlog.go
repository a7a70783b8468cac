// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"errors"
	"path/filepath"
	"slices"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Options are the options of a log.
type Options struct {
	// InitialMmapSize is how many bytes of address space bbolt reserves for the file when it opens it. A larger
	// file makes bbolt replace the reservation by one of twice the size, or of 1 GiB more. For that moment writes
	// wait for reads in progress. The default is the size of the file, rounded up.
	InitialMmapSize int
	// NoFreelistSync keeps the list of free pages out of the file. Bbolt writes the list with each transaction, 8
	// bytes for each free page. After a large log was compacted, that can be a megabyte for each write. Without the
	// list, bbolt finds the free pages when it opens the file, and again after a write that has failed, which takes
	// as long as reading the log. After such a write, bbolt reads the file in a goroutine of its own: if the disk
	// cannot read a page then, the process ends, and not only the node. NoFreelistSync can be changed at each start.
	// The default is to write the list.
	NoFreelistSync bool
}

// New returns a [coterie.Storage], for Config.Storage, that keeps the log, the vote and the identity of a node in a file
// of bbolt.
func New(o Options) coterie.Storage { return format{o} }

// A format implements coterie.Storage and storage.Format.
type format struct{ options Options }

// Format implements coterie.Storage.
func (f format) Format() storage.Format { return f }

// String implements coterie.Storage.
func (format) String() string { return storage.Bolt }

// Name implements storage.Format.
func (format) Name() string { return storage.Bolt }

// Layout implements storage.Format.
func (format) Layout() storage.Layout {
	return storage.Layout{Log: logFile, Vote: logFile, Identity: logFile}
}

// Files implements storage.Format. The note comes last, because a note without a log says that the log is lost.
func (format) Files(fsys vfs.FS, dir string) (files []string, err error) {
	names, err := fsys.ReadDir(dir)
	for _, name := range []string{logFile, noteFile} {
		if slices.Contains(names, name) {
			files = append(files, filepath.Join(dir, name))
		}
	}
	return files, err
}

// Open implements storage.Format.
func (f format) Open(fsys vfs.FS, dir string) (storage.Store, error) {
	if _, ok := fsys.(vfs.OS); !ok {
		return nil, errors.New("boltlog: bbolt maps its file into memory, so it needs a file system of the operating system")
	}
	s, err := openStore(fsys, dir, f.options)
	if err != nil {
		return nil, err // not a nil pointer in an interface
	}
	return s, nil
}

// Read implements storage.Format.
func (f format) Read(fsys vfs.FS, dir string, damaged func(file string, err error)) (storage.Reading, error) {
	return read(fsys, dir, damaged)
}
