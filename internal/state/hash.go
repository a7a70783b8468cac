// SPDX-License-Identifier: Apache-2.0

package state

import (
	"hash/crc32"

	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A digest hashes every change together with all earlier ones. It depends on the changes and their order,
// but not on how proposals were grouped into entries: nodes at the same index have the same digest.
type digest struct {
	hash    uint64
	scratch []byte // copy of the string to hash: passing the string to crc32 would allocate
}

// The kinds of change. They make changes of different kinds hash differently.
const (
	changed uint64 = iota + 1
	granted
	ended
	compacted
	configured
	enrolled
	founded
	authorized
	alarmed
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
