// SPDX-License-Identifier: Apache-2.0

package state

import "github.com/tidwall/btree"

// Snapshot returns the data that the view has, without what belongs to its cluster: members, epoch, and
// the table of proposers, which would tell nothing to those of another.
func (v *View) Snapshot() *Snapshot {
	data := *v
	data.Members, data.Epoch = nil, 0
	return &Snapshot{view: &data, proposers: &btree.Map[uint64, *proposer]{}}
}

// Refound makes the state that of a new cluster, as it is at the entry with which that is founded.
// All that belongs to a cluster and not to its data is replaced here, and nowhere else.
func (s *State) Refound(index, term uint64, founders Members) {
	s.index, s.term = index, term
	s.proposers = newProposers()
	s.members, s.epoch = founders, 0
}

// Recover makes the state that of a cluster that goes on with one member, since the majority is lost,
// as it is at an index and in a term of which no other node knows. All but the members and the epoch
// stays: a cluster of another epoch is another one to those who remember, so none of them comes back
// with what it knew. The table of proposers stays, too, for it is of the same log.
func (s *State) Recover(index, term, epoch uint64, m Member) {
	s.index, s.term = index, term
	s.members, s.epoch = Members{m}, epoch
	s.note(founded, epoch)
	s.note(configured)
	s.noteMember(&m)
}
