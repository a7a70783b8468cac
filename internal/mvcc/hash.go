// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"encoding/binary"
	"hash/crc32"
)

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
	key := crc32.Update(crc32.Checksum(fields[:], castagnoli), castagnoli, bytesOf(kv.Key))
	value := crc32.Update(^key, castagnoli, bytesOf(kv.Value))
	return Mix(uint64(key)<<32 | uint64(value))
}

// Checksum returns the CRC-32C of a string without copying it.
func Checksum(s string) uint32 { return crc32.Checksum(bytesOf(s), castagnoli) }

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
