// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"encoding/binary"
	"hash/crc32"
)

// findBatch returns where the first whole batch of a segment stands at or after an offset. Its time
// is in proportion to the segment, whatever that holds: values may be full of what looks like
// batches, so the CRC of each that could be one is made of those of the segment's beginnings, and
// not of its bytes.
func findBatch(segment []byte, salt uint64, from int64) (at int64, ok bool) {
	if from = align(from); from >= int64(len(segment)) {
		return 0, false
	}
	s := newScan(segment[from:], from)
	for at := from; at+batchHeader <= int64(len(segment)); at += batchAlign {
		if binary.LittleEndian.Uint32(segment[at:]) != batchMagic {
			continue
		}
		begin := at + batchHeader
		end := begin + int64(binary.LittleEndian.Uint32(segment[at+4:]))
		if end > int64(len(segment)) {
			continue
		}
		if s.sum(place{salt, at}, begin, end) == binary.LittleEndian.Uint32(segment[at+8:]) {
			return at, true
		}
	}
	return 0, false
}

// A scan is what is known of the CRCs of a segment from an offset on.
type scan struct {
	from   int64
	b      []byte
	sums   []uint32   // of b up to every scanStep bytes
	powers [48]uint32 // what a CRC is multiplied by for 1, 2, 4, … more bytes
}

const scanStep = 64

func newScan(b []byte, from int64) *scan {
	s := &scan{from: from, b: b, sums: make([]uint32, 1, len(b)/scanStep+1)}
	for at := 0; at+scanStep <= len(b); at += scanStep {
		s.sums = append(s.sums, crc32.Update(s.sums[at/scanStep], castagnoli, b[at:at+scanStep]))
	}
	s.powers[0] = 1 << 23 // x^8
	for i := 1; i < len(s.powers); i++ {
		s.powers[i] = multiply(s.powers[i-1], s.powers[i-1])
	}
	return s
}

// sum is place.sum of a body, by where it begins and ends: crc(a+b) is shift(crc(a), len(b)) ^
// crc(b).
func (s *scan) sum(p place, begin, end int64) uint32 {
	return s.shift(p.sum(nil)^s.upTo(begin-s.from), end-begin) ^ s.upTo(end-s.from)
}

// upTo returns the CRC of the first n bytes.
func (s *scan) upTo(n int64) uint32 {
	whole := n / scanStep
	return crc32.Update(s.sums[whole], castagnoli, s.b[whole*scanStep:n])
}

// shift returns what the CRC of a text contributes to that of the text with n more bytes. A CRC is
// a polynomial over GF(2), bit 31 its lowest coefficient, modulo Castagnoli's: it is multiplied by
// x^8n.
func (s *scan) shift(crc uint32, n int64) uint32 {
	for i := 0; n > 0; i, n = i+1, n>>1 {
		if n&1 == 1 {
			crc = multiply(s.powers[i], crc)
		}
	}
	return crc
}

func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}
