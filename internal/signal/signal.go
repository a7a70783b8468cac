// SPDX-License-Identifier: Apache-2.0

// Package signal wakes goroutines that wait for a change.
package signal

import "sync"

// A Signal wakes all goroutines that wait for the next change of something. To miss none, call Wait
// before reading the state that may change. The zero value is ready to use. Its methods may be called
// concurrently.
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

// Broadcast wakes all waiting goroutines. It costs almost nothing if there are none.
func (s *Signal) Broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// Poke makes sure that a channel of capacity one holds a value. It does not block.
func Poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
