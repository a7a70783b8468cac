// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"time"

	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// retryShort is the interval between retries of an operation that failed because the system was short of
// disk space, descriptors or memory.
const retryShort = 200 * time.Millisecond

// A shortage describes the operations that are being retried. The store's mu guards it.
type shortage struct {
	waiting int       // number of operations that are being retried
	short   time.Time // since when there are any
	lack    error     // why the last of them failed
}

// retry calls fn until it no longer fails for lack of a resource, or until over is closed. It returns
// fn's last error. Condition reports the shortage in the meantime. The caller does not hold mu.
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

// lacks adds more to the number of retried operations, and notes why.
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

// block notes whether raft's main loop waits for the disk. The caller does not hold mu.
func (s *store) block(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = time.Time{}
	if on {
		s.blocked = time.Now()
	}
}

// must runs a write that raft's main loop waits for, and reports whether it succeeded. Raft panics on an
// error, so after a failure must returns only when the node has ended.
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

// shut begins to close the store: queued changes are made durable, and new ones are rejected.
func (s *store) shut() {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.closed)
	}
	s.mu.Unlock()
	signal.Poke(s.wake)
}
