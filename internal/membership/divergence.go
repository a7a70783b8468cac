// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"maps"
	"slices"
)

// Divergent returns the members with another hash than the majority of those that answered, in the order of their IDs.
// If the hashes differ and none has a majority, it returns 0, which is no member: any of them may be wrong. It returns
// nothing if all hashes are equal.
func Divergent(hashes map[uint64]uint64) []uint64 {
	members := map[uint64][]uint64{} // by their hash
	for id, hash := range hashes {
		members[hash] = append(members[hash], id)
	}
	if len(members) < 2 {
		return nil
	}
	for hash, same := range members {
		if 2*len(same) > len(hashes) {
			delete(members, hash)
			return slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(members))...)))
		}
	}
	return []uint64{0}
}
