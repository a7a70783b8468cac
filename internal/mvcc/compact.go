// SPDX-License-Identifier: Apache-2.0

package mvcc

// Compact removes the versions that are not visible at or after rev. It keeps all changes made at rev, including
// tombstones, because a watch may begin there. Of the older versions it keeps those that were current at rev. Its cost is
// proportional to the number of changes from the last compaction up to rev. There must be no uncommitted changes.
//
// Errors: ErrCompacted if rev is not above the last compaction's, ErrFuture if it does not exist yet.
func (s *Store) Compact(rev int64) error {
	if rev <= s.compacted {
		return ErrCompacted
	}
	if rev > s.revision {
		return ErrFuture
	}
	first, replaced := s.history.first, s.history.replaced(rev)
	for r := first; r <= rev; r++ {
		for i, v := range s.history.changes(r) {
			if pred := v.links().pred; pred.rev > 0 && pred.rev < first {
				s.free(s.past.removeAt(v.key(), pred.rev))
			}
			switch {
			case r == rev:
			case replaced[r-first][i]:
				s.free(v)
			case v.deleted():
				s.free(s.past.removeAt(v.key(), r))
			case s.live.find(v.key()) != v:
				s.past.add(v) // the history no longer has this version, which was current at rev
			}
		}
	}
	s.history.drop(rev)
	s.compacted = rev
	return nil
}

// free no longer counts a version that is removed, if it exists.
func (s *Store) free(v version) {
	if v.exists() {
		s.bytes -= v.bytes()
		s.superseded -= v.bytes()
	}
}

// replaced reports which changes a later change up to rev replaced or deleted, for each revision up to rev, by the index of
// a change.
func (h *history) replaced(rev int64) [][]bool {
	var replaced [][]bool
	var memory []bool // for many revisions
	for r := h.first; r <= rev; r++ {
		changes := h.changes(r)
		if len(changes) > len(memory) {
			memory = make([]bool, max(len(changes), 4096))
		}
		replaced, memory = append(replaced, memory[:len(changes):len(changes)]), memory[len(changes):]
		for _, v := range changes {
			if pred := v.links().pred; pred.rev >= h.first {
				replaced[pred.rev-h.first][pred.index] = true
			}
		}
	}
	return replaced
}
