// SPDX-License-Identifier: Apache-2.0

package state

import "github.com/coterie-kv/coterie/internal/mvcc"

// A digest hashes every change together with all earlier ones. It depends on the changes and their order,
// but not on how proposals were grouped into entries: nodes at the same index have the same digest.
type digest struct{ hash uint64 }

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

// note adds a change.
func (d *digest) note(kind uint64, words ...uint64) {
	d.hash = mvcc.Mix(d.hash ^ kind)
	for _, w := range words {
		d.hash = mvcc.Mix(d.hash ^ w)
	}
}

// noteVersion adds a version of a key, or a tombstone.
func (d *digest) noteVersion(kv *mvcc.KeyValue) {
	d.note(changed, sum(kv.Key)<<32|sum(kv.Value),
		uint64(kv.CreateRevision), uint64(kv.ModRevision), uint64(kv.Version), uint64(kv.Lease))
}

func sum(s string) uint64 { return uint64(mvcc.Checksum(s)) }
