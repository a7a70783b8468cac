// SPDX-License-Identifier: Apache-2.0

// Package raftlog gives raft what it stores: the log, the term and vote, and snapshots, in a
// directory or in memory.
package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrInUse: another Log, in this process or another, has the directory.
var ErrInUse = errors.New("raftlog: directory in use")

// A CorruptError says which file is damaged.
type CorruptError struct {
	File string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("raftlog: %s is damaged: %v", e.File, e.Err)
}

// Unwrap returns the reason.
func (e *CorruptError) Unwrap() error { return e.Err }

const (
	logFile = "raft.db"
	// lockWait is how long the lock of a directory is asked for: a process that was just killed may
	// still have it.
	lockWait = 200 * time.Millisecond
	// snapshotsKept leaves one to fall back on.
	snapshotsKept = 2
)

// A Log is the stores of one node.
type Log struct {
	logs      *sizedLog
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	closer    io.Closer
}

// Open opens the stores in a directory, which is made if need be. Everything written to them is on
// the disk when the call that writes returns.
//
// Errors: ErrInUse, *CorruptError, or what the operating system says.
func Open(dir string, logger hclog.Logger) (*Log, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("raftlog: %w", err)
	}
	path := filepath.Join(dir, logFile)
	store, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, logger)
	if err != nil {
		store.Close()
		return nil, fmt.Errorf("raftlog: %w", err)
	}
	logs, err := newSizedLog(store)
	if err != nil {
		store.Close()
		return nil, &CorruptError{path, err}
	}
	return &Log{logs: logs, stable: store, snapshots: logs.resetBy(snapshots), closer: store}, nil
}

// openBolt opens the file and looks at all of it once. A damaged file makes bbolt panic, or the
// processor fault where the file is mapped: here, where that can be caught, rather than in raft's
// goroutine.
func openBolt(path string) (store *raftboltdb.BoltStore, err error) {
	var file *os.File // which has the lock
	openFile := func(name string, flag int, mode os.FileMode) (*os.File, error) {
		var err error
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			release(file)
			store, err = nil, &CorruptError{path, fmt.Errorf("%v", r)}
		}
	}()
	var indexes []uint64
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		// Opened to be read, bbolt takes the lock and looks at no more than the meta pages.
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, OpenFile: openFile, ReadOnly: true})
		if err != nil {
			return nil, openError(path, err)
		}
		indexes, err = check(db, file)
		if err := errors.Join(err, db.Close()); err != nil {
			return nil, &CorruptError{path, err}
		}
	}
	store, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: lockWait, OpenFile: openFile}})
	if err != nil {
		return nil, openError(path, err)
	}
	if err := readLogs(store, indexes); err != nil {
		store.Close()
		return nil, &CorruptError{path, err}
	}
	return store, nil
}

// check verifies the pages of a file, and that the buckets are raftboltdb's. It returns the indexes
// of the entries.
func check(db *bbolt.DB, file *os.File) (indexes []uint64, err error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkPages(file, info.Size()); err != nil {
		return nil, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		// A file has both buckets, or none if a crash came before they were made.
		buckets := 0
		err := tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			buckets++
			if string(name) != logBucket && string(name) != confBucket {
				return fmt.Errorf("unknown bucket %q", name)
			}
			return nil
		})
		if err != nil || buckets == 0 {
			return err
		}
		if buckets != 2 {
			return errors.New("a bucket is missing")
		}
		return tx.Bucket([]byte(logBucket)).ForEach(func(k, _ []byte) error {
			if len(k) != 8 {
				return fmt.Errorf("%x is not the index of an entry", k)
			}
			indexes = append(indexes, binary.BigEndian.Uint64(k))
			return nil
		})
	})
	return indexes, err
}

// The buckets of raftboltdb.
const (
	logBucket  = "logs"
	confBucket = "conf"
)

// readLogs reads every entry: what cannot be decoded now could not be either when raft wants it.
func readLogs(store raft.LogStore, indexes []uint64) error {
	for _, index := range indexes {
		var log raft.Log
		if err := store.GetLog(index, &log); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if log.Index != index {
			return fmt.Errorf("entry %d says that it is %d", index, log.Index)
		}
	}
	return nil
}

// openError tells what the operating system reports from what bbolt finds wrong with the file.
func openError(path string, err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("%w: %s", ErrInUse, filepath.Dir(path))
	}
	var system syscall.Errno
	if errors.As(err, &system) {
		return fmt.Errorf("raftlog: %w", err)
	}
	return &CorruptError{path, err}
}

// OpenMemory returns stores that last as long as they are used.
func OpenMemory() *Log {
	memory := newMemoryLog()
	logs, _ := newSizedLog(memory) // an empty one cannot fail
	return &Log{logs: logs, stable: raft.NewInmemStore(), snapshots: logs.resetBy(&memorySnapshots{}), closer: memory}
}

// Logs returns the store of entries.
func (l *Log) Logs() raft.LogStore { return l.logs }

// Stable returns the store of term and vote.
func (l *Log) Stable() raft.StableStore { return l.stable }

// Snapshots returns the store of snapshots.
func (l *Log) Snapshots() raft.SnapshotStore { return l.snapshots }

// Size returns how many entries, and bytes of them, were stored since the last snapshot was
// finished.
func (l *Log) Size() (entries uint64, bytes int64) { return l.logs.size() }

// Tail returns how many of the newest entries fit into so many bytes, as far as they are in memory.
func (l *Log) Tail(bytes int64) uint64 { return l.logs.tail(bytes) }

// Close closes the stores. Nothing may use them any more.
func (l *Log) Close() error { return l.closer.Close() }

// cacheBytes bounds the newest entries that are kept in memory, for the followers that are up to
// date. By bytes: 512 entries, as raft's own cache keeps them, may be half a gigabyte.
const cacheBytes = 16 << 20

// A sizedLog is a raft.LogStore that knows the sizes of its newest entries, and has the very newest
// in memory.
type sizedLog struct {
	raft.LogStore

	mu      sync.Mutex
	first   uint64 // the index of sizes[0]
	sizes   []int32
	cached  []*raft.Log // the newest entries
	held    int64       // bytes of cached
	entries uint64      // stored since the last snapshot
	bytes   int64
}

func newSizedLog(store raft.LogStore) (*sizedLog, error) {
	first, err := store.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := store.LastIndex()
	if err != nil {
		return nil, err
	}
	l := &sizedLog{LogStore: store, first: last + 1}
	if last > 0 {
		l.entries = last - first + 1
	}
	return l, nil
}

// StoreLog is raft.LogStore.
func (l *sizedLog) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs is raft.LogStore.
func (l *sizedLog) StoreLogs(logs []*raft.Log) error {
	if err := l.LogStore.StoreLogs(logs); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, log := range logs {
		if log.Index != l.first+uint64(len(l.sizes)) {
			l.first, l.sizes, l.cached, l.held = log.Index, nil, nil, 0
		}
		size := len(log.Data) + entryOverhead
		l.sizes = append(l.sizes, int32(size))
		l.cached = append(l.cached, log)
		l.held += int64(size)
		l.entries++
		l.bytes += int64(size)
	}
	drop := 0
	for ; l.held > cacheBytes; drop++ {
		l.held -= int64(len(l.cached[drop].Data) + entryOverhead)
		l.cached[drop] = nil
	}
	l.cached = l.cached[drop:]
	return nil
}

// entryOverhead is about what an entry takes beside its data.
const entryOverhead = 64

// GetLog is raft.LogStore.
func (l *sizedLog) GetLog(index uint64, log *raft.Log) error {
	l.mu.Lock()
	begin := l.first + uint64(len(l.sizes)-len(l.cached))
	if index >= begin && index < begin+uint64(len(l.cached)) {
		*log = *l.cached[index-begin]
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	return l.LogStore.GetLog(index, log)
}

// DeleteRange is raft.LogStore: the oldest entries, after a snapshot, or the newest, in a conflict
// with the leader's.
func (l *sizedLog) DeleteRange(low, high uint64) error {
	l.mu.Lock()
	if end := l.first + uint64(len(l.sizes)); high+1 >= end {
		keep := uint64(0)
		if low > l.first {
			keep = min(low-l.first, uint64(len(l.sizes)))
		}
		for gone := uint64(len(l.sizes)) - keep; gone > 0 && len(l.cached) > 0; gone-- {
			last := len(l.cached) - 1
			l.held -= int64(len(l.cached[last].Data) + entryOverhead)
			l.cached = l.cached[:last]
		}
		l.sizes = l.sizes[:keep]
	} else if high >= l.first {
		gone := high + 1 - l.first
		l.first += gone
		l.sizes = append([]int32(nil), l.sizes[gone:]...)
		for len(l.cached) > len(l.sizes) {
			l.held -= int64(len(l.cached[0].Data) + entryOverhead)
			l.cached = l.cached[1:]
		}
	}
	l.mu.Unlock()
	return l.LogStore.DeleteRange(low, high)
}

func (l *sizedLog) size() (uint64, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entries, l.bytes
}

func (l *sizedLog) tail(bytes int64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint64(0)
	for i := len(l.sizes) - 1; i >= 0 && bytes >= int64(l.sizes[i]); i-- {
		bytes -= int64(l.sizes[i])
		n++
	}
	return n
}

// resetBy returns a store of snapshots each of which begins the counting anew.
func (l *sizedLog) resetBy(snapshots raft.SnapshotStore) raft.SnapshotStore {
	return countingSnapshots{snapshots, l}
}

type countingSnapshots struct {
	raft.SnapshotStore
	log *sizedLog
}

// Create is raft.SnapshotStore.
func (s countingSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	s.log.mu.Lock()
	s.log.entries, s.log.bytes = 0, 0
	s.log.mu.Unlock()
	return s.SnapshotStore.Create(v, index, term, c, ci, t)
}
