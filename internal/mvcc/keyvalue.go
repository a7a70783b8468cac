// SPDX-License-Identifier: Apache-2.0

// Package mvcc is the revisioned store: every key with all its versions since the last compaction, and
// every change in the order of revisions. One writer changes it; readers use views, which never change.
// The package uses no clock, disk or network: the contents of a store are a function of the calls made to
// it.
//
// A range is [key, end). With an empty end it is the single key, with end "\x00" every key from key on.
// If end does not exceed key, the range is empty.
package mvcc

import "errors"

// A KeyValue is one version of a key. Stored versions are immutable.
type KeyValue struct {
	Key, Value     string
	CreateRevision int64 // of the first version since the key was last deleted
	ModRevision    int64 // of this version
	Version        int64 // counts from 1 at CreateRevision; 0 for a tombstone
	Lease          int64 // 0 for none
}

// Deleted reports whether this version is a tombstone. A tombstone has only a Key and a ModRevision.
func (kv *KeyValue) Deleted() bool { return kv.Version == 0 }

// overhead is the approximate size of a version in addition to its key and value.
const overhead = 128

func (kv *KeyValue) bytes() int64 { return int64(len(kv.Key)+len(kv.Value)) + overhead }

// Errors for revisions that cannot be read.
var (
	// ErrCompacted: the revision is no longer kept.
	ErrCompacted = errors.New("mvcc: revision has been compacted")
	// ErrFuture: the revision does not exist yet.
	ErrFuture = errors.New("mvcc: revision is in the future")
)

// fromKey is the end of an unbounded range.
const fromKey = "\x00"

// Contains reports whether k is in the range [key, end).
func Contains(key, end, k string) bool {
	switch end {
	case "":
		return k == key
	case fromKey:
		return k >= key
	}
	return k >= key && k < end
}
