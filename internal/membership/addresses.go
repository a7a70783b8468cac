// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"slices"
	"sync"
)

// Addresses has the addresses at which members may be found. A member can have several: it moves, and
// Config, the log and the member itself may each name another. Find returns the first of them. Failed
// moves an address behind the others, so that each gets its turn until the member answers at one.
//
// The zero value is ready for use. The methods may be called concurrently.
type Addresses struct {
	mu    sync.Mutex
	known map[uint64][]string // by member ID; the most promising first
}

// maxAddresses is how many addresses of one member are kept.
const maxAddresses = 4

// Learn puts an address before all others of a member: the address is certain, or newer.
func (a *Addresses) Learn(id uint64, addr string) { a.add(id, addr, true) }

// Suggest puts an address behind all others of a member, unless it is known already.
func (a *Addresses) Suggest(id uint64, addr string) { a.add(id, addr, false) }

func (a *Addresses) add(id uint64, addr string, first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.known[id]
	switch at := slices.Index(known, addr); {
	case addr == "" || at == 0 || at > 0 && !first:
		return
	case at > 0:
		known = slices.Delete(known, at, at+1)
	}
	at := 0
	if !first {
		at = min(len(known), maxAddresses-1)
	}
	if a.known == nil {
		a.known = map[uint64][]string{}
	}
	known = slices.Insert(known, at, addr)
	a.known[id] = known[:min(len(known), maxAddresses)]
}

// Failed notes that a member was not found at an address. If that is the member's first address, it
// becomes the last.
func (a *Addresses) Failed(id uint64, addr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.known[id]; len(known) > 1 && known[0] == addr {
		a.known[id] = append(known[1:], addr)
	}
}

// Find returns the address to try for a member, or "" if none is known.
func (a *Addresses) Find(id uint64) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.known[id]; len(known) > 0 {
		return known[0]
	}
	return ""
}

// Of returns all known addresses of a member.
func (a *Addresses) Of(id uint64) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.known[id])
}

// All returns the known addresses of all members.
func (a *Addresses) All() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, known := range a.known {
		all = append(all, known...)
	}
	return all
}
