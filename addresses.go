// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"slices"
	"sync"
)

// addresses says where members are. A member may be known by several addresses, since it moves, and
// since Config, the log and the member itself may each have another; they take turns until one is
// answered by that member.
type addresses struct {
	mu    sync.Mutex
	known map[MemberID][]string // the most promising first
}

// maxAddresses is how many addresses of one member are kept.
const maxAddresses = 4

// learn puts an address that is certain, or newer than the others, before them.
func (a *addresses) learn(id MemberID, addr string) { a.add(id, addr, true) }

// suggest adds an address behind those that are known.
func (a *addresses) suggest(id MemberID, addr string) { a.add(id, addr, false) }

func (a *addresses) add(id MemberID, addr string, first bool) {
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
		a.known = map[MemberID][]string{}
	}
	known = slices.Insert(known, at, addr)
	a.known[id] = known[:min(len(known), maxAddresses)]
}

// failed says that a member was not found at an address: the next one's turn has come.
func (a *addresses) failed(id MemberID, addr string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.known[id]; len(known) > 1 && known[0] == addr {
		a.known[id] = append(known[1:], addr)
	}
}

// find returns the address to try for a member, or nothing.
func (a *addresses) find(id MemberID) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.known[id]; len(known) > 0 {
		return known[0]
	}
	return ""
}

// of returns every address that is known of a member.
func (a *addresses) of(id MemberID) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.known[id])
}

// all returns every address that is known.
func (a *addresses) all() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, known := range a.known {
		all = append(all, known...)
	}
	return all
}
