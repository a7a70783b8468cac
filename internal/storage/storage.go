// SPDX-License-Identifier: Apache-2.0

// Package storage is the interface between raft's stores, in package raftlog, and the formats in which a
// directory keeps them. A format keeps the log and two small records: the vote, and the identity of the
// directory. Everything else in a directory is the same for every format: the lock, snapshots, and notes.
//
// A format knows nothing of raft's rules. The gates that keep entries inside the node until they are durable
// are above it.
package storage

import (
	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Format is a way to keep the log, the vote and the identity of a node in a directory.
type Format interface {
	// Name is the name of the format in errors and reports, such as "segments".
	Name() string
	// Layout names the files of the format, for errors about their contents.
	Layout() Layout
	// Files returns the names of the files in dir that belong to this format. A file is listed if it has or
	// may have data: an empty subdirectory is not. If the files are removed from the last to the first, and a crash
	// interrupts that, Open does not take the missing ones for lost data.
	Files(fs vfs.FS, dir string) ([]string, error)
	// Open opens the data in dir, which exists and is locked. It makes the files if there are none, and
	// finishes or undoes changes that a crash has interrupted.
	Open(fs vfs.FS, dir string) (Store, error)
	// Read opens the data in dir and changes nothing, for an inspection. It reads as much as can be read, and
	// calls damaged with each error for which Open or Log.Load would reject a file. Errors about the vote and
	// the identity are not among them: Reading returns those.
	Read(fs vfs.FS, dir string, damaged func(file string, err error)) (Reading, error)
}

// A Layout has the names of files or directories, relative to the directory of a node. Several may be equal.
type Layout struct{ Log, Vote, Identity string }

// MaxRecord is the largest number of bytes that a Record has to take.
const MaxRecord = 1000

// A Store is the data of one directory. Its errors are *CorruptError, *wire.FormatError, or errors of the
// file system. A call that fails with an error for which vfs.Short holds can be repeated. After any other error
// it is not known which part of a change is durable.
type Store interface {
	Log
	// Vote returns the record of the term and the vote.
	Vote() Record
	// Identity returns the record of the identity.
	Identity() Record
	// Close closes the files.
	Close() error
}

// A Record is a message of package wire, of at most MaxRecord bytes, that is replaced as a whole. The format may
// keep something of its own in field 1, and field 15 is the version of the record, where it is not 1. One
// goroutine at a time may call the methods, concurrently with the methods of Log.
type Record interface {
	// Load returns the record, or nil if it was never saved.
	Load() ([]byte, error)
	// Save replaces the record, durably. After a crash the record is the old one or the new one. If a sync fails,
	// the error is a *vfs.SyncError: it is not known which of the two a crash would leave.
	Save(b []byte) error
}

// A Log is a log on a disk. One goroutine, the writer, calls its methods; others may call Entry and Size
// concurrently with it.
type Log interface {
	// Load verifies the whole log and returns its bounds. It is called once, before the other methods. It
	// removes an incomplete last write, if a crash explains that. Any other damage is an error, and so is a
	// log that ends before an Extent that it had reached.
	Load() (Loaded, error)
	// Write makes changes and the applied index durable, in order: a crash leaves all of them or a prefix.
	// It returns the number of bytes that it has written.
	Write(changes []Change, applied uint64) (bytes int, err error)
	// Entry returns an entry that Load or a completed Write has made durable, or raft.ErrLogNotFound. The
	// caller must not change it.
	Entry(index uint64) (*raft.Log, error)
	// Size returns roughly how many bytes an entry takes, or 0 if there is none. It reads only memory.
	Size(index uint64) int64
	// Compact removes entries before an index. It may keep some of them.
	Compact(below uint64) error
	// Extend notes how far the log reaches after a Write. The note becomes durable with the next Save of the
	// vote or with Sync. If it fails, less is known about the log and nothing is wrong. The callers of the changes are
	// answered before Extend is called, so a format can use the call to prepare for the next Write.
	Extend(e Extent)
	// Sync makes the newest note of Extend durable.
	Sync()
}

// Loaded describes a log as Load found it.
type Loaded struct {
	First, Last uint64 // 0 if the log is empty
	Applied     uint64 // the newest applied index that is durable; 0 if none was written since a Reset
	Reached     Extent // the newest note of Extend; zero if there is none
}

// An Extent says how far a log reached.
type Extent struct {
	Index    uint64 // the last durable entry, in the log or in a snapshot
	Term     uint64 // of that entry; 0 if unknown
	Snapshot uint64 // the last entry of the newest snapshot
}

// A Change is a change of the log.
type Change struct {
	Kind    ChangeKind
	Entries []*raft.Log // of Append: consecutive entries
	Index   uint64      // of Truncate
}

// A ChangeKind says what a Change does.
type ChangeKind uint8

const (
	// Append adds entries after the last one, or any entries to an empty log.
	Append ChangeKind = iota
	// Truncate removes the entries at an index and after.
	Truncate
	// Reset removes all entries, and the applied index with them.
	Reset
)

// A Reading is the data of a directory as Read has found it.
type Reading interface {
	// Loaded describes the log up to the first damage.
	Loaded() Loaded
	// Torn returns the size of an incomplete last write that Load would remove.
	Torn() int64
	// Entry returns an entry, or raft.ErrLogNotFound.
	Entry(index uint64) (*raft.Log, error)
	// File returns the name of the file that has an entry, for errors about it.
	File(index uint64) string
	// Vote and Identity return the records, as Record.Load does.
	Vote() ([]byte, error)
	Identity() ([]byte, error)
	// Close closes the files.
	Close() error
}
