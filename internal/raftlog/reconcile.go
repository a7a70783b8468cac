// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"fmt"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
)

// reconcile makes the log and the newest snapshot agree. After raft installs a snapshot, it continues
// with the next entry, whatever the log has. So a crash may leave a log that does not belong to the snapshot.
func (l *Log) reconcile(reached *storage.Extent) error {
	s := l.store
	metas, err := l.snapshots.List()
	if err != nil {
		return err
	}
	var newest raft.SnapshotMeta
	if len(metas) > 0 {
		newest = *metas[0]
	}
	s.follows(&newest)
	overtaken, err := joins(l.dir, s.place, s.first, s.last, s.applied, &newest, s.lookup)
	if err == nil {
		err = lostSnapshot(l.dir, reached, s.last, newest.Index)
	}
	if err != nil || !overtaken {
		return err
	}
	return s.drop()
}

// drop removes all entries. A snapshot has those that were applied.
func (s *store) drop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.closing {
		return s.ended()
	}
	s.truncate(s.first)
	return nil
}

// joins checks that the log continues the newest snapshot, or begins before its end, and that it has all
// applied entries. It reports whether the snapshot has overtaken the log. The entries of such a log are
// obsolete. Errors about the log name it as log.
func joins(dir, log string, first, last, applied uint64, newest *raft.SnapshotMeta, entry func(uint64) (*raft.Log, error)) (overtaken bool, err error) {
	switch {
	case applied > max(last, newest.Index):
		return false, &CorruptError{
			File: log,
			Err:  fmt.Errorf("it ends at entry %d, but %d had been applied", max(last, newest.Index), applied),
		}
	case last == 0 || first == newest.Index+1:
		return false, nil
	case first > newest.Index+1:
		return false, &CorruptError{
			File: filepath.Join(dir, snapshotDir),
			Err:  fmt.Errorf("the log begins at entry %d, the newest snapshot ends at %d", first, newest.Index),
		}
	}
	if newest.Index == 0 {
		return false, nil
	}
	if last >= newest.Index {
		at, err := entry(newest.Index)
		if err != nil {
			return false, err
		}
		if at.Term == newest.Term {
			return false, nil
		}
		if applied > newest.Index {
			return false, &CorruptError{
				File: log,
				Err: fmt.Errorf("it has applied the entries up to %d, entry %d of term %d among them, which is of term %d in the newest snapshot: %w",
					applied, newest.Index, at.Term, newest.Term, ErrDiverged),
			}
		}
	}
	return true, nil
}

// lostSnapshot returns an error if the log and the snapshots end before a snapshot that existed when the log reached
// an extent.
func lostSnapshot(dir string, reached *storage.Extent, last, snapshot uint64) error {
	end := max(last, snapshot)
	if end >= reached.Snapshot {
		return nil
	}
	return &CorruptError{
		File: filepath.Join(dir, snapshotDir),
		Err:  fmt.Errorf("log and snapshots end with entry %d, but there was a snapshot of entry %d", end, reached.Snapshot),
	}
}

// Astray reports whether the log has another entry at the index of the newest snapshot's last entry. The
// snapshot was committed, so the log's entries from there on never were. If raft kept using such a log,
// it would reject its leader's entries and request the same snapshot again, for ever
// (hashicorp/raft#697). Astray may read from the disk.
func (l *Log) Astray() bool {
	astray, err := l.store.astray()
	return err == nil && astray
}

// Realign drops a log that went astray. Raft must not be running, since it caches facts about the log.
//
// Errors: *CorruptError if entries after the snapshot were applied; an error of the disk if the log
// cannot be read; or the error of a log that has failed or is closed.
func (l *Log) Realign() error {
	s := l.store
	astray, err := s.astray()
	if err != nil || !astray {
		return err
	}
	return s.drop()
}

func (s *store) astray() (bool, error) {
	s.mu.Lock()
	index, term, has := s.snapshot, s.snapshotTerm, s.first <= s.snapshot && s.snapshot <= s.last && s.last > 0
	applied := s.applied
	s.mu.Unlock()
	if !has || index == 0 {
		return false, nil
	}
	at, err := s.entry(index)
	if err != nil {
		return false, err
	}
	if at.Term != term && applied > index {
		return false, s.orDiverge(s.diverged("it has applied the entries up to %d, entry %d of term %d among them, which is of term %d in a snapshot",
			applied, index, at.Term, term))
	}
	return at.Term != term, nil
}

func (l *Log) snapshotDone(meta *raft.SnapshotMeta) {
	s := l.store
	s.mu.Lock()
	if meta.Index > s.snapshot {
		s.follows(meta)
	}
	s.mu.Unlock()
	s.changed.Broadcast()
}

// follows makes a snapshot the newest one.
func (s *store) follows(meta *raft.SnapshotMeta) {
	s.snapshot, s.snapshotTerm, s.snapshotSize = meta.Index, meta.Term, meta.Size
	s.bytes = 0
	for i := max(s.snapshot+1, s.first); i <= s.last; i++ {
		s.bytes += s.size(i)
	}
}
