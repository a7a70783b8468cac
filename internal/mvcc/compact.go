// SPDX-License-Identifier: Apache-2.0

package mvcc

// Compact removes the versions that are not visible at or after rev. It keeps all changes made at rev, including
// tombstones, because a watch may begin there. Of the older versions it keeps those that were current at rev. Its cost is
// proportional to the number of revisions from the last compaction up to rev, and to that of their tombstones. There must be
// no uncommitted changes.
//
// Errors: ErrCompacted if rev is not above the last compaction's, ErrFuture if it does not exist yet.
func (s *Store) Compact(rev int64) error {
	if rev <= s.compacted {
		return ErrCompacted
	}
	if rev > s.revision {
		return ErrFuture
	}
	for r := s.history.first; r <= rev; r++ {
		reached, passed := s.frees(r)
		if r == rev {
			passed = 0
		}
		s.bytes -= reached + passed
		s.superseded -= reached + passed
		if passed == 0 {
			continue // no tombstones
		}
		for _, v := range s.history.changes(r) {
			if v.deleted() {
				s.tombstones.removeAt(v.key(), r)
			}
		}
	}
	s.history.drop(rev)
	s.compacted = rev
	return nil
}

// frees returns the bytes that a compaction frees when it reaches a revision, and when it passes it. It reads none of the
// versions, most of which are in no cache of the processor.
func (v *View) frees(rev int64) (reached, passed int64) {
	sizes := v.history.sizes(rev)
	if rev <= v.compacted {
		return 0, sizes.own // the last compaction has reached it
	}
	return sizes.superseded, sizes.own
}
