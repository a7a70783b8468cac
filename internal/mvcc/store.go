// SPDX-License-Identifier: Apache-2.0

package mvcc

import "fmt"

// A Store is the writable store. Its methods, including those of View, belong to one goroutine, and see
// uncommitted changes.
type Store struct {
	view
	open entry // the changes of the next revision
}

type view = View

// New returns an empty store.
func New() *Store {
	return &Store{view: view{
		revision: 1, compacted: -1, live: newRecords(), dead: newRecords(), history: history{first: 2},
	}}
}

// View returns an immutable view of the store. Its cost does not depend on the size of the store. There
// must be no uncommitted changes.
func (s *Store) View() *View {
	v := s.view
	v.live, v.dead = s.live.Copy(), s.dead.Copy()
	return &v
}

// change makes kv the newest version of its key, whose record among the live ones is r, or nil.
func (s *Store) change(r *record, kv *KeyValue) {
	s.bytes += kv.bytes()
	switch {
	case r != nil:
		prev := r.cur
		kv.Key = prev.Key // share its memory
		s.superseded += prev.bytes()
		if prev.ModRevision > s.revision {
			s.open.own += prev.bytes()
		} else {
			s.open.superseded += prev.bytes()
		}
		if kv.Deleted() {
			s.live.Delete(r)
			s.dead.Set(r.with(kv))
		} else {
			s.live.Set(r.with(kv))
		}
	default:
		if r = find(s.dead, kv.Key); r == nil {
			s.live.Set(&record{cur: kv})
		} else {
			s.dead.Delete(r)
			kv.Key = r.cur.Key
			s.live.Set(r.with(kv))
		}
	}
	if kv.Deleted() {
		s.superseded += kv.bytes()
		s.open.own += kv.bytes()
	}
	s.open.add(kv)
}

// Put stores a value under a key, with a lease or 0 for none, as part of the next revision. It returns
// the previous version and the new one. The previous version is the zero KeyValue if the key did not exist.
func (s *Store) Put(key, value string, lease int64) (prev, now KeyValue) {
	kv := &KeyValue{Key: key, Value: value, CreateRevision: s.revision + 1, ModRevision: s.revision + 1, Version: 1, Lease: lease}
	r := find(s.live, key)
	if r != nil {
		prev = *r.cur
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
	}
	s.change(r, kv)
	return prev, *kv
}

// Delete deletes the keys of a range, as part of the next revision. It returns their previous versions in
// the order of keys.
func (s *Store) Delete(key, end string) (prev []KeyValue) {
	s.Ascend(key, end, 0, func(kv KeyValue) bool {
		prev = append(prev, kv)
		return true
	})
	for _, kv := range prev {
		s.change(find(s.live, kv.Key), &KeyValue{Key: kv.Key, ModRevision: s.revision + 1})
	}
	return prev
}

// Pending reports whether the next revision has changes.
func (s *Store) Pending() bool { return s.open.one != nil || s.open.many != nil }

// Commit ends the next revision if it has changes. It returns the store's revision, and whether it is
// new.
func (s *Store) Commit() (rev int64, changed bool) {
	if !s.Pending() {
		return s.revision, false
	}
	s.revision++
	s.history.append(s.open)
	s.open = entry{}
	return s.revision, true
}

// Compact removes the versions that are not visible at or after rev. Its cost is proportional to the
// number of changes from the last compaction up to rev. There must be no uncommitted changes.
//
// Errors: ErrCompacted if rev is not above the last compaction's, ErrFuture if it does not exist yet.
func (s *Store) Compact(rev int64) error {
	if rev <= s.compacted {
		return ErrCompacted
	}
	if rev > s.revision {
		return ErrFuture
	}
	// The revision of the last compaction is included, because its tombstones had to stay.
	s.Changes(s.compacted, rev, func(_ int64, changes []KeyValue) bool {
		for _, kv := range changes {
			s.compactKey(kv.Key, rev)
		}
		return true
	})
	s.history.drop(rev)
	s.compacted = rev
	return nil
}

func (s *Store) compactKey(key string, rev int64) {
	tree := s.live
	r := find(tree, key)
	if r == nil {
		tree = s.dead
		if r = find(tree, key); r == nil {
			return
		}
	}
	kept := r.compacted(rev)
	if kept == r {
		return
	}
	gone := r.old
	if kept == nil {
		tree.Delete(r)
		s.bytes -= r.cur.bytes()
		s.superseded -= r.cur.bytes()
	} else {
		tree.Set(kept)
		gone = r.old[:len(r.old)-len(kept.old)]
	}
	for _, kv := range gone {
		s.bytes -= kv.bytes()
		s.superseded -= kv.bytes()
	}
}

// A Loader rebuilds a store from the output of View.Base and View.Changes.
type Loader struct {
	store    *Store
	revision int64
	last     string // the last key of the base
	based    bool   // the base is complete
}

// NewLoader returns a Loader for a store with these revisions.
func NewLoader(revision, compacted int64) *Loader {
	s := New()
	s.compacted = compacted
	s.history.first = max(compacted, 2)
	return &Loader{store: s, revision: revision}
}

// Add adds the next version: first the base, then the changes, each in its order. It rejects versions
// that no store could have produced.
func (l *Loader) Add(version KeyValue) error {
	s, kv := l.store, &version
	bad := func(why string) error {
		return fmt.Errorf("mvcc: version of %q at revision %d: %s", kv.Key, kv.ModRevision, why)
	}
	if kv.Key == "" || kv.ModRevision < 1 || kv.ModRevision > l.revision || kv.Version < 0 || kv.CreateRevision > kv.ModRevision ||
		kv.Deleted() != (kv.CreateRevision == 0) {
		return bad("out of range")
	}
	if kv.ModRevision < s.history.first {
		if l.based || kv.Key <= l.last || kv.Deleted() {
			return bad("out of order")
		}
		l.last = kv.Key
		s.bytes += kv.bytes()
		s.live.Set(&record{cur: kv})
		return nil
	}
	if !l.based {
		l.based = true
		s.revision = s.history.first - 1
	}
	if kv.ModRevision > s.revision+1 && !l.next() {
		return bad("a revision is missing")
	}
	prev := s.get(kv.Key, 0)
	switch {
	case kv.ModRevision != s.revision+1:
		return bad("out of order")
	case kv.Deleted() && prev == nil:
		// The version that it deleted may have been compacted. Then the tombstone is the first change
		// that is kept.
		if kv.ModRevision != s.compacted || find(s.dead, kv.Key) != nil {
			return bad("deletes nothing")
		}
		s.bytes += kv.bytes()
		s.superseded += kv.bytes()
		s.dead.Set(&record{cur: kv})
		s.open.own += kv.bytes()
		s.open.add(kv)
		return nil
	case !kv.Deleted() && prev != nil && (kv.Version != prev.Version+1 || kv.CreateRevision != prev.CreateRevision):
		return bad("does not follow the previous version")
	}
	s.change(find(s.live, kv.Key), kv)
	return nil
}

// next ends the revision that is being added. It returns false if the revision has no changes, except for the
// compact revision: a store of another program may have kept none of its changes, for example if they deleted keys.
func (l *Loader) next() bool {
	s := l.store
	if _, changed := s.Commit(); changed {
		return true
	}
	if s.revision+1 != s.compacted {
		return false
	}
	s.revision++
	s.history.append(entry{})
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
