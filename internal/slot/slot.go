// SPDX-License-Identifier: Apache-2.0

// Package slot frames records that are written in place. A file has two slots for a record, which are written in
// turn: a write that a crash tears leaves the other slot intact.
package slot

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

const (
	// Size is the size of a slot: a block of the disk, so that a torn write damages one slot only.
	Size = 4 << 10
	// Count is the number of slots of a record.
	Count = 2
	// Header is the size of a record's header: the CRC-32C of the rest, and its length.
	Header = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open returns the record in a slot, and false if there is no whole one.
func Open(slot []byte) (record []byte, ok bool) {
	if len(slot) < Header {
		return nil, false
	}
	size := int64(binary.LittleEndian.Uint32(slot[4:]))
	if size > int64(len(slot)-Header) || crc32.Checksum(slot[4:Header+size], castagnoli) != binary.LittleEndian.Uint32(slot) {
		return nil, false
	}
	return slot[Header : Header+size], true
}

// Newest returns the record with the highest serial number of the slots that begin at an offset of a file, and that
// number. It ignores slots that decode rejects: a crash may have torn both. The serial number is 0 if there is no record.
func Newest[T any](file io.ReaderAt, at int64, decode func(slot []byte) (serial uint64, record T, ok bool)) (newest T, serial uint64, err error) {
	b := make([]byte, Count*Size)
	if _, err := file.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return newest, 0, err
	}
	for i := range Count {
		if n, found, ok := decode(b[i*Size : (i+1)*Size]); ok && n > serial {
			serial, newest = n, found
		}
	}
	return newest, serial, nil
}

// Seal fills in the header of a record, for which the first [Header] bytes of b are reserved.
func Seal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-Header))
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}
