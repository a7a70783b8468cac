// SPDX-License-Identifier: Apache-2.0

// Package raftlog gives raft what it stores: the log, the term and vote, and snapshots. The log
// answers from memory and becomes durable in the background; what it has promised is told by
// positions, so that nothing leaves the node before it is durable.
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

	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// What a directory can be refused for.
var (
	// ErrInUse: another Log, in this process or another, has the directory.
	ErrInUse = errors.New("raftlog: directory in use")
)

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

// damaged returns err as what is wrong with a file, unless it says that the file cannot be read, or that
// it is of another version.
func damaged(file string, err error) error {
	var unread *fs.PathError
	if errors.As(err, &unread) {
		return err
	}
	var format *wire.FormatError
	if errors.As(err, &format) {
		return &wire.FormatError{What: fmt.Sprintf("%s in %s", format.What, file), Version: format.Version, Reads: format.Reads}
	}
	return &CorruptError{file, err}
}

const (
	lockFile     = "lock"
	segmentDir   = "log"
	snapshotDir  = "snapshots"
	earlierStore = "raft.db" // of the first format
	// lockWait is how long the lock of a directory is asked for: a process that was just killed may
	// still have it.
	lockWait  = 200 * time.Millisecond
	lockRetry = 10 * time.Millisecond
	// maxQueued is how much may wait for the disk before more is kept out.
	maxQueued = 64 << 20
)

// A Log is the stores of one node.
type Log struct {
	fs        vfs.FS
	dir       string
	lock      io.Closer
	identity  Identity
	known     bool
	votes     *votes
	store     *store
	snapshots raft.SnapshotStore
	vet       vet
	ended     sync.Once
}

// Open opens the stores in a directory of fs, which is made if need be. What a crash left half done
// is finished or undone. With states, snapshots are kept in memory, as the states themselves.
//
// Errors: ErrInUse, *wire.FormatError, ErrUnfinished, *CorruptError, or what the file system says.
func Open(fs vfs.FS, dir string, states bool) (*Log, error) {
	return openWith(fs, dir, states, segmentSize)
}

// openWith is Open with segments of another size.
func openWith(fs vfs.FS, dir string, states bool, segment int64) (*Log, error) {
	l := &Log{fs: fs, dir: dir}
	if err := l.open(states, segment); err != nil {
		if l.store != nil {
			_ = l.store.disk.close() // its files were only read, or synced
		}
		return nil, errors.Join(wrap(err), l.release())
	}
	go l.store.write()
	return l, nil
}

func wrap(err error) error {
	var corrupt *CorruptError
	for _, known := range []error{ErrInUse, wire.ErrFormat, ErrTaken, ErrUnfinished, ErrNoNode} {
		if errors.Is(err, known) {
			return err
		}
	}
	if errors.As(err, &corrupt) {
		return err
	}
	return fmt.Errorf("raftlog: %w", err)
}

func (l *Log) open(states bool, segment int64) (err error) {
	if err := l.makeDirs(); err != nil {
		return err
	}
	if err := refuseEarlier(l.fs, l.dir); err != nil {
		return err
	}
	if err := l.take(); err != nil {
		return err
	}
	// What is found counts as durable from now on, and the process before may have been killed before
	// it made it so: a snapshot, say, that has just got its name.
	for _, dir := range l.dirs() {
		if err := l.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	if begun, err := foundingBegun(l.fs, l.dir); err != nil {
		return err
	} else if begun {
		return fmt.Errorf("%w: %s", ErrUnfinished, l.dir)
	}
	if err := readDivergence(l.fs, l.dir); err != nil {
		return err
	}
	if l.identity, l.known, err = readIdentity(l.fs, l.dir); err != nil {
		return err
	}
	files := &snapshotFiles{fs: l.fs, dir: filepath.Join(l.dir, snapshotDir), done: l.snapshotDone}
	if err := files.clean(); err != nil {
		return err
	}
	files.vet = l.examine
	l.snapshots = files
	if states {
		l.snapshots = &memorySnapshots{done: l.snapshotDone, vet: l.examine}
	}
	if err := l.hasVote(); err != nil {
		return err
	}
	reached, serial, err := readExtent(l.fs, l.dir)
	if err != nil {
		return err
	}
	disk, found, err := openSegments(l.fs, filepath.Join(l.dir, segmentDir), segment, &reached)
	if err != nil {
		return err
	}
	l.store = newStore(disk, found)
	l.store.note = l.noteDivergence
	if l.votes, err = openVotes(l.fs, l.dir, l.store.must); err != nil {
		return err
	}
	l.store.extents = &extents{file: l.votes.file, serial: serial}
	if err := l.reconcile(&reached); err != nil {
		return err
	}
	if l.known && l.store.upTo() == 0 {
		if err := l.identity.withoutLog(l.dir); err != nil {
			return err
		}
	}
	if l.votes.serial == 0 && (l.store.position > 0 || l.store.upTo() > 0) {
		return withoutVote(l.dir)
	}
	files.retry = func(fn func() error) error { return l.store.retry(l.store.end, fn) }
	return nil
}

// withoutVote is of a directory with entries or a snapshot, before which raft has a term. Without,
// a node could vote twice in one.
func withoutVote(dir string) error {
	return &CorruptError{filepath.Join(dir, voteFile), errors.New("it is empty, and the log is not")}
}

// hasVote makes sure that the file of the vote is there, which is made before the directory is
// somebody's.
func (l *Log) hasVote() error {
	if !l.known {
		return nil
	}
	name := filepath.Join(l.dir, voteFile)
	there, err := exists(l.fs, name)
	if err == nil && !there {
		err = &CorruptError{name, errVoteMissing}
	}
	return err
}

var errVoteMissing = errors.New("it is missing, and the identity is not")

func (l *Log) dirs() []string {
	return []string{l.dir, filepath.Join(l.dir, segmentDir), filepath.Join(l.dir, snapshotDir)}
}

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
			return fmt.Errorf("%w: %s", ErrInUse, l.dir)
		}
		time.Sleep(lockRetry)
	}
}

// Identity returns whose the directory is; false if it is nobody's yet.
func (l *Log) Identity() (Identity, bool) { return l.identity, l.known }

// Identify makes the directory somebody's, durably. It is not called concurrently with itself or
// Identity.
//
// Errors: *CorruptError if there are entries or a snapshot, and nobody's: the identity is made before
// them; what the file system says.
func (l *Log) Identify(id Identity) error {
	if !l.known && l.Durable() > 0 {
		return &CorruptError{filepath.Join(l.dir, identityFile), errIdentityMissing}
	}
	if err := writeIdentity(l.fs, l.dir, id); err != nil {
		var sync *vfs.SyncError
		if errors.As(err, &sync) {
			l.store.fail(err)
		}
		return wrap(err)
	}
	l.identity, l.known = id, true
	return nil
}

// Logs returns the store of entries.
func (l *Log) Logs() raft.LogStore { return l.store }

// Entry returns an entry of Logs. Unlike GetLog, which raft calls, it has an error to return when the
// disk fails. The entry is not to be changed.
func (l *Log) Entry(index uint64) (*raft.Log, error) { return l.store.entry(index) }

// Stable returns the store of term and vote.
func (l *Log) Stable() raft.StableStore { return l.votes }

// Voted returns in which term the last vote was that is durable, and for whom. It may be called
// concurrently.
func (l *Log) Voted() (term uint64, candidate string) { return l.votes.last() }

// Term returns the newest term that is durable. Any goroutine may call it.
func (l *Log) Term() uint64 {
	l.votes.mu.Lock()
	defer l.votes.mu.Unlock()
	return l.votes.term
}

// Snapshots returns the store of snapshots.
func (l *Log) Snapshots() raft.SnapshotStore { return l.snapshots }

// Vet has fn read each snapshot that comes from another node before it is kept, in raft's main loop, and
// return why it must not be: see ErrSnapshot. It is called before raft starts. Without it a snapshot need
// only be undamaged.
func (l *Log) Vet(fn func(index uint64, body io.Reader) error) { l.vet = fn }

func (l *Log) examine(index uint64, body io.Reader) error { return l.vet.read(index, body) }

// Position returns the position of the newest change of the log.
func (l *Log) Position() uint64 {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.position
}

// Await waits until all changes up to a position are durable. After an error they may never be, and
// nothing that depends on them may leave the node.
func (l *Log) Await(ctx context.Context, position uint64) error { return l.store.await(ctx, position) }

// AwaitIndex waits until all entries up to an index are durable, which the log has.
func (l *Log) AwaitIndex(ctx context.Context, index uint64) error {
	return l.store.until(ctx, func() bool { return l.store.upTo() >= index })
}

// AwaitRoom waits until there is room for more in the queue to the disk.
func (l *Log) AwaitRoom(ctx context.Context) error {
	return l.store.until(ctx, func() bool { return l.store.queued < maxQueued })
}

// Durable returns the index up to which everything is durable, in the log or in a snapshot.
func (l *Log) Durable() uint64 {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.upTo()
}

// Base returns index and term of the last entry of the newest snapshot, if the log goes on behind it or
// has no entry: then it cannot tell what an append names that goes on from there, or from before. 0 if
// it can.
func (l *Log) Base() (index, term uint64) { return l.store.base() }

// Applied notes that the state machine has applied everything up to an index, before that is seen: none
// of it is discarded from then on. It becomes durable soon, but never says more than what is durable
// itself: the index of a snapshot's state may be ahead of that.
func (l *Log) Applied(index uint64) {
	s := l.store
	s.mu.Lock()
	lagged := s.applied != s.recorded
	s.applied = max(s.applied, min(index, s.upTo()))
	s.mu.Unlock()
	if !lagged {
		signal.Poke(s.wake)
	}
}

// Recorded returns what Applied had been told when the log was last open, as far as it is known.
func (l *Log) Recorded() uint64 {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.recorded
}

// Trouble returns a channel that has a value when the Condition has become worse.
func (l *Log) Trouble() <-chan struct{} { return l.store.trouble }

// A Condition is how the disk is.
type Condition struct {
	Short   time.Duration // how long the system has lacked what the log needs; the log tries again and again
	Lack    error         // what the system says while Short is not 0
	Stalled time.Duration // how long the write has taken that is under way
	Blocked time.Duration // how long raft's main loop has waited for the disk
	Err     error         // it has failed, for good
}

// Condition returns how the disk is.
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

// Measure has fn called after each write that was made durable, with its size and what it took, in the
// writer's goroutine.
func (l *Log) Measure(fn func(bytes int, took time.Duration)) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.store.measure = fn
}

// Size returns how many entries, and bytes of them, were stored since the last snapshot.
func (l *Log) Size() (entries uint64, bytes int64) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.store.entries, l.store.bytes
}

// Tail returns how many of the newest entries fit into so many bytes.
func (l *Log) Tail(bytes int64) (n uint64) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.tail) - 1; i >= 0; i-- {
		if bytes -= sizeOf(s.tail[i]); bytes < 0 {
			return n
		}
		n++
	}
	if s.last == 0 {
		return n
	}
	// The older ones are on the disk, with others that have gone: at either end, or all.
	var older []ref
	if begin := s.last + 1 - uint64(len(s.tail)); begin > s.first {
		older = s.written.refs[s.first-s.written.first : begin-s.written.first]
	}
	for i := len(older) - 1; i >= 0; i-- {
		if bytes -= int64(older[i].size); bytes < 0 {
			return n
		}
		n++
	}
	return n
}

// End says that nothing leaves the node any more. Those of raft's calls that wait for a disk that does
// not answer, or has failed, return, with no error that raft would panic at.
func (l *Log) End() { l.ended.Do(func() { close(l.store.end) }) }

// Close makes durable what waits and closes the stores, also when it returns that it could not.
// Nothing may use them any more. When ctx ends first, the disk hangs: the directory stays locked until
// the process ends.
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
		lost = fmt.Errorf("raftlog: what was stored last is lost: %w", lost)
	}
	return errors.Join(lost, s.disk.close(), l.release())
}

// release closes what Open opened beside the segments.
func (l *Log) release() error {
	var errs []error
	if l.votes != nil && l.votes.file != nil {
		errs = append(errs, l.votes.file.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}

// refuseEarlier refuses a directory of the first format.
func refuseEarlier(fs vfs.FS, dir string) error {
	earlier, err := exists(fs, filepath.Join(dir, earlierStore))
	if err == nil && earlier {
		err = &wire.FormatError{What: filepath.Join(dir, earlierStore), Reads: voteVersion}
	}
	return err
}

// exists reports whether a file has a name.
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
