// SPDX-License-Identifier: Apache-2.0

package mvcc

import "math"

// A View is an immutable view of the store at one revision. Any number of goroutines may read it.
type View struct {
	revision   int64
	compacted  int64
	live       tree // the newest versions of the keys that exist
	tombstones tree // all of the history
	history    history
	hot        *hot  // nil in a Store
	bytes      int64 // of all versions
	superseded int64 // of all versions except the newest ones of existing keys
}

// Revision returns the newest revision. An empty store has revision 1.
func (v *View) Revision() int64 { return v.revision }

// CompactRevision returns the revision of the last compaction, which is the oldest readable one, or -1
// before the first compaction.
func (v *View) CompactRevision() int64 { return v.compacted }

// Keys returns the number of existing keys.
func (v *View) Keys() int { return v.live.len }

// Bytes returns the approximate memory use of all versions.
func (v *View) Bytes() int64 { return v.bytes }

// Superseded returns the part of Bytes that belongs to versions that have been replaced or deleted.
// Compaction frees it.
func (v *View) Superseded() int64 { return v.superseded }

// CheckRevision returns ErrCompacted or ErrFuture if the state at rev cannot be read. Zero and negative
// values mean the latest.
func (v *View) CheckRevision(rev int64) error {
	switch {
	case rev > v.revision:
		return ErrFuture
	case rev > 0 && rev < v.compacted:
		return ErrCompacted
	}
	return nil
}

// get returns a key's version at rev, or the latest if rev is not positive. It returns no tombstones.
func (v *View) get(key string, rev int64) version {
	if rev <= 0 && v.hot != nil {
		return v.hot.find(&v.live, key)
	}
	live := v.live.find(key)
	if rev <= 0 || live.exists() && live.modRevision() <= rev {
		return live
	}
	return v.before(live, v.tombstones.since(key, rev+1), rev)
}

// before returns a key's version at rev. live is the key's live version, if there is one, and tombstone the key's first
// tombstone after rev, if there is one.
func (v *View) before(live, tombstone version, rev int64) version {
	after := tombstone
	switch {
	case live.exists() && live.modRevision() <= rev:
		return live
	case tombstone.exists():
	case live.exists():
		after = live
	default:
		return version{}
	}
	return v.history.before(v.history.trace(after, rev+1))
}

// next returns a key's first version, which may be a tombstone, at or after rev.
func (v *View) next(key string, rev int64) (next version) {
	if next = v.tombstones.since(key, rev); !next.exists() {
		next = v.live.find(key)
	}
	if !next.exists() || next.modRevision() < rev {
		return version{}
	}
	next = v.history.trace(next, rev)
	if old := v.history.before(next); old.exists() && old.modRevision() >= rev {
		return old // it is older than the history
	}
	return next
}

// Get returns a key as it was at rev, or as it is if rev is not positive. It returns false if the key did not exist.
// The caller has checked rev.
func (v *View) Get(key string, rev int64) (KeyValue, bool) { return v.get(key, rev).found() }

// Ascend visits the keys of a range in order, as they were at rev, or as they are if rev is not positive,
// until fn returns false. The caller has checked rev.
func (v *View) Ascend(key, end string, rev int64, fn func(KeyValue) bool) {
	switch {
	case end == "":
		if kv, ok := v.Get(key, rev); ok {
			fn(kv)
		}
	case rev <= 0:
		v.live.ascend(key, end, func(live version) bool { return fn(live.keyValue()) })
	default:
		v.merge(key, end, rev+1, func(live, tombstone version) bool {
			at := v.before(live, tombstone, rev)
			return !at.exists() || fn(at.keyValue())
		})
	}
}

// merge visits the keys of a range, each with its live version and its first tombstone at or after rev. Either may not
// exist.
func (v *View) merge(key, end string, rev int64, fn func(live, tombstone version) bool) {
	var lives, tombstones cursor
	v.live.seek(&lives, key, lowest)
	v.tombstones.seek(&tombstones, key, lowest)
	within := func(c *cursor) version {
		if v := c.version(); v.exists() && Contains(key, end, v.key()) {
			return v
		}
		return version{}
	}
	for {
		live, tombstone := within(&lives), within(&tombstones)
		switch {
		case !live.exists() && !tombstone.exists():
			return
		case !tombstone.exists() || live.exists() && live.key() < tombstone.key():
			tombstone = version{}
			lives.next()
		case live.exists() && live.key() == tombstone.key():
			lives.next()
			tombstone = v.tombstones.skip(&tombstones, rev)
		default:
			live = version{}
			tombstone = v.tombstones.skip(&tombstones, rev)
		}
		if !fn(live, tombstone) {
			return
		}
	}
}

// Count returns the number of keys that a range has now. It does not walk the range.
func (v *View) Count(key, end string) int {
	switch {
	case end == "":
		if v.live.find(key).exists() {
			return 1
		}
		return 0
	case end == fromKey:
		return v.live.len - v.live.rank(key)
	case end <= key:
		return 0
	}
	return v.live.rank(end) - v.live.rank(key)
}

// Changes visits the kept revisions between from and to, both included, with the changes of each in the
// order in which they were made, until fn returns false. fn must not keep the slice.
func (v *View) Changes(from, to int64, fn func(rev int64, changes []KeyValue) bool) {
	var changes []KeyValue
	for rev := max(from, v.history.first); rev <= min(to, v.history.last()); rev++ {
		changes = changes[:0]
		for _, change := range v.history.changes(rev) {
			changes = append(changes, change.keyValue())
		}
		if !fn(rev, changes) {
			return
		}
	}
}

// Next returns a key's first change after a revision, which may be a tombstone. It returns false if none is kept.
func (v *View) Next(key string, after int64) (KeyValue, bool) {
	if after == math.MaxInt64 {
		return KeyValue{}, false
	}
	return v.next(key, after+1).found()
}

// Previous returns the key as it was at the revision before a change. It returns false if the key did not exist or
// that revision is compacted.
func (v *View) Previous(change KeyValue) (KeyValue, bool) {
	rev := change.ModRevision - 1
	if rev < max(v.compacted, 1) {
		return KeyValue{}, false
	}
	return v.Get(change.Key, rev)
}

// CompactTarget returns the lowest revision to compact to so that at most the given numbers of revisions
// of history and of superseded bytes are left. A negative number means no bound. It returns 0 if no
// compaction is needed.
func (v *View) CompactTarget(revisions, bytes int64) int64 {
	target := int64(0)
	if revisions >= 0 && v.history.count > revisions+1 {
		target = v.revision - revisions
	}
	if bytes >= 0 && v.superseded > bytes {
		left := v.superseded
		rev := v.history.first
		for ; rev <= v.history.last(); rev++ {
			reached, passed := v.frees(rev)
			if left -= reached; left <= bytes {
				break
			}
			left -= passed
		}
		target = max(target, min(rev, v.revision))
	}
	if target <= v.compacted {
		return 0
	}
	return target
}

// Base visits the versions that are older than the kept history, in the order of their keys. Base and
// Changes together give the whole store.
func (v *View) Base(fn func(KeyValue) bool) {
	v.merge(fromKey, fromKey, lowest, func(live, tombstone version) bool {
		at := tombstone
		if !at.exists() {
			at = live
		}
		if at.modRevision() >= v.history.first {
			if at.ordinal() == 1 {
				return true // the history has the whole life of the key
			}
			at = v.history.before(v.history.trace(at, v.history.first))
		}
		return !at.exists() || fn(at.keyValue())
	})
}
