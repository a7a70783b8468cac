// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"time"

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
	b := newBatch()
	for {
		changes, applied, more := s.gather()
		if !more {
			s.extents.sync()
			return
		}
		if len(changes) == 0 && applied == s.disk.applied {
			continue
		}
		if !s.persist(b, changes, applied) {
			return
		}
		b.reset()
	}
}

// gather waits for changes and takes as many as one write may hold. The applied index goes with them;
// without changes it waits for recordAfter.
func (s *store) gather() (changes []change, applied uint64, more bool) {
	var timer *time.Timer
	var late <-chan time.Time
	for overdue := false; ; {
		s.mu.Lock()
		lags := s.applied != s.recorded
		if s.err != nil || s.closing && len(s.queue) == 0 && !lags {
			s.mu.Unlock()
			return nil, 0, false
		}
		if len(s.queue) > 0 || lags && (overdue || s.closing) {
			break
		}
		s.mu.Unlock()
		if lags && timer == nil {
			timer = time.NewTimer(recordAfter)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-s.wake:
		case <-late:
			overdue = true
		}
	}
	defer s.mu.Unlock()
	n, size := 0, int64(0)
	for ; n < len(s.queue) && size < batchBytes; n++ {
		for _, l := range s.queue[n].entries {
			size += sizeOf(l)
		}
	}
	changes = append(changes, s.queue[:n]...)
	s.queue = append(s.queue[:0:0], s.queue[n:]...)
	s.since = time.Now()
	return changes, s.applied, true
}

// persist makes changes durable, and retries while the system is short of a resource. It returns false if
// it failed.
func (s *store) persist(b *batch, changes []change, applied uint64) bool {
	refs, compacted := b.fill(changes)
	if applied != s.disk.applied {
		b.number(recordApplied, applied)
	}
	var begin time.Time
	if !b.empty() {
		write := func() error {
			begin = time.Now()
			g, offset, err := s.disk.write(b)
			if err != nil {
				return err
			}
			for i := range refs {
				refs[i].segment = g
				refs[i].offset += offset
			}
			g.note(changes)
			return nil
		}
		err := s.retry(s.closed, write)
		if vfs.Short(err) { // the store closes: the resource may have become available since the last attempt
			err = write()
		}
		if err != nil {
			s.fail(err)
			return false
		}
	}
	s.disk.applied = applied
	s.completed(changes, refs, applied)
	if !b.empty() {
		s.extend()
		s.measured(len(b.b), time.Since(begin))
	}
	if compacted > 0 {
		s.busy(time.Now()) // new changes wait during a compaction as during a write
		err := s.retry(s.closed, func() error { return s.disk.compact(compacted) })
		if err != nil && !vfs.Short(err) { // if short, the store closes, and the next compaction does the rest
			s.fail(err)
			return false
		}
		s.busy(time.Time{})
	}
	return true
}

// busy sets the begin of the current disk operation. The caller does not hold mu.
func (s *store) busy(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = since
}

// fill puts changes into the batch. It returns the positions of the entries in the batch, and the index
// up to which the log was compacted.
func (b *batch) fill(changes []change) (refs []ref, compacted uint64) {
	for _, c := range changes {
		switch c.kind {
		case storing:
			for _, l := range c.entries {
				refs = append(refs, b.entry(l))
			}
		case truncate:
			b.number(recordTruncate, c.index)
		case reset:
			b.number(recordReset, 0)
		case compact:
			compacted = c.index
		}
	}
	return refs, compacted
}

func (g *segment) note(changes []change) {
	for _, c := range changes {
		for _, l := range c.entries {
			g.newest = max(g.newest, l.Index)
		}
	}
}
