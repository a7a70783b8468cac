// SPDX-License-Identifier: Apache-2.0

package state

import "github.com/tidwall/btree"

// Snapshot returns what the view has, without the table of proposers: that of another cluster would
// tell nothing to those of a new one.
func (v *View) Snapshot() *Snapshot {
	return &Snapshot{view: v, proposers: &btree.Map[uint64, *proposer]{}}
}

// Refound makes the state that of a new cluster, as it is at the entry with which that is founded.
// All that belongs to a cluster and not to its data is replaced here, and nowhere else.
func (s *State) Refound(index, term uint64, founders Members) {
	s.index, s.term = index, term
	s.proposers = newProposers()
	s.members, s.epoch = founders, 0
}
