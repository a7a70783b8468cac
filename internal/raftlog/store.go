// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

const (
	// cacheBytes bounds the durable entries that stay in memory: those that are yet to be applied, and those for followers
	// that are nearly up to date. A node has six entries in flight, of usually up to a MiB. Older entries are read from the
	// disk, which mostly means from the system's memory.
	cacheBytes = 8 << 20
	// entryOverhead is roughly the memory that an entry needs in addition to its data.
	entryOverhead = 64
)

func sizeOf(l *raft.Log) int64 { return int64(len(l.Data) + len(l.Extensions) + entryOverhead) }

// A store is a raft.LogStore that answers from memory and makes its changes durable in the background, in
// order. Each change has a position in that order. A reply that acknowledges a change may leave the node
// once its position is durable. An index would not do, because an older entry may have had the same
// index. mu guards the fields below it. Those above it do not change, except taken and batch, which belong to the
// writer's goroutine.
type store struct {
	disk    storage.Store    // the writer's goroutine calls it, and others its Entry and Size
	taken   []change         // the changes of the current write
	batch   []storage.Change // of taken, without compactions
	place   string           // the file or directory with the log, for errors about it
	changed signal.Signal    // done, durable, queued or err has changed
	wake    chan struct{}
	overdue *time.Timer   // fires when the applied index has waited for recordAfter: see awaitRecord
	stopped chan struct{} // closed when the writer has returned
	trouble chan struct{} // receives a value when the system is short of a resource or the disk has failed
	end     chan struct{} // closed when nothing leaves the node any more
	closed  chan struct{} // closed when closing is set

	mu           sync.Mutex
	first        uint64 // of the log; 0 if it is empty
	last         uint64
	tail         []*raft.Log // the newest entries, including all that are not durable
	held         int64       // bytes of tail
	marks        []mark      // ranges that are not durable yet
	durable      uint64      // the entries up to this index are durable
	snapshot     uint64      // index of the newest snapshot
	snapshotTerm uint64      // of the last entry of that snapshot
	snapshotSize int64       // of its body
	queue        []change
	queued       int64     // bytes of queue and of the current write
	position     uint64    // of the newest change
	done         uint64    // of the newest durable change
	applied      uint64    // by the state machine
	recorded     uint64    // the durable part of applied
	recording    bool      // overdue runs
	since        time.Time // begin of the current write or compaction; zero if there is none
	shortage               // operations that are retried
	blocked      time.Time // since when raft's main loop waits for the disk; zero if it does not
	err          error     // the disk has failed, and nothing more becomes durable
	closing      bool
	lost         error // why the last changes could not be made durable when the store closed

	bytes int64 // of the entries that were stored after the newest snapshot

	measure func(bytes int, took time.Duration) // see Log.Measure; nil if not set
	note    func(reason error) error            // writes a divergence to the directory
}

// A mark says that the entries up to an index are durable once a position is durable.
type mark struct{ last, position uint64 }

// A change is a task of the writer: a change of the log, or its compaction.
type change struct {
	storage.Change
	position uint64
	compact  uint64 // the entries before this index are no longer needed; 0 if the change is another one
}

func newStore(disk storage.Store, place string, found *storage.Loaded) *store {
	s := &store{
		disk: disk, place: place, wake: make(chan struct{}, 1), stopped: make(chan struct{}),
		trouble: make(chan struct{}, 1), end: make(chan struct{}), closed: make(chan struct{}),
		first: found.First, last: found.Last, durable: found.Last, applied: found.Applied, recorded: found.Applied,
	}
	s.overdue = time.NewTimer(recordAfter)
	s.overdue.Stop()
	return s
}

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, nil
}

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

// GetLog implements raft.LogStore. Open has verified the entries on the disk, so if one cannot be read
// now, the disk has failed. Raft panics on an error and would send a substitute to followers, so in that case
// GetLog blocks until the node shuts down and nothing leaves it any more.
//
// For the last entry of the newest snapshot, if the log begins right after it, GetLog returns only the
// term: see Log.Base. Raft never asks for that entry in order to send it, since it asks for the previous
// entry first. The very first entry is the exception.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	found, err := s.entry(index)
	if err == raft.ErrLogNotFound {
		base, term := s.base()
		if index != base || index < 2 {
			return err
		}
		found, err = &raft.Log{Index: index, Term: term, Type: raft.LogNoop}, nil
	}
	if err != nil {
		<-s.end
		found = &raft.Log{Index: index, Type: raft.LogNoop}
	}
	*l = *found
	return nil
}

// base implements Log.Base.
func (s *store) base() (index, term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == 0 || s.first == s.snapshot+1 {
		return s.snapshot, s.snapshotTerm
	}
	return 0, 0
}

// entry returns an entry. It waits while the system is short of a resource that the read needs.
func (s *store) entry(index uint64) (l *raft.Log, err error) {
	err = s.retry(s.end, func() error {
		l, err = s.lookup(index)
		return err
	})
	if err != nil && err != raft.ErrLogNotFound && !vfs.Short(err) {
		s.fail(err)
	}
	return l, err
}

// lookup returns an entry from memory or from the disk. An entry that is removed in the meantime is returned, or not
// found; if another entry takes its place, lookup may return that one.
func (s *store) lookup(index uint64) (*raft.Log, error) {
	s.mu.Lock()
	if index < s.first || index > s.last || s.last == 0 {
		s.mu.Unlock()
		return nil, raft.ErrLogNotFound
	}
	if begin := s.last + 1 - uint64(len(s.tail)); index >= begin {
		defer s.mu.Unlock()
		return s.tail[index-begin], nil
	}
	s.mu.Unlock()
	return s.disk.Entry(index)
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. It returns when the entries are in memory. If one of them changes
// the members, it returns when all are durable, because raft acts on such an entry at once.
func (s *store) StoreLogs(logs []*raft.Log) error {
	members := false
	s.mu.Lock()
	switch {
	case s.err != nil || s.closing:
		defer s.mu.Unlock()
		return s.ended()
	case s.last != 0 && logs[0].Index != s.last+1 && logs[0].Index <= s.applied:
		err := s.discards(logs[0].Index)
		s.mu.Unlock()
		return s.orDiverge(err)
	case s.last != 0 && logs[0].Index != s.last+1:
		// After raft installs a snapshot, it continues with the next entry, whatever the log has.
		s.forget(0)
		s.marks, s.durable = nil, logs[0].Index-1
		s.enqueue(storage.Change{Kind: storage.Reset}, 0)
	}
	if s.last == 0 {
		s.first = logs[0].Index
		s.durable = max(s.durable, s.first-1)
	}
	// The entries are copied: those of raft's are parts of larger values.
	own, entries := make([]*raft.Log, len(logs)), make([]raft.Log, len(logs))
	var size int64
	for i, l := range logs {
		entries[i] = *l
		own[i] = &entries[i]
		size += sizeOf(l)
		members = members || l.Type == raft.LogConfiguration
	}
	s.tail = append(s.tail, own...)
	s.held += size
	s.queued += size
	s.bytes += size
	s.last = own[len(own)-1].Index
	position := s.enqueue(storage.Change{Kind: storage.Append, Entries: own}, 0)
	s.marks = append(s.marks, mark{s.last, position})
	s.mu.Unlock()
	if members {
		s.block(true)
		defer s.block(false)
		return s.await(context.Background(), position)
	}
	return nil
}

// enqueue passes a change to the writer. The caller holds mu, as for all functions below without
// another comment on it.
func (s *store) enqueue(c storage.Change, compact uint64) uint64 {
	s.position++
	s.queue = append(s.queue, change{Change: c, position: s.position, compact: compact})
	signal.Poke(s.wake)
	return s.position
}

// size returns the size of an entry.
func (s *store) size(index uint64) int64 {
	if begin := s.last + 1 - uint64(len(s.tail)); index >= begin {
		return sizeOf(s.tail[index-begin])
	}
	return s.disk.Size(index)
}

// forget removes the entries at an index and after from memory.
func (s *store) forget(index uint64) {
	begin := s.last + 1 - uint64(len(s.tail))
	for len(s.tail) > 0 && begin+uint64(len(s.tail)) > index {
		end := len(s.tail) - 1
		s.held -= sizeOf(s.tail[end])
		s.tail[end] = nil
		s.tail = s.tail[:end]
	}
	if index <= s.first {
		s.first, s.last, s.bytes = 0, 0, 0
	} else {
		s.last = min(s.last, index-1)
	}
}

// DeleteRange implements raft.LogStore. Raft deletes the oldest entries after a snapshot, or the newest
// ones if they conflict with the leader's. Applied entries cannot conflict unless a member has lost
// entries that it had acknowledged. In that case the entries stay, and the log fails.
func (s *store) DeleteRange(low, high uint64) error {
	return s.orDiverge(s.deleteRange(low, high))
}

func (s *store) deleteRange(low, high uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil || s.closing:
		return s.ended()
	case s.last == 0 || low > high || low > s.last || high < s.first:
		return nil
	case high >= s.last && low <= s.applied && !(low <= s.first && high <= s.snapshot): // unless a snapshot has them all
		return s.discards(low)
	case high >= s.last:
		s.truncate(low)
	case low <= s.first:
		if high == s.snapshot {
			high-- // keep it: its term shows whether the log continues the snapshot, see Astray
		}
		if high < s.first {
			return nil
		}
		s.first = high + 1
		if begin := s.last + 1 - uint64(len(s.tail)); begin < s.first {
			s.evict(s.first - begin)
		}
		s.enqueue(storage.Change{}, s.first)
	default:
		return errors.New("raftlog: the middle of the log cannot be removed")
	}
	return nil
}

// truncate removes the entries at an index and after. It lowers the durable index, because the next
// entries stored at these indexes are different ones.
func (s *store) truncate(low uint64) {
	s.durable = min(s.durable, low-1)
	for len(s.marks) > 0 {
		end := len(s.marks) - 1
		before := s.durable
		if end > 0 {
			before = s.marks[end-1].last
		}
		if before < low-1 {
			s.marks[end].last = min(s.marks[end].last, low-1)
			break
		}
		s.marks = s.marks[:end]
	}
	all := low <= s.first
	s.forget(low)
	if all {
		// The disk may still have compacted entries, and the next entry need not follow them.
		s.enqueue(storage.Change{Kind: storage.Reset}, 0)
	} else {
		s.enqueue(storage.Change{Kind: storage.Truncate, Index: low}, 0)
	}
}

// evict removes the oldest n entries of the tail from memory.
func (s *store) evict(n uint64) {
	for _, l := range s.tail[:n] {
		s.held -= sizeOf(l)
	}
	clear(s.tail[:n])
	s.tail = s.tail[n:]
}

// completed records that changes have become durable.
func (s *store) completed(changes []change, applied uint64) {
	s.mu.Lock()
	for _, c := range changes {
		for _, l := range c.Entries {
			s.queued -= sizeOf(l)
		}
		s.done = c.position
	}
	reached := 0
	for ; reached < len(s.marks) && s.marks[reached].position <= s.done; reached++ {
		s.durable = max(s.durable, s.marks[reached].last)
	}
	s.marks = slices.Delete(s.marks, 0, reached) // moves the others, so that the memory is used again
	s.recorded = applied
	s.since = time.Time{}
	if s.held > cacheBytes {
		n, held := uint64(0), s.held
		for _, l := range s.tail {
			if held <= cacheBytes || l.Index > s.durable {
				break
			}
			held -= sizeOf(l)
			n++
		}
		s.evict(n)
	}
	s.mu.Unlock()
	s.changed.Broadcast()
}

// measured calls the function that Log.Measure has set. The caller does not hold mu.
func (s *store) measured(bytes int, took time.Duration) {
	s.mu.Lock()
	measure := s.measure
	s.mu.Unlock()
	if measure != nil {
		measure(bytes, took)
	}
}

// fail ends the store for good: the disk has failed, or the log differs from the cluster's. A shortage is
// no reason. It reports whether err is the first reason.
func (s *store) fail(err error) (first bool) {
	s.mu.Lock()
	switch {
	case s.closing:
		s.lost = err
	case s.err == nil:
		s.err, first = err, true
	}
	s.mu.Unlock()
	signal.Poke(s.trouble)
	s.changed.Broadcast()
	return first
}

// upTo returns the index up to which everything is durable.
func (s *store) upTo() uint64 { return max(s.durable, s.snapshot) }

func (s *store) ended() error {
	if s.err != nil {
		return s.err
	}
	return errClosed
}

var errClosed = errors.New("raftlog: closed")

// await waits until a position is durable. The caller does not hold mu.
func (s *store) await(ctx context.Context, position uint64) error {
	return s.until(ctx, func() bool { return s.done >= position })
}

// until waits until enough returns true. enough is called with mu held, whenever the writer has made
// progress.
func (s *store) until(ctx context.Context, enough func() bool) error {
	for {
		changed := s.changed.Wait()
		s.mu.Lock()
		ok, ended := enough(), s.err != nil || s.closing
		err := s.ended()
		s.mu.Unlock()
		switch {
		case ok:
			return nil
		case ended:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.end:
			return errClosed
		}
	}
}
