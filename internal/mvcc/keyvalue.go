// SPDX-License-Identifier: Apache-2.0

// Package mvcc is the revisioned store: every key with all its versions since the last compaction,
// and every change in the order of revisions. One writer changes it; readers have views, which
// never change. It knows no clock, no disk and no network: what it holds is a function of the calls
// made to it.
//
// A range is [key, end): with an empty end it is the single key, with end "\x00" every key from key
// on. An end that does not exceed key makes it empty.
package mvcc

import "errors"

// A KeyValue is one version of a key. It does not change once it is stored.
type KeyValue struct {
	Key, Value     string
	CreateRevision int64 // of the first version since the key was last deleted
	ModRevision    int64 // of this version
	Version        int64 // counts from 1 at CreateRevision; 0 is a tombstone
	Lease          int64 // 0 is none
}

// Deleted reports whether this version is a tombstone: it has a Key and a ModRevision alone.
func (kv *KeyValue) Deleted() bool { return kv.Version == 0 }

// overhead is about what a version takes beside its key and value.
const overhead = 128

func (kv *KeyValue) bytes() int64 { return int64(len(kv.Key)+len(kv.Value)) + overhead }

// What a revision can be refused with.
var (
	// ErrCompacted: the revision is no longer kept.
	ErrCompacted = errors.New("mvcc: revision has been compacted")
	// ErrFuture: the revision does not exist yet.
	ErrFuture = errors.New("mvcc: revision is in the future")
)

// fromKey is the end of a range that has none.
const fromKey = "\x00"

// Contains reports whether the range [key, end) has k.
func Contains(key, end, k string) bool {
	switch end {
	case "":
		return k == key
	case fromKey:
		return k >= key
	}
	return k >= key && k < end
}
