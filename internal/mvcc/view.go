// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A View is an immutable view of the store at one revision. Any number of goroutines may read it.
type View struct {
	revision   int64
	compacted  int64
	live       *records // of keys that exist
	dead       *records // of deleted keys: their newest version is a tombstone
	history    history
	bytes      int64 // of all versions
	superseded int64 // of all versions except the newest ones of existing keys
}

// Revision returns the newest revision. An empty store has revision 1.
func (v *View) Revision() int64 { return v.revision }

// CompactRevision returns the revision of the last compaction, which is the oldest readable one, or -1
// before the first compaction.
func (v *View) CompactRevision() int64 { return v.compacted }

// Keys returns the number of existing keys.
func (v *View) Keys() int { return v.live.Len() }

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

// record returns a key's record, or nil.
func (v *View) record(key string) *record {
	if r := find(v.live, key); r != nil {
		return r
	}
	return find(v.dead, key)
}

// Get returns a key as it was at rev, or as it is if rev is not positive. It returns false if the key did not exist.
// The caller has checked rev.
func (v *View) Get(key string, rev int64) (KeyValue, bool) { return value(v.get(key, rev)) }

func value(kv *KeyValue) (KeyValue, bool) {
	if kv == nil {
		return KeyValue{}, false
	}
	return *kv, true
}

func (v *View) get(key string, rev int64) *KeyValue {
	if rev <= 0 {
		if r := find(v.live, key); r != nil {
			return r.cur
		}
		return nil
	}
	if r := v.record(key); r != nil {
		if kv := r.at(rev); kv != nil && !kv.Deleted() {
			return kv
		}
	}
	return nil
}

// Ascend visits the keys of a range in order, as they were at rev, or as they are if rev is not positive,
// until fn returns false. The caller has checked rev.
func (v *View) Ascend(key, end string, rev int64, fn func(KeyValue) bool) {
	if rev <= 0 {
		ascend(v.live, key, end, func(r *record) bool { return fn(*r.cur) })
		return
	}
	v.merge(key, end, func(r *record) bool {
		kv := r.at(rev)
		return kv == nil || kv.Deleted() || fn(*kv)
	})
}

// merge visits the records of both trees in the order of their keys. No key is in both.
func (v *View) merge(key, end string, fn func(*record) bool) {
	if end == "" {
		if r := v.record(key); r != nil {
			fn(r)
		}
		return
	}
	dead := v.dead.Iter()
	defer dead.Release()
	left := dead.Seek(pivot(key))
	more := true
	upTo := func(limit string, bounded bool) bool {
		for more && left {
			r := dead.Item()
			if !Contains(key, end, r.cur.Key) || bounded && r.cur.Key > limit {
				break
			}
			more = fn(r)
			left = dead.Next()
		}
		return more
	}
	ascend(v.live, key, end, func(r *record) bool {
		if upTo(r.cur.Key, true) {
			more = fn(r)
		}
		return more
	})
	upTo("", false)
}

// Count returns the number of keys that a range has now. It does not walk the range.
func (v *View) Count(key, end string) int {
	switch {
	case end == "":
		if find(v.live, key) != nil {
			return 1
		}
		return 0
	case end == fromKey:
		return v.live.Len() - rank(v.live, key)
	case end <= key:
		return 0
	}
	return rank(v.live, end) - rank(v.live, key)
}

// Changes visits the kept revisions between from and to, both included, with the changes of each in the
// order in which they were made, until fn returns false. fn must not keep the slice.
func (v *View) Changes(from, to int64, fn func(rev int64, changes []KeyValue) bool) {
	var changes []KeyValue
	for rev := max(from, v.history.first); rev <= min(to, v.history.last()); rev++ {
		changes = changes[:0]
		for _, kv := range v.history.at(rev).changes() {
			changes = append(changes, *kv)
		}
		if !fn(rev, changes) {
			return
		}
	}
}

// Next returns a key's first change after a revision, which may be a tombstone. It returns false if none is kept.
func (v *View) Next(key string, after int64) (KeyValue, bool) {
	if r := v.record(key); r != nil {
		return value(r.after(after))
	}
	return KeyValue{}, false
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
			e := v.history.at(rev)
			if rev > v.compacted { // else it is freed already
				left -= e.superseded
			}
			if left <= bytes {
				break
			}
			left -= e.own
		}
		target = max(target, min(rev, v.revision))
	}
	if target <= v.compacted {
		return 0
	}
	return target
}

// castagnoli is the CRC that processors compute in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum returns a hash of all fields of a version.
func (kv *KeyValue) Sum() uint64 {
	var fields [40]byte
	binary.LittleEndian.PutUint64(fields[0:], uint64(kv.CreateRevision))
	binary.LittleEndian.PutUint64(fields[8:], uint64(kv.ModRevision))
	binary.LittleEndian.PutUint64(fields[16:], uint64(kv.Version))
	binary.LittleEndian.PutUint64(fields[24:], uint64(kv.Lease))
	binary.LittleEndian.PutUint64(fields[32:], uint64(len(kv.Key)))
	key := crc32.Update(crc32.Checksum(fields[:], castagnoli), castagnoli, []byte(kv.Key))
	value := crc32.Update(^key, castagnoli, []byte(kv.Value))
	return Mix(uint64(key)<<32 | uint64(value))
}

// Mix spreads the bits of a hash (the finalizer of SplitMix64).
func Mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// Hash returns a hash of the keys that existed at rev, or exist if rev is not positive, with all their
// fields. It is the same on every replica, whatever a replica has compacted. The caller has checked rev.
func (v *View) Hash(rev int64) uint64 {
	h := uint64(0)
	v.Ascend(fromKey, fromKey, rev, func(kv KeyValue) bool {
		h = Mix(h ^ kv.Sum())
		return true
	})
	return h
}

// Base visits the versions that are older than the kept history, in the order of their keys. Base and
// Changes together give the whole store.
func (v *View) Base(fn func(KeyValue) bool) {
	v.merge("", fromKey, func(r *record) bool {
		kv := r.cur
		if len(r.old) > 0 {
			kv = r.old[0]
		}
		return kv.ModRevision >= v.history.first || fn(*kv)
	})
}

// Check verifies that trees, records, history and counters agree.
func (v *View) Check() error {
	var bytes, superseded, versions int64
	var err error
	fail := func(format string, args ...any) bool {
		err = fmt.Errorf("mvcc: "+format, args...)
		return false
	}
	last := ""
	for _, tree := range []*records{v.live, v.dead} {
		last = ""
		tree.Scan(func(r *record) bool {
			key := r.cur.Key
			if key <= last {
				return fail("key %q after %q", key, last)
			}
			last = key
			if r.cur.Deleted() != (tree == v.dead) {
				return fail("key %q is in the wrong tree", key)
			}
			var prev *KeyValue
			for _, kv := range append(r.old[:len(r.old):len(r.old)], r.cur) {
				if kv.Key != key || prev != nil && kv.ModRevision < prev.ModRevision || kv.ModRevision > v.revision {
					return fail("key %q has version %+v after %+v", key, kv, prev)
				}
				if !kv.Deleted() && prev != nil && !prev.Deleted() &&
					(kv.Version != prev.Version+1 || kv.CreateRevision != prev.CreateRevision) {
					return fail("key %q: version %d follows %d", key, kv.Version, prev.Version)
				}
				if kv.ModRevision >= v.history.first {
					versions++
				} else if prev != nil {
					return fail("key %q: revision %d should be compacted", key, prev.ModRevision)
				}
				bytes += kv.bytes()
				if kv != r.cur || kv.Deleted() {
					superseded += kv.bytes()
				}
				prev = kv
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	if bytes != v.bytes || superseded != v.superseded {
		return fmt.Errorf("mvcc: counters say %d bytes, %d superseded; there are %d, %d", v.bytes, v.superseded, bytes, superseded)
	}
	if v.history.last() != v.revision {
		return fmt.Errorf("mvcc: history ends at %d, the revision is %d", v.history.last(), v.revision)
	}
	v.Changes(0, v.revision, func(rev int64, changes []KeyValue) bool {
		if rev > 1 && rev != v.compacted && len(changes) == 0 {
			return fail("revision %d changed nothing", rev)
		}
		for _, kv := range changes {
			versions--
			if kv.ModRevision != rev {
				return fail("history of revision %d has revision %d", rev, kv.ModRevision)
			}
			if r := v.record(kv.Key); r == nil || r.at(rev) == nil {
				return fail("key %q has no version at %d", kv.Key, rev)
			}
		}
		return true
	})
	if err == nil && versions != 0 {
		err = fmt.Errorf("mvcc: history and records differ by %d versions", versions)
	}
	return err
}
