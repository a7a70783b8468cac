// SPDX-License-Identifier: Apache-2.0

package coterie

import "sync"

// A signal wakes everyone who waits for the next change of something. To miss none, take the
// channel before looking at what may change.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that the next broadcast closes.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// broadcast costs next to nothing when nobody waits.
func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
