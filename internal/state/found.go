// SPDX-License-Identifier: Apache-2.0

package state

import "github.com/tidwall/btree"

// Snapshot returns the data of the view without the parts that belong to its cluster: members with their
// alarms, removed members, epoch, and the table of proposers, which means nothing to proposers of another cluster.
func (v *View) Snapshot() *Snapshot {
	data := *v
	data.Members, data.Removals, data.Alarms, data.Epoch = nil, nil, nil, 0
	return &Snapshot{view: &data, proposers: &btree.Map[uint64, *proposer]{}}
}

// Refound turns the state into that of a new cluster at its founding entry. It replaces all parts that
// belong to a cluster and not to its data; no other function does.
func (s *State) Refound(index, term uint64, founders Members) {
	s.index, s.term = index, term
	s.proposers = newProposers()
	s.members, s.removals, s.alarms, s.epoch = founders, nil, nil, 0
}

// Recover turns the state into that of a cluster that continues with one member after it has lost its
// majority, at an index and in a term that no other node knows. The other members are removed, and the epoch changes.
// Everything else stays. The epoch makes it another cluster for the former members, so none of them returns with
// its old data. The table of proposers stays because it belongs to the same log.
func (s *State) Recover(index, term, epoch uint64, m Member) {
	s.index, s.term = index, term
	s.become(Members{m})
	s.epoch = epoch
	s.note(founded, epoch)
	s.note(configured)
	s.noteMember(&m)
}
