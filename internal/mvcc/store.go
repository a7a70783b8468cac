// SPDX-License-Identifier: Apache-2.0

package mvcc

// A Store is the writable store. Its methods, including those of View, belong to one goroutine, and see
// uncommitted changes.
type Store struct {
	view
	sizes sizes // of the next revision
}

type view = View

// New returns an empty store.
func New() *Store {
	return &Store{view: view{revision: 1, compacted: -1, history: history{first: 2}}}
}

// View returns an immutable view of the store. Its cost does not depend on the size of the store. There
// must be no uncommitted changes.
func (s *Store) View() *View {
	v := s.view
	v.live, v.tombstones = s.live.share(), s.tombstones.share()
	v.history.pending, v.history.replaced = nil, nil
	v.hot = new(hot)
	return &v
}

// Current returns the store as a view that changes with it. It belongs to the goroutine of the store.
func (s *Store) Current() *View { return &s.view }

// Put stores copies of a key and a value, with a lease or 0 for none, as part of the next revision. It returns
// the previous version and the new one. The previous version is the zero KeyValue if the key did not exist. The new one
// does not share the memory of the arguments.
func (s *Store) Put(key, value string, lease int64) (prev, now KeyValue) {
	var c cursor
	old := s.live.findAt(&c, key)
	now = KeyValue{Key: key, Value: value, CreateRevision: s.revision + 1, ModRevision: s.revision + 1, Version: 1, Lease: lease}
	if old.exists() {
		prev = old.keyValue()
		now.CreateRevision, now.Version = prev.CreateRevision, prev.Version+1
	}
	return prev, s.put(&c, old, &prev, &now).keyValue()
}

// put stores a version of a key at a cursor of the live versions. old is the previous version, with its contents prev.
func (s *Store) put(c *cursor, old version, prev, now *KeyValue) version {
	v := newVersion(now, s.history.links(old, prev))
	s.bytes += now.bytes()
	if old.exists() {
		s.live.replace(c, v)
		s.supersede(prev)
	} else {
		s.live.insert(c, v)
	}
	s.history.add(v, old)
	return v
}

// supersede counts a version that a change of the next revision replaces or deletes.
func (s *Store) supersede(prev *KeyValue) {
	s.superseded += prev.bytes()
	if prev.ModRevision > s.revision {
		s.sizes.own += prev.bytes()
	} else {
		s.sizes.superseded += prev.bytes()
	}
}

// Delete deletes the keys of a range, as part of the next revision. It returns their previous versions in
// the order of keys.
func (s *Store) Delete(key, end string) (prev []KeyValue) {
	s.Ascend(key, end, 0, func(kv KeyValue) bool {
		prev = append(prev, kv)
		return true
	})
	for i := range prev {
		var c cursor
		old := s.live.findAt(&c, prev[i].Key)
		s.live.remove(&c)
		s.bury(&KeyValue{Key: prev[i].Key, ModRevision: s.revision + 1}, old, &prev[i])
	}
	return prev
}

// bury adds a tombstone of a version with its contents, which has been removed. The version may not exist.
func (s *Store) bury(kv *KeyValue, old version, prev *KeyValue) {
	l := s.history.links(old, prev)
	l.far = place{} // a read that begins here needs one step more
	tombstone := newVersion(kv, l)
	if old.exists() {
		s.supersede(prev)
	}
	s.tombstones.add(tombstone)
	s.bytes += kv.bytes()
	s.superseded += kv.bytes()
	s.sizes.own += kv.bytes()
	s.history.add(tombstone, old)
}

// Pending reports whether the next revision has changes.
func (s *Store) Pending() bool { return len(s.history.pending) > 0 }

// Commit ends the next revision if it has changes. It returns the store's revision, and whether it is
// new.
func (s *Store) Commit() (rev int64, changed bool) {
	if !s.Pending() {
		return s.revision, false
	}
	s.end()
	return s.revision, true
}

// end ends the next revision.
func (s *Store) end() {
	s.revision++
	s.history.end(s.sizes)
	s.sizes = sizes{}
}
