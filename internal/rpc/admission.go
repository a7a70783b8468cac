// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"container/list"
	"net"
)

// maxKnown bounds the hosts that a server knows to have a member. When there are more, it starts afresh.
const maxKnown = 256

// displaced returns the connection to close when too many are shaking hands: the oldest one of the host
// that has most of them. Hosts from which no member has connected come first. So a flood of connections
// displaces its own and not those of members. The caller holds s.mu.
func (s *Server) displaced() *list.Element {
	count := map[string]int{}
	for e := s.pending.Front(); e != nil; e = e.Next() {
		count[hostOf(e)]++
	}
	worst := s.pending.Front()
	for e := worst.Next(); e != nil; e = e.Next() {
		a, b := hostOf(e), hostOf(worst)
		if s.known[a] == s.known[b] && count[a] > count[b] || !s.known[a] && s.known[b] {
			worst = e
		}
	}
	return worst
}

// know notes that a member has connected from the host of a connection.
func (s *Server) know(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil || len(s.known) == maxKnown {
		s.known = map[string]bool{}
	}
	s.known[hostName(nc.RemoteAddr())] = true
}

func hostOf(pending *list.Element) string { return hostName(pending.Value.(net.Conn).RemoteAddr()) }

// hostName returns an address without its port.
func hostName(addr net.Addr) string {
	name, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return name
}
