// SPDX-License-Identifier: Apache-2.0

package mvcc

import "sync/atomic"

// A hot table remembers the versions that look-ups in a view have found, so that a program that reads some keys again and
// again does not search for them. It belongs to one view, which never changes, so nothing in it is ever out of date. A view
// gets slots once it has been read often: amid writes, most views are replaced before that.
type hot struct {
	searches atomic.Int32                                   // before there are slots
	slots    atomic.Pointer[[hotSlots]atomic.Pointer[byte]] // blocks of versions, by the hashes of their keys
}

const (
	// hotSlots is the number of slots: 32 KiB.
	hotSlots = 4096
	// hotAfter is the number of look-ups after which a view gets slots. So they cost a look-up 32 bytes at most.
	hotAfter = 1024
)

// find returns the version of a key of a tree, which is always the same one.
func (h *hot) find(t *tree, key string) version {
	slots := h.slots.Load()
	if slots == nil {
		if h.searches.Add(1) == hotAfter {
			h.slots.Store(new([hotSlots]atomic.Pointer[byte]))
		}
		return t.find(key)
	}
	slot := &slots[Checksum(key)%hotSlots]
	if known := (version{slot.Load()}); known.exists() && known.key() == key {
		return known
	}
	found := t.find(key)
	if found.exists() {
		slot.Store(found.block)
	}
	return found
}
