// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
)

// Load implements storage.Log.
func (s *segments) Load() (storage.Loaded, error) {
	reached, serial, err := readExtent(s.extents.file)
	if err != nil {
		return storage.Loaded{}, err
	}
	s.extents.serial = serial
	if err := s.openAll(&reached); err != nil {
		return storage.Loaded{}, err
	}
	return storage.Loaded{First: s.contents.first(), Last: s.contents.last(), Applied: s.applied, Reached: reached.Extent}, nil
}

// Write implements storage.Log. All changes are one batch.
func (s *segments) Write(changes []storage.Change, applied uint64) (bytes int, err error) {
	b := s.batch
	defer b.reset()
	for i := range changes {
		switch c := &changes[i]; c.Kind {
		case storage.Append:
			for _, l := range c.Entries {
				b.entry(l)
			}
		case storage.Truncate:
			b.number(recordTruncate, c.Index)
		case storage.Reset:
			b.number(recordReset, 0)
		}
	}
	if applied != s.applied {
		b.number(recordApplied, applied)
	}
	if b.empty() {
		return 0, nil
	}
	g, offset, err := s.write(b)
	if err != nil {
		return 0, err
	}
	s.applied = applied
	s.note(changes, g, offset)
	return b.size(), nil
}

// note adds the changes of a durable batch to the contents. The batch begins at an offset of a segment.
func (s *segments) note(changes []storage.Change, g *segment, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refs := s.batch.refs
	for i := range changes {
		switch c := &changes[i]; c.Kind {
		case storage.Append:
			for _, l := range c.Entries {
				r := refs[0]
				refs = refs[1:]
				r.segment, r.offset = g, r.offset+offset
				s.contents.add(l.Index, r)
				g.newest = max(g.newest, l.Index)
			}
		case storage.Truncate:
			s.contents.truncate(c.Index)
		case storage.Reset:
			s.contents.refs = nil
		}
	}
}

// Entry implements storage.Log. The file of a segment stays open while something refers to the segment, so an entry
// can still be read while it is removed.
func (s *segments) Entry(index uint64) (*raft.Log, error) {
	s.mu.RLock()
	r, ok := s.contents.at(index)
	s.mu.RUnlock()
	if !ok {
		return nil, raft.ErrLogNotFound
	}
	return r.read()
}

// Size implements storage.Log.
func (s *segments) Size(index uint64) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, _ := s.contents.at(index)
	return int64(r.size)
}

// Compact implements storage.Log. It removes the oldest segments that have no entry at or after the index.
func (s *segments) Compact(below uint64) error {
	s.mu.Lock()
	s.contents.drop(below)
	s.mu.Unlock()
	return s.compact(below)
}

// Extend implements storage.Log. It also prepares space for the next batches.
func (s *segments) Extend(e storage.Extent) {
	if len(s.files) == 0 {
		return // nothing was written
	}
	g := s.files[len(s.files)-1]
	s.extents.write(extent{Extent: e, sequence: g.sequence, salt: g.salt, end: g.end})
	s.prepare()
}

// Sync implements storage.Log.
func (s *segments) Sync() { s.extents.sync() }
