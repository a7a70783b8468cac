// SPDX-License-Identifier: Apache-2.0

package membership

import "sync"

// Losses are the members that have lost entries which they had acknowledged to this node, with the
// incarnation of their data.
//
// The zero value is ready for use. The methods may be called concurrently.
type Losses struct {
	mu    sync.Mutex
	known map[uint64]uint64 // the incarnation, by member ID
}

// Add notes a loss, and reports whether it was unknown.
func (l *Losses) Add(id, incarnation uint64) (unknown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[uint64]uint64{}
	}
	unknown = l.known[id] != incarnation
	l.known[id] = incarnation
	return unknown
}

// Has reports whether a member with that data has lost entries.
func (l *Losses) Has(id, incarnation uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	known, ok := l.known[id]
	return ok && known == incarnation
}
