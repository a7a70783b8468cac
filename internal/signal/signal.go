// SPDX-License-Identifier: Apache-2.0

// Package signal wakes those who wait for something to change.
package signal

import "sync"

// A Signal wakes everyone who waits for the next change of something. To miss none, take the channel
// before looking at what may change. The zero value is ready; its methods may be called concurrently.
type Signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// Wait returns a channel that the next Broadcast closes.
func (s *Signal) Wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// Broadcast costs next to nothing when nobody waits.
func (s *Signal) Broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// Poke sees to it that a channel with room for one has a value. It does not block.
func Poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
