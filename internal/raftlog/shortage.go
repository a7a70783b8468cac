// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"time"

	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// retryShort is how often something is tried again that failed because the system was short of
// room, descriptors or memory.
const retryShort = 200 * time.Millisecond

// A shortage is what a store knows of operations that are tried again. The store's mu guards it.
type shortage struct {
	waiting int       // how many operations are tried again
	short   time.Time // since when there are any
	lack    error     // why the last of them failed
}

// retry calls fn, again and again while it fails because the system is short of something, until
// over is closed. It returns fn's last error. Condition tells meanwhile. It is called without mu held.
func (s *store) retry(over <-chan struct{}, fn func() error) error {
	err := fn()
	if !vfs.Short(err) {
		return err
	}
	s.lacks(1, err)
	defer s.lacks(-1, nil)
	timer := time.NewTimer(retryShort)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-over:
			return err
		}
		if err = fn(); !vfs.Short(err) {
			return err
		}
		s.lacks(0, err)
		timer.Reset(retryShort)
	}
}

// lacks notes that so many more operations are tried again, and why.
func (s *store) lacks(more int, err error) {
	s.mu.Lock()
	if s.waiting == 0 {
		s.short = time.Now()
	}
	if s.waiting += more; s.waiting == 0 {
		s.shortage = shortage{}
	}
	if err != nil {
		s.lack = err
	}
	s.mu.Unlock()
	if err != nil {
		signal.Poke(s.trouble)
	}
}

// block notes that raft's main loop waits for the disk, or does no longer. It is called without mu
// held.
func (s *store) block(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = time.Time{}
	if on {
		s.blocked = time.Now()
	}
}

// must runs a write that raft's main loop waits for, and reports whether it succeeded. Raft panics at
// an error, so after one must returns only when the node has ended.
func (s *store) must(write func() error) bool {
	s.block(true)
	defer s.block(false)
	err := s.retry(s.end, write)
	if err == nil {
		return true
	}
	if !vfs.Short(err) {
		s.fail(err)
	}
	<-s.end
	return false
}

// shut says that the store closes: what is queued is made durable, and nothing else is taken.
func (s *store) shut() {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.closed)
	}
	s.mu.Unlock()
	signal.Poke(s.wake)
}
