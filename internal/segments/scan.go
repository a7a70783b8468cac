// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"encoding/binary"
	"hash/crc32"
)

// findBatch returns the offset of the first whole batch of a segment at or after an offset. Its time is
// proportional to the size of the segment, whatever the contents: values may be full of bytes that look
// like batches. So the CRC of each candidate is computed from the CRCs of prefixes of the segment, and
// not from its bytes.
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

// A scan holds the CRCs of prefixes of a segment from an offset on.
type scan struct {
	from   int64
	b      []byte
	sums   []uint32   // of the prefixes of b, one every scanStep bytes
	powers [48]uint32 // factors that extend a CRC by 1, 2, 4, … bytes
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

// sum is place.sum of the body between begin and end: crc(a+b) is shift(crc(a), len(b)) ^ crc(b).
func (s *scan) sum(p place, begin, end int64) uint32 {
	return s.shift(p.sum(nil)^s.upTo(begin-s.from), end-begin) ^ s.upTo(end-s.from)
}

// upTo returns the CRC of the first n bytes.
func (s *scan) upTo(n int64) uint32 {
	whole := n / scanStep
	return crc32.Update(s.sums[whole], castagnoli, s.b[whole*scanStep:n])
}

// shift returns the contribution of a text's CRC to the CRC of the text extended by n bytes. A CRC is a
// polynomial over GF(2), with bit 31 as its lowest coefficient, modulo Castagnoli's. shift multiplies it
// by x^8n.
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
