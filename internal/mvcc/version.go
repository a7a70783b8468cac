// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unsafe"
)

// A version is a stored version of a key: a reference to one immutable block of memory without pointers, which holds
// the key, the value and all numbers. The garbage collector marks the block but does not scan it, and a tree or a
// history refers to it with a single word. A million keys are a million objects, not four million.
//
// The block is, in this order, with all numbers as in [binary.PutUvarint]:
//
//   - the length of the key, and the key, so that a comparison of keys touches the first bytes alone
//   - ModRevision
//   - twice Version, and one more if links follow; the first version of a key mostly has none
//   - the links: the index, and the places of the predecessor and of the far one, see appendPlace
//   - ModRevision minus CreateRevision, Lease, the length of the value, and the value; a tombstone has none of them
//
// The zero version refers to no block. This file is the only one of the package that uses package unsafe.
type version struct{ block *byte }

// newVersion returns a version with copies of the strings of a KeyValue. A tombstone keeps only its Key, its ModRevision
// and its links.
func newVersion(kv *KeyValue, l links) version {
	// The numbers between key and value are encoded first, because their length is a part of the block's size.
	var memory [10 * binary.MaxVarintLen64]byte
	numbers := binary.AppendUvarint(memory[:0], uint64(kv.ModRevision))
	if l == (links{}) {
		numbers = binary.AppendUvarint(numbers, uint64(kv.Version)<<1)
	} else {
		numbers = binary.AppendUvarint(numbers, uint64(kv.Version)<<1|1)
		numbers = binary.AppendUvarint(numbers, uint64(l.index))
		numbers = appendPlace(numbers, l.pred, kv.ModRevision)
		numbers = appendPlace(numbers, l.far, kv.ModRevision)
	}
	value := ""
	if !kv.Deleted() {
		value = kv.Value
		numbers = binary.AppendUvarint(numbers, uint64(kv.ModRevision-kv.CreateRevision))
		numbers = binary.AppendUvarint(numbers, uint64(kv.Lease))
		numbers = binary.AppendUvarint(numbers, uint64(len(value)))
	}
	b := make([]byte, 0, uvarintLen(uint64(len(kv.Key)))+len(kv.Key)+len(numbers)+len(value))
	b = binary.AppendUvarint(b, uint64(len(kv.Key)))
	b = append(b, kv.Key...)
	b = append(b, numbers...)
	b = append(b, value...)
	return version{unsafe.SliceData(b)}
}

// appendPlace encodes a place as the number of revisions back to it, plus 1, and its index. Zero is no place.
func appendPlace(b []byte, p place, from int64) []byte {
	if p.rev == 0 {
		return append(b, 0)
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(from-p.rev)+1), uint64(p.index))
}

func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

// A position is a place in a block. It is not a pointer, because a pointer to the end of a block would refer to
// another object.
type position uintptr

// byte returns the byte at a position.
func (v version) byte(at position) byte { return *(*byte)(unsafe.Add(unsafe.Pointer(v.block), at)) }

// uvarint returns the number at a position, and the position after it.
func (v version) uvarint(at position) (uint64, position) {
	if b := v.byte(at); b < 0x80 { // most numbers are small, and this part is inlined
		return uint64(b), at + 1
	}
	return v.longUvarint(at)
}

func (v version) longUvarint(at position) (x uint64, next position) {
	for shift := 0; ; shift += 7 {
		b := v.byte(at)
		at++
		x |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return x, at
		}
	}
}

// text returns n bytes from a position on as a string, which shares the memory of the block.
func (v version) text(at position, n uint64) string {
	if n == 0 {
		return ""
	}
	return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(v.block), at)), int(n))
}

// exists reports whether v refers to a version.
func (v version) exists() bool { return v.block != nil }

func (v version) key() string {
	n, at := v.uvarint(0)
	return v.text(at, n)
}

func (v version) modRevision() int64 {
	n, at := v.uvarint(0)
	rev, _ := v.uvarint(at + position(n))
	return int64(rev)
}

func (v version) deleted() bool { return v.ordinal() == 0 }

// ordinal returns the Version of the version: 0 for a tombstone.
func (v version) ordinal() uint64 {
	n, at := v.uvarint(0)
	_, at = v.uvarint(at + position(n))
	count, _ := v.uvarint(at)
	return count >> 1
}

// links returns the links of the version.
func (v version) links() (l links) {
	n, at := v.uvarint(0)
	rev, at := v.uvarint(at + position(n))
	count, at := v.uvarint(at)
	if count&1 == 0 {
		return l
	}
	index, at := v.uvarint(at)
	l.index = int(index)
	l.pred, at = v.placeAt(at, int64(rev))
	l.far, _ = v.placeAt(at, int64(rev))
	return l
}

// place returns the place of the change that made the version.
func (v version) place() place { return place{v.modRevision(), v.links().index} }

// placeAt returns the place at a position of a version with a revision, and the position after it.
func (v version) placeAt(at position, rev int64) (p place, next position) {
	back, at := v.uvarint(at)
	if back == 0 {
		return place{}, at
	}
	index, at := v.uvarint(at)
	return place{rev - int64(back-1), int(index)}, at
}

// keyValue returns the version's contents. The strings share the memory of the block.
func (v version) keyValue() (kv KeyValue) {
	n, at := v.uvarint(0)
	kv.Key = v.text(at, n)
	rev, at := v.uvarint(at + position(n))
	count, at := v.uvarint(at)
	kv.ModRevision, kv.Version = int64(rev), int64(count>>1)
	if kv.Deleted() {
		return kv
	}
	if count&1 != 0 { // the links
		_, at = v.uvarint(at)
		_, at = v.placeAt(at, 0)
		_, at = v.placeAt(at, 0)
	}
	age, at := v.uvarint(at)
	lease, at := v.uvarint(at)
	n, at = v.uvarint(at)
	kv.CreateRevision, kv.Lease, kv.Value = kv.ModRevision-int64(age), int64(lease), v.text(at, n)
	return kv
}

// found returns the contents of a version that a look-up has found. It returns false for a version that does not
// exist.
func (v version) found() (KeyValue, bool) {
	if !v.exists() {
		return KeyValue{}, false
	}
	return v.keyValue(), true
}

// bytes returns the approximate memory use of the version.
func (v version) bytes() int64 {
	kv := v.keyValue()
	return kv.bytes()
}

// before reports whether the version is of a lower key, or of the same key and a lower revision.
func (v version) before(key string, rev int64) bool {
	if order := strings.Compare(v.key(), key); order != 0 {
		return order < 0
	}
	return v.modRevision() < rev
}

// bytesOf returns the bytes of a string without a copy. The caller must not change them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
