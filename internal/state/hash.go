// SPDX-License-Identifier: Apache-2.0

package state

import (
	"hash/crc32"

	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A digest hashes every change together with all those before it. It depends on what was changed
// and in which order, but not on how proposals were gathered in entries: nodes at the same index
// have the same.
type digest struct {
	hash    uint64
	scratch []byte // what is hashed is copied here, for a string handed to crc32 would be copied to new memory
}

// The kinds of change, so that no two of them hash alike.
const (
	changed uint64 = iota + 1
	granted
	ended
	compacted
	configured
	enrolled
	founded
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// note adds a change.
func (d *digest) note(kind uint64, words ...uint64) {
	d.hash = mvcc.Mix(d.hash ^ kind)
	for _, w := range words {
		d.hash = mvcc.Mix(d.hash ^ w)
	}
}

// noteVersion adds a version of a key, or a tombstone.
func (d *digest) noteVersion(kv *mvcc.KeyValue) {
	d.note(changed, d.sum(kv.Key)<<32|d.sum(kv.Value),
		uint64(kv.CreateRevision), uint64(kv.ModRevision), uint64(kv.Version), uint64(kv.Lease))
}

func (d *digest) sum(s string) uint64 {
	d.scratch = append(d.scratch[:0], s...)
	return uint64(crc32.Checksum(d.scratch, castagnoli))
}
