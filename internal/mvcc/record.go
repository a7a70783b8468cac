// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"cmp"
	"slices"
	"sync"

	"github.com/tidwall/btree"
)

// A record is a key with its versions. It is immutable: a new version makes a new record. The slices of
// old versions share memory, since only the newest record appends to it.
type record struct {
	cur *KeyValue
	old []*KeyValue // older versions, oldest first
}

// at returns the newest version at or before rev, or nil.
func (r *record) at(rev int64) *KeyValue {
	if r.cur.ModRevision <= rev {
		return r.cur
	}
	// Find the first version that is too new. Of several versions of one revision the last one counts.
	i, _ := slices.BinarySearchFunc(r.old, rev+1, func(kv *KeyValue, rev int64) int {
		return cmp.Compare(kv.ModRevision, rev)
	})
	if i == 0 {
		return nil
	}
	return r.old[i-1]
}

// after returns the first version after rev, or nil.
func (r *record) after(rev int64) *KeyValue {
	i, _ := slices.BinarySearchFunc(r.old, rev+1, func(kv *KeyValue, rev int64) int {
		return cmp.Compare(kv.ModRevision, rev)
	})
	if i < len(r.old) {
		return r.old[i]
	}
	if r.cur.ModRevision > rev {
		return r.cur
	}
	return nil
}

// with returns the record with a newer version.
func (r *record) with(kv *KeyValue) *record {
	return &record{cur: kv, old: append(r.old, r.cur)}
}

// compacted returns the record without the versions that are not visible at or after rev, or nil if none
// is left. It keeps all changes made at rev, including tombstones, because a watch may begin there.
// Otherwise it keeps the version that was current at rev, unless that is a tombstone.
func (r *record) compacted(rev int64) *record {
	version := func(i int) *KeyValue {
		if i < len(r.old) {
			return r.old[i]
		}
		return r.cur
	}
	first, _ := slices.BinarySearchFunc(r.old, rev, func(kv *KeyValue, rev int64) int {
		return cmp.Compare(kv.ModRevision, rev)
	})
	if first == len(r.old) && r.cur.ModRevision < rev {
		first++
	}
	if changed := first <= len(r.old) && version(first).ModRevision == rev; !changed && first > 0 && !version(first-1).Deleted() {
		first--
	}
	switch {
	case first > len(r.old):
		return nil
	case first == 0:
		return r
	}
	// The old slice would keep the removed versions in memory.
	return &record{cur: r.cur, old: slices.Clone(r.old[first:])}
}

// records is a tree of records, ordered by key.
type records = btree.BTreeG[*record]

func newRecords() *records {
	return btree.NewBTreeGOptions(func(a, b *record) bool { return a.cur.Key < b.cur.Key }, btree.Options{NoLocks: true})
}

func pivot(key string) *record { return &record{cur: &KeyValue{Key: key}} }

// pivots are records that look-ups have used. Every read and write looks keys up, so a look-up must not allocate.
var pivots = sync.Pool{New: func() any { return pivot("") }}

// find returns the record of a key in a tree, or nil.
func find(t *records, key string) *record {
	if t.Len() == 0 {
		return nil
	}
	p := pivots.Get().(*record)
	p.cur.Key = key
	r, _ := t.Get(p)
	p.cur.Key = "" // so that the pool keeps no key
	pivots.Put(p)
	return r
}

// rank returns the number of keys in a tree that are less than key.
func rank(t *records, key string) int {
	low, high := 0, t.Len()
	for low < high {
		mid := int(uint(low+high) >> 1)
		if r, _ := t.GetAt(mid); r.cur.Key < key {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// ascend visits the records of a range.
func ascend(t *records, key, end string, fn func(*record) bool) {
	if end == "" {
		if r := find(t, key); r != nil {
			fn(r)
		}
		return
	}
	t.Ascend(pivot(key), func(r *record) bool { return Contains(key, end, r.cur.Key) && fn(r) })
}
