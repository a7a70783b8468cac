// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"time"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

const (
	// batchBytes bounds the size of one write to the disk, unless a single change is larger.
	batchBytes = 8 << 20
	// recordAfter is how long the applied index waits for a write that can include it, before it gets a
	// write of its own.
	recordAfter = 50 * time.Millisecond
)

// write is the writer. It takes the queued changes, makes them durable with one write and one sync, and
// reports that, until the store closes or the disk fails.
func (s *store) write() {
	defer close(s.stopped)
	for {
		changes, applied, more := s.gather()
		if !more {
			s.disk.Sync()
			return
		}
		if !s.persist(changes, applied) {
			return
		}
	}
}

// gather waits for changes and takes as many as one write may hold. The applied index goes with them;
// without changes it waits for recordAfter. The changes are valid until the next call.
func (s *store) gather() (changes []change, applied uint64, more bool) {
	clear(s.taken) // the entries must not stay in memory
	for overdue := false; ; {
		s.mu.Lock()
		if overdue {
			s.recording = false
		}
		lags := s.applied != s.recorded
		if s.err != nil || s.closing && len(s.queue) == 0 && !lags {
			s.mu.Unlock()
			return nil, 0, false
		}
		if len(s.queue) > 0 || lags && (overdue || s.closing) {
			break
		}
		s.awaitRecord() // for what was applied during the last write
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-s.overdue.C:
			overdue = true
		}
	}
	defer s.mu.Unlock()
	s.recording = false
	s.overdue.Stop()
	n, size := 0, int64(0)
	for ; n < len(s.queue) && size < batchBytes; n++ {
		for _, l := range s.queue[n].Entries {
			size += sizeOf(l)
		}
	}
	s.taken = append(s.taken[:0], s.queue[:n]...)
	rest := copy(s.queue, s.queue[n:])
	clear(s.queue[rest:])
	s.queue = s.queue[:rest]
	s.since = time.Now()
	return s.taken, s.applied, true
}

// awaitRecord makes the writer record the applied index after recordAfter, unless it is recorded by then. The caller
// holds mu. Waking the writer instead would cost each write two switches between goroutines.
func (s *store) awaitRecord() {
	if s.applied != s.recorded && !s.recording {
		s.recording = true
		s.overdue.Reset(recordAfter)
	}
}

// persist makes changes durable, and retries while the system is short of a resource. It returns false if
// it failed.
func (s *store) persist(changes []change, applied uint64) bool {
	compacted := s.sort(changes)
	var begin time.Time
	var written int
	write := func() (err error) {
		begin = time.Now()
		written, err = s.disk.Write(s.batch, applied)
		return err
	}
	err := s.retry(s.closed, write)
	if vfs.Short(err) { // the store closes: the resource may have become available since the last attempt
		err = write()
	}
	clear(s.batch) // the entries must not stay in memory
	if err != nil {
		s.fail(err)
		return false
	}
	s.completed(changes, applied)
	if written > 0 {
		s.measured(written, time.Since(begin))
		s.extend()
	}
	if compacted > 0 {
		s.busy(time.Now()) // new changes wait during a compaction as during a write
		err := s.retry(s.closed, func() error { return s.disk.Compact(compacted) })
		if err != nil && !vfs.Short(err) { // if short, the store closes, and the next compaction does the rest
			s.fail(err)
			return false
		}
		s.busy(time.Time{})
	}
	return true
}

// sort puts the changes of the log into the batch, and returns the index up to which the log is to be compacted.
func (s *store) sort(changes []change) (compacted uint64) {
	s.batch = s.batch[:0]
	for i := range changes {
		c := &changes[i]
		if c.compact > 0 {
			compacted = c.compact
			continue
		}
		if c.Kind == storage.Reset {
			compacted = 0 // the entries after a reset may have lower indexes
		}
		s.batch = append(s.batch, c.Change)
	}
	return compacted
}

// extend notes how far the log reaches. The caller does not hold mu.
func (s *store) extend() {
	s.mu.Lock()
	e := storage.Extent{Index: s.upTo(), Snapshot: s.snapshot}
	begin := s.last + 1 - uint64(len(s.tail))
	switch {
	case e.Index == s.snapshot:
		e.Term = s.snapshotTerm
	case len(s.tail) > 0 && begin <= e.Index && e.Index <= s.last:
		e.Term = s.tail[e.Index-begin].Term
	}
	s.mu.Unlock()
	s.busy(time.Now())
	s.disk.Extend(e)
	s.busy(time.Time{})
}

// busy sets the begin of the current disk operation. The caller does not hold mu.
func (s *store) busy(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = since
}
