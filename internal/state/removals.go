// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A Removal counts how often the member with an ID was removed.
type Removal struct{ ID, Count uint64 }

// Removals are in the order of their IDs. They are immutable. They are not in the hash, because nodes of versions
// without them must get the same one.
type Removals []Removal

// Of returns how often the member with an ID was removed. It stays the same while the member is one.
func (rs Removals) Of(id uint64) uint64 {
	i, ok := rs.find(id)
	if !ok {
		return 0
	}
	return rs[i].Count
}

func (rs Removals) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(rs, id, func(r Removal, id uint64) int { return cmp.Compare(r.ID, id) })
}

// after returns the removals when members become others.
func (rs Removals) after(members, next Members) Removals {
	changed := slices.Clone(rs)
	for _, m := range members {
		if next.Has(m.ID) {
			continue
		}
		i, ok := changed.find(m.ID)
		if !ok {
			changed = slices.Insert(changed, i, Removal{ID: m.ID})
		}
		changed[i].Count++
	}
	return changed
}

func (r Removal) append(b []byte) []byte { return wire.Uint(wire.Uint(b, 1, r.ID), 2, r.Count) }

func (in *restore) addRemoval(b []byte) error {
	var removal Removal
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			removal.ID = r.Uint()
		case 2:
			removal.Count = r.Uint()
		}
	}
	removals := &in.state.removals
	if n := len(*removals); n > 0 && (*removals)[n-1].ID >= removal.ID {
		return fmt.Errorf("%w: removal of member %x out of order", errSnapshot, removal.ID)
	}
	*removals = append(*removals, removal)
	return r.Err()
}
