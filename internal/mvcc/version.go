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
//   - Version; a tombstone ends here
//   - ModRevision minus CreateRevision, Lease, the length of the value, and the value
//
// The zero version refers to no block. This file is the only one of the package that uses package unsafe.
type version struct{ block *byte }

// newVersion returns a version with copies of the strings of a KeyValue. A tombstone keeps only its Key and its
// ModRevision.
func newVersion(kv *KeyValue) version {
	size := uvarintLen(uint64(len(kv.Key))) + len(kv.Key) + uvarintLen(uint64(kv.ModRevision)) + uvarintLen(uint64(kv.Version))
	if !kv.Deleted() {
		size += uvarintLen(uint64(kv.ModRevision-kv.CreateRevision)) + uvarintLen(uint64(kv.Lease)) +
			uvarintLen(uint64(len(kv.Value))) + len(kv.Value)
	}
	b := make([]byte, 0, size)
	b = binary.AppendUvarint(b, uint64(len(kv.Key)))
	b = append(b, kv.Key...)
	b = binary.AppendUvarint(b, uint64(kv.ModRevision))
	b = binary.AppendUvarint(b, uint64(kv.Version))
	if !kv.Deleted() {
		b = binary.AppendUvarint(b, uint64(kv.ModRevision-kv.CreateRevision))
		b = binary.AppendUvarint(b, uint64(kv.Lease))
		b = binary.AppendUvarint(b, uint64(len(kv.Value)))
		b = append(b, kv.Value...)
	}
	return version{unsafe.SliceData(b)}
}

func uvarintLen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

// A position is a place in a block. It is not a pointer, because a pointer to the end of a block would refer to
// another object.
type position uintptr

// uvarint reads the number at a position, and moves the position beyond it.
func (v version) uvarint(at *position) uint64 {
	b := *(*byte)(unsafe.Add(unsafe.Pointer(v.block), *at))
	*at++
	if b < 0x80 {
		return uint64(b)
	}
	x := uint64(b & 0x7f)
	for shift := 7; ; shift += 7 {
		b = *(*byte)(unsafe.Add(unsafe.Pointer(v.block), *at))
		*at++
		x |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return x
		}
	}
}

// text returns the string at a position, which shares the memory of the block, and moves the position beyond it.
func (v version) text(at *position) string {
	n := v.uvarint(at)
	if n == 0 {
		return ""
	}
	s := unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(v.block), *at)), int(n))
	*at += position(n)
	return s
}

// exists reports whether v refers to a version.
func (v version) exists() bool { return v.block != nil }

func (v version) key() string {
	if n := *v.block; n < 0x80 { // a case of its own, because comparisons spend their time here
		return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(v.block), 1)), int(n))
	}
	var at position
	return v.text(&at)
}

func (v version) modRevision() int64 {
	var at position
	v.text(&at)
	return int64(v.uvarint(&at))
}

func (v version) deleted() bool {
	var at position
	v.text(&at)
	v.uvarint(&at)
	return v.uvarint(&at) == 0
}

// keyValue returns the version's contents. The strings share the memory of the block.
func (v version) keyValue() KeyValue {
	var at position
	kv := KeyValue{Key: v.text(&at), ModRevision: int64(v.uvarint(&at)), Version: int64(v.uvarint(&at))}
	if kv.Version != 0 {
		kv.CreateRevision = kv.ModRevision - int64(v.uvarint(&at))
		kv.Lease = int64(v.uvarint(&at))
		kv.Value = v.text(&at)
	}
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
