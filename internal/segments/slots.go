// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"encoding/binary"
	"hash/crc32"
)

// The vote file has two slots for the vote and two for the extent. The slots of a record are written in turn, so that
// one of them is always whole.
const (
	slotSize  = 4 << 10 // a block of the disk: a torn write of one slot leaves the other intact
	slotCount = 2
	// slotHeader is the size of a record's header: the CRC-32C of the rest, and its length.
	slotHeader = 8
	// extentsAt is where the slots of the extent begin.
	extentsAt    = slotCount * slotSize
	voteFileSize = 2 * slotCount * slotSize
)

// openSlot returns the record in a slot, and false if there is no whole one.
func openSlot(slot []byte) (record []byte, ok bool) {
	size := int64(binary.LittleEndian.Uint32(slot[4:]))
	if size > int64(len(slot)-slotHeader) || crc32.Checksum(slot[4:slotHeader+size], castagnoli) != binary.LittleEndian.Uint32(slot) {
		return nil, false
	}
	return slot[slotHeader : slotHeader+size], true
}

// sealSlot fills in the header of a record.
func sealSlot(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-slotHeader))
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}
