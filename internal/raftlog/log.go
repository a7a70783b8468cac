// SPDX-License-Identifier: Apache-2.0

// Package raftlog implements the stores that raft needs: the log, the term and vote, and snapshots. The
// log answers from memory and becomes durable in the background, in a format of package storage. Each change of
// the log has a position; callers wait for a position to be durable before anything that depends on it leaves
// the node.
package raftlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/conversion"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A CorruptError names a damaged file.
type CorruptError = storage.CorruptError

const (
	lockFile     = "lock"
	snapshotDir  = "snapshots"
	earlierStore = "raft.db" // of the first version
	// lockWait is how long take tries to lock a directory: a process that was just killed may still hold
	// the lock.
	lockWait  = 200 * time.Millisecond
	lockRetry = 10 * time.Millisecond
	// maxQueued is the size of the queue to the disk from which AwaitRoom blocks.
	maxQueued = 64 << 20
)

// A Log holds the stores of one node. Open sets the fields, and they do not change afterwards, except identity and
// known, which belong to the callers of Identity and Identify.
type Log struct {
	fs        vfs.FS
	dir       string
	files     storage.Layout // the paths of the format's files
	format    storage.Format
	lock      io.Closer
	disk      storage.Store
	identity  Identity
	known     bool // the directory has an identity
	votes     *votes
	store     *store
	snapshots raft.SnapshotStore
	syncer    *vfs.Syncer // of the snapshots; nil before they are open
	vet       vet
	ended     sync.Once
}

func newLog(fs vfs.FS, dir string, format storage.Format) *Log {
	return &Log{fs: fs, dir: dir, format: format, files: paths(dir, format)}
}

// paths returns the paths of a format's files in a directory.
func paths(dir string, format storage.Format) storage.Layout {
	files := format.Layout()
	return storage.Layout{
		Log: filepath.Join(dir, files.Log), Vote: filepath.Join(dir, files.Vote), Identity: filepath.Join(dir, files.Identity),
	}
}

// Open opens the stores in a directory of fs, and makes the directory if needed. Open finishes or undoes
// changes that a crash has interrupted. If states is set, snapshots stay in memory, as the states
// themselves.
//
// Errors: fault.ErrDirInUse, fault.ErrStorageMismatch, *wire.FormatError, fault.ErrRestoreUnfinished, *CorruptError, or
// an error of the file system.
func Open(fs vfs.FS, dir string, format storage.Format, states bool) (*Log, error) {
	l := newLog(fs, dir, format)
	if err := l.open(states); err != nil {
		return nil, errors.Join(err, l.release())
	}
	go l.store.write()
	return l, nil
}

func (l *Log) open(states bool) error {
	if err := l.makeDirs(); err != nil {
		return err
	}
	if err := refuseEarlier(l.fs, l.dir); err != nil {
		return err
	}
	if err := l.take(); err != nil {
		return err
	}
	if err := refuseOther(l.fs, l.dir, l.format); err != nil {
		return err
	}
	// From now on the contents of the directory count as durable. The previous process may have been
	// killed before it synced them: just after it renamed a snapshot, for example.
	for _, dir := range l.dirs() {
		if err := l.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	if err := conversion.Settle(l.fs, l.dir); err != nil {
		return err
	}
	if err := readDivergence(l.fs, l.dir, l.files.Log); err != nil {
		return err
	}
	if err := l.openDisk(); err != nil {
		return err
	}
	if err := l.founded(); err != nil {
		return err
	}
	files := &snapshotFiles{
		fs: l.fs, dir: filepath.Join(l.dir, snapshotDir), done: l.snapshotDone, vet: l.examine,
		grown: func() int64 { return l.Growth().Bytes },
	}
	if err := files.clean(); err != nil {
		return err
	}
	l.snapshots, l.syncer = files, &files.syncer
	if states {
		l.snapshots = &memorySnapshots{done: l.snapshotDone, vet: l.examine}
	}
	found, err := l.disk.Load()
	if err != nil {
		return err
	}
	l.store = newStore(l.disk, l.files.Log, &found)
	l.store.note = l.noteDivergence
	if l.votes, err = loadVotes(l.disk.Vote(), l.files.Vote, l.store.must); err != nil {
		return err
	}
	if err := l.reconcile(&found.Reached); err != nil {
		return err
	}
	if l.known && l.store.upTo() == 0 {
		if err := l.identity.withoutLog(l.files.Log); err != nil {
			return err
		}
	}
	if !l.votes.found && (l.store.position > 0 || l.store.upTo() > 0) {
		return withoutVote(l.files.Vote)
	}
	files.retry = func(fn func() error) error { return l.store.retry(l.store.end, fn) }
	return nil
}

// openDisk opens the data of the format, and reads the identity.
func (l *Log) openDisk() (err error) {
	if l.disk, err = l.format.Open(l.fs, l.dir); err != nil {
		l.disk = nil // not a nil pointer in an interface
		return err
	}
	b, err := l.disk.Identity().Load()
	if err != nil {
		return err
	}
	l.known = b != nil
	l.identity, err = decodeIdentity(b, l.files.Identity)
	return err
}

// withoutVote returns the error for a directory that has entries or a snapshot but no term. Raft has a
// term before either, and without it a node could vote twice in the same term.
func withoutVote(file string) error {
	return &CorruptError{File: file, Err: errors.New("it is empty, and the log is not")}
}

func (l *Log) dirs() []string { return []string{l.dir, filepath.Join(l.dir, snapshotDir)} }

func (l *Log) makeDirs() error {
	for _, dir := range l.dirs() {
		if err := l.fs.MkdirAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// take takes the directory's lock.
func (l *Log) take() (err error) {
	for begin := time.Now(); ; {
		l.lock, err = l.fs.Lock(filepath.Join(l.dir, lockFile))
		if !errors.Is(err, vfs.ErrLocked) {
			return err
		}
		if time.Since(begin) >= lockWait {
			return fmt.Errorf("%w: %s", fault.ErrDirInUse, l.dir)
		}
		time.Sleep(lockRetry)
	}
}

// Identity returns the identity of the directory, and false if it has none yet.
func (l *Log) Identity() (Identity, bool) { return l.identity, l.known }

// Identify durably writes the identity of the directory. It must not be called concurrently with itself
// or Identity.
//
// Errors: *CorruptError if there are entries or a snapshot but no identity, since the identity is written
// before them; or an error of the file system.
func (l *Log) Identify(id Identity) error {
	if !l.known && l.Durable() > 0 {
		return &CorruptError{File: l.files.Identity, Err: errIdentityMissing}
	}
	if err := l.disk.Identity().Save(encodeIdentity(&id)); err != nil {
		var sync *vfs.SyncError
		if errors.As(err, &sync) {
			l.store.fail(err)
		}
		return err
	}
	l.identity, l.known = id, true
	return nil
}

// Logs returns the store of entries.
func (l *Log) Logs() raft.LogStore { return l.store }

// Entry returns an entry of Logs. Unlike GetLog, which raft calls, it returns an error if the disk fails.
// The caller must not change the entry.
func (l *Log) Entry(index uint64) (*raft.Log, error) { return l.store.entry(index) }

// Stable returns the store of term and vote.
func (l *Log) Stable() raft.StableStore { return l.votes }

// Voted returns the term of the last durable vote, and its candidate. Any goroutine may call it.
func (l *Log) Voted() (term uint64, candidate string) { return l.votes.last() }

// Term returns the newest term that is durable. Any goroutine may call it.
func (l *Log) Term() uint64 {
	l.votes.mu.Lock()
	defer l.votes.mu.Unlock()
	return l.votes.term
}

// Snapshots returns the store of snapshots.
func (l *Log) Snapshots() raft.SnapshotStore { return l.snapshots }

// Vet sets a check for snapshots from other nodes. Raft's main loop calls fn with each of them before it
// is kept; fn reads the body and returns an error that wraps ErrSnapshot to reject it. Vet must be called
// before raft starts. Without a check, a snapshot is accepted if it is undamaged.
func (l *Log) Vet(fn func(index uint64, body io.Reader) error) { l.vet = fn }

func (l *Log) examine(index uint64, body io.Reader) error { return l.vet.read(index, body) }

// Position returns the position of the newest change of the log.
func (l *Log) Position() uint64 {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.position
}

// Await waits until all changes up to a position are durable. After an error they may never become
// durable, and nothing that depends on them may leave the node.
func (l *Log) Await(ctx context.Context, position uint64) error { return l.store.await(ctx, position) }

// AwaitIndex waits until all entries up to an index are durable. The log must contain the index.
func (l *Log) AwaitIndex(ctx context.Context, index uint64) error {
	return l.store.until(ctx, func() bool { return l.store.upTo() >= index })
}

// AwaitRoom waits until the queue to the disk accepts more.
func (l *Log) AwaitRoom(ctx context.Context) error {
	return l.store.until(ctx, func() bool { return l.store.queued < maxQueued })
}

// HasRoom reports whether AwaitRoom would return at once.
func (l *Log) HasRoom() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.queued < maxQueued
}

// Durable returns the index up to which everything is durable, in the log or in a snapshot.
func (l *Log) Durable() uint64 {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.upTo()
}

// Base returns the index and term of the last entry of the newest snapshot, if the log begins right after
// it or is empty. In that case the log cannot answer for an append that follows that entry or an
// earlier one. Otherwise Base returns 0.
func (l *Log) Base() (index, term uint64) { return l.store.base() }

// Applied notes that the state machine has applied all entries up to an index. It is called before their
// effects are visible, and from then on the log never discards them. The note becomes durable soon, but
// never exceeds the durable index: the state of a snapshot may be ahead of that.
func (l *Log) Applied(index uint64) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = max(s.applied, min(index, s.upTo()))
	s.awaitRecord()
}

// Recorded returns the durable note of Applied. After Open it is a lower bound.
func (l *Log) Recorded() uint64 {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.recorded
}

// Trouble returns a channel that receives a value whenever the Condition gets worse.
func (l *Log) Trouble() <-chan struct{} { return l.store.trouble }

// A Condition describes the state of the disk.
type Condition struct {
	Short   time.Duration // how long the system has been short of a resource that the log needs; the log keeps retrying
	Lack    error         // the system's error while Short is not 0
	Stalled time.Duration // how long the current write has taken
	Blocked time.Duration // how long raft's main loop has waited for the disk
	Err     error         // the disk has failed for good
}

// Condition returns the state of the disk.
func (l *Log) Condition() Condition {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	c := Condition{Err: l.store.err}
	switch {
	case l.store.waiting > 0:
		c.Short, c.Lack = max(time.Since(l.store.short), 1), l.store.lack
	case !l.store.since.IsZero():
		c.Stalled = time.Since(l.store.since)
	}
	if !l.store.blocked.IsZero() {
		c.Blocked = time.Since(l.store.blocked)
	}
	return c
}

// Measure sets a function that the writer's goroutine calls after each durable write, with the size and
// duration of the write.
func (l *Log) Measure(fn func(bytes int, took time.Duration)) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.store.measure = fn
}

// A Growth says how much the log has grown since the newest snapshot.
type Growth struct {
	Snapshot uint64 // the index of the snapshot; 0 if there is none
	Size     int64  // of the snapshot; 0 if it is a state in memory
	Bytes    int64  // of the entries after it, those included that were replaced
}

// Growth returns how much the log has grown since the newest snapshot.
func (l *Log) Growth() Growth {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	return Growth{s.snapshot, s.snapshotSize, s.bytes}
}

// Tail returns how many of the newest entries, at most the given number, fit into the given number of bytes.
func (l *Log) Tail(most uint64, bytes int64) (n uint64) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.last > 0 && n < most && s.last-n >= s.first {
		if bytes -= s.size(s.last - n); bytes < 0 {
			break
		}
		n++
	}
	return n
}

// End declares that nothing leaves the node any more. Calls of raft that wait for a hanging or failed
// disk return, without an error that would make raft panic.
func (l *Log) End() { l.ended.Do(func() { close(l.store.end) }) }

// Close makes the queued changes durable and closes the stores, even if it returns an error. The Log must
// not be used afterwards. If ctx ends first, the disk hangs, and the directory stays locked until the
// process ends.
func (l *Log) Close(ctx context.Context) error {
	l.End()
	s := l.store
	s.shut()
	select {
	case <-s.stopped:
	case <-ctx.Done():
		return fmt.Errorf("raftlog: a write to %s hangs: %w", l.dir, context.Cause(ctx))
	}
	s.mu.Lock()
	lost := s.lost
	if s.done < s.position {
		lost = errors.Join(s.err, lost)
	}
	s.mu.Unlock()
	if lost != nil {
		lost = fmt.Errorf("raftlog: the newest changes are lost: %w", lost)
	}
	return errors.Join(lost, l.release())
}

// release closes the files and unlocks the directory.
func (l *Log) release() error {
	var errs []error
	if l.disk != nil {
		errs = append(errs, l.disk.Close())
	}
	if l.syncer != nil {
		errs = append(errs, l.syncer.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

// refuseEarlier returns an error for a directory of the first version.
func refuseEarlier(fs vfs.FS, dir string) error {
	earlier, err := exists(fs, filepath.Join(dir, earlierStore))
	if err == nil && earlier {
		err = &wire.FormatError{What: filepath.Join(dir, earlierStore), Reads: voteVersion}
	}
	return err
}

// exists reports whether a file of this name exists.
func exists(fs vfs.FS, name string) (bool, error) {
	f, err := fs.Open(name)
	if isNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
