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
	for r := s.history.first; r <= rev; r++ {
		for _, v := range s.history.changes(r) {
			if old := s.history.before(v); old.exists() && old.modRevision() < rev {
				s.free(old)
			}
			if r < rev && v.deleted() {
				s.free(s.tombstones.removeAt(v.key(), r))
			}
		}
	}
	s.history.drop(rev)
	s.compacted = rev
	return nil
}

// free no longer counts a version that is removed.
func (s *Store) free(v version) {
	s.bytes -= v.bytes()
	s.superseded -= v.bytes()
}
