// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"slices"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A Server is a member as it appears in a configuration entry of the log.
type Server struct {
	ID    uint64
	Addr  string
	Voter bool
}

// A Member is a member of the cluster: a server and its record.
type Member struct {
	Server
	Name        string
	Incarnation uint64     // of its data; 0: not known yet
	Wanted      bool       // it gets a vote as soon as it has caught up
	Run         run.Number // the last run of that data
	// Start identifies the opening of the node that the metadata is of. It is 0 if the record was made by a
	// version without metadata, or has passed through the snapshot of one.
	Start    uint64
	Metadata string // encoded
}

// NeedsEmpty reports whether the member was added for a node that starts with an empty directory, and has not started.
// The record says so with a run that no directory has.
func (m *Member) NeedsEmpty() bool { return m.Incarnation == 0 && m.Run == run.Void }

// Members are the members of a cluster in the order of their IDs. They are immutable: changes replace the
// slice.
type Members []Member

// Get returns the member with an ID.
func (ms Members) Get(id uint64) (Member, bool) {
	i, ok := ms.find(id)
	if !ok {
		return Member{}, false
	}
	return ms[i], true
}

// Has reports whether there is a member with an ID.
func (ms Members) Has(id uint64) bool {
	_, ok := ms.find(id)
	return ok
}

func (ms Members) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(ms, id, func(m Member, id uint64) int { return cmp.Compare(m.ID, id) })
}

// Rank returns the number of members with lower IDs.
func (ms Members) Rank(id uint64) int {
	i, _ := ms.find(id)
	return i
}

// Voters returns the number of voters.
func (ms Members) Voters() (n int) {
	for _, m := range ms {
		if m.Voter {
			n++
		}
	}
	return n
}

// configure makes the servers the members. Members that stay keep their records.
func (s *State) configure(servers []Server) {
	next := make(Members, 0, len(servers))
	for _, server := range servers {
		m, known := s.members.Get(server.ID)
		if !known {
			m.Addr = server.Addr
		}
		server.Addr = m.Addr // the record may have a later one
		m.Server = server
		next = append(next, m)
	}
	slices.SortFunc(next, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	s.become(next)
	s.note(configured)
	for _, m := range next {
		s.noteMember(&m)
	}
}

// become replaces the members.
func (s *State) become(next Members) {
	s.removals = s.removals.after(s.members, next)
	s.members = next
}

// noteMember hashes a member without its run and its metadata: nodes of versions without these have none on
// record, and must get the same hash.
func (s *State) noteMember(m *Member) {
	flag := func(b bool) uint64 {
		if b {
			return 1
		}
		return 0
	}
	s.note(enrolled, m.ID, sum(m.Name)<<32|sum(m.Addr), m.Incarnation, flag(m.Voter)<<1|flag(m.Wanted))
}

func (s *State) enroll(e *command.Enroll) {
	i, ok := s.members.find(e.ID)
	if !ok {
		return
	}
	s.members = slices.Clone(s.members)
	m := &s.members[i]
	m.Name, m.Addr, m.Incarnation, m.Wanted, m.Run = e.Name, e.Addr, e.Incarnation, e.Voter, e.Run
	m.Start = e.Start
	if e.Described {
		m.Metadata = e.Metadata
	}
	s.noteMember(m)
}

// A Standing is a state's knowledge of a node that claims an identity.
type Standing uint8

// The possible standings.
const (
	Welcome   Standing = iota // a member; or the state is too old to know
	Stranger                  // not a member
	Forgotten                 // a member, but with other data on record, or with a later run of the same data
	Removed                   // a former member
)

// Judge returns the standing of a node with an incarnation and the runs of its directory. At the index
// since, the log has the incarnation on record; 0: the node does not know that it has.
func (v *Summary) Judge(id, incarnation, since uint64, runs run.Line) Standing {
	m, ok := v.Members.Get(id)
	switch {
	case ok && m.NeedsEmpty() && since > 0 && since <= v.Index:
		return Removed
	case since > v.Index, ok && m.Incarnation == 0, ok && m.Incarnation == incarnation && runs.Has(m.Run):
		return Welcome
	case ok:
		return Forgotten
	case since > 0:
		return Removed
	}
	return Stranger
}

func (m *Member) append(b []byte) []byte {
	b = wire.Uint(b, 1, m.ID)
	b = wire.Text(b, 2, m.Name)
	b = wire.Text(b, 3, m.Addr)
	b = wire.Uint(b, 4, m.Incarnation)
	b = wire.Bool(b, 5, m.Wanted)
	b = wire.Bool(b, 6, m.Voter)
	b = wire.Uint(wire.Uint(b, 7, m.Run.Count), 8, m.Run.Draw)
	return wire.Uint(wire.Text(b, 9, m.Metadata), 10, m.Start)
}

func (m *Member) decode(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			m.ID = r.Uint()
		case 2:
			m.Name = r.Text()
		case 3:
			m.Addr = r.Text()
		case 4:
			m.Incarnation = r.Uint()
		case 5:
			m.Wanted = r.Bool()
		case 6:
			m.Voter = r.Bool()
		case 7:
			m.Run.Count = r.Uint()
		case 8:
			m.Run.Draw = r.Uint()
		case 9:
			m.Metadata = r.Text()
		case 10:
			m.Start = r.Uint()
		}
	}
	return r.Err()
}
