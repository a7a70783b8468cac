// SPDX-License-Identifier: Apache-2.0

package mvcc

import "fmt"

// A Loader rebuilds a store from the output of View.Base and View.Changes.
type Loader struct {
	store    *Store
	revision int64
	last     string // key of the base
	based    bool   // the base is complete
}

// NewLoader returns a Loader for a store with these revisions.
func NewLoader(revision, compacted int64) *Loader {
	s := New()
	s.compacted = compacted
	s.history.first = max(compacted, 2)
	return &Loader{store: s, revision: revision}
}

// Add adds a copy of the next version: first the base, then the changes, each in its order. It rejects versions
// that no store could have produced.
func (l *Loader) Add(kv KeyValue) error {
	s := l.store
	if kv.Key == "" || kv.ModRevision < 1 || kv.ModRevision > l.revision || kv.Version < 0 || kv.CreateRevision > kv.ModRevision ||
		kv.Deleted() != (kv.CreateRevision == 0) || kv.Deleted() && (kv.Value != "" || kv.Lease != 0) {
		return unexpected(&kv, "out of range")
	}
	if kv.ModRevision < s.history.first {
		if l.based || kv.Key <= l.last || kv.Deleted() {
			return unexpected(&kv, "out of order")
		}
		v := newVersion(&kv, links{})
		l.last = v.key()
		s.bytes += kv.bytes()
		s.live.append(v)
		return nil
	}
	if !l.based {
		l.based = true
		s.revision = s.history.first - 1
	}
	if kv.ModRevision > s.revision+1 && !l.next() {
		return unexpected(&kv, "a revision is missing")
	}
	if kv.ModRevision != s.revision+1 {
		return unexpected(&kv, "out of order")
	}
	var c cursor
	old := s.live.findAt(&c, kv.Key)
	prev, existed := old.found()
	switch {
	case !kv.Deleted():
		if existed && (kv.Version != prev.Version+1 || kv.CreateRevision != prev.CreateRevision) {
			return unexpected(&kv, "does not follow the previous version")
		}
		s.put(&c, old, &prev, &kv)
	case existed:
		s.live.remove(&c)
		s.bury(&kv, old, &prev)
	default:
		// The version that the tombstone deleted may have been compacted. Then the tombstone is the first change
		// that is kept.
		if kv.ModRevision != s.compacted || s.tombstones.find(kv.Key).exists() {
			return unexpected(&kv, "deletes nothing")
		}
		s.bury(&kv, version{}, nil)
	}
	return nil
}

func unexpected(kv *KeyValue, why string) error {
	return fmt.Errorf("mvcc: version of %q at revision %d: %s", kv.Key, kv.ModRevision, why)
}

// next ends the revision that is being added. It returns false if the revision has no changes, except for the
// compact revision: a store of another program may have kept none of its changes, for example if they deleted keys.
func (l *Loader) next() bool {
	s := l.store
	if !s.Pending() && s.revision+1 != s.compacted {
		return false
	}
	s.end()
	return true
}

// Store returns the store after all versions have been added.
func (l *Loader) Store() (*Store, error) {
	s := l.store
	if !l.based {
		s.revision = max(s.history.first-1, 1)
	}
	l.next()
	if s.revision != l.revision {
		return nil, fmt.Errorf("mvcc: history ends at revision %d, not %d", s.revision, l.revision)
	}
	return s, nil
}
