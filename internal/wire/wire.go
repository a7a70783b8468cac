// SPDX-License-Identifier: Apache-2.0

// Package wire is the encoding of all data that coterie writes to a disk or a network: numbered fields,
// similar to protocol buffers. A reader skips unknown fields, so a newer node may add fields to a message
// that an older node reads. A zero value takes no bytes. The bytes of a message are a function of its
// fields alone: equal messages have equal encodings on every node.
//
// A field is a tag and a payload. The tag is the uvarint number<<1|kind. Kind 0 is followed by a uvarint,
// kind 1 by a uvarint length and that many bytes. Signed numbers are zigzag encoded.
package wire

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"unsafe"
)

// ErrMalformed says that the input of a Reader is not a sequence of fields.
var ErrMalformed = errors.New("wire: malformed message")

const (
	kindUint  = 0
	kindBytes = 1
)

// Uint appends field num with value v, or nothing if v is zero.
func Uint(b []byte, num int, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.AppendUvarint(appendTag(b, num, kindUint), v)
}

// appendTag appends the tag of a field. Most tags are one byte.
func appendTag(b []byte, num, kind int) []byte {
	if num < 0x40 {
		return append(b, byte(num<<1|kind))
	}
	return binary.AppendUvarint(b, uint64(num)<<1|uint64(kind))
}

// Int appends field num with the signed value v, or nothing if v is zero.
func Int(b []byte, num int, v int64) []byte {
	return Uint(b, num, uint64(v)<<1^uint64(v>>63))
}

// Bool appends field num if v is true.
func Bool(b []byte, num int, v bool) []byte {
	if !v {
		return b
	}
	return Uint(b, num, 1)
}

// Text appends field num with the bytes of v, or nothing if v is empty.
func Text[T string | []byte](b []byte, num int, v T) []byte {
	if len(v) == 0 {
		return b
	}
	return Element(b, num, v)
}

// Element is Text for a repeated field, where empty elements count.
func Element[T string | []byte](b []byte, num int, v T) []byte {
	return append(Begin(b, num, len(v)), v...)
}

// Begin appends the beginning of field num: all but its contents, which have size bytes. The caller appends those.
func Begin(b []byte, num, size int) []byte {
	return binary.AppendUvarint(appendTag(b, num, kindBytes), uint64(size))
}

// SizeOf returns the size of the encoding of field num if its contents have size bytes.
func SizeOf(num, size int) int {
	return lengthOfUvarint(num<<1|kindBytes) + lengthOfUvarint(size) + size
}

// Message appends field num with the bytes that encode appends, even if there are none. It is meant for short
// messages; see LongMessage.
func Message(b []byte, num int, encode func(b []byte) []byte) []byte {
	return LongMessage(b, num, 0, encode)
}

// LongMessage is Message for a message of about size bytes. See LongPrefixed.
func LongMessage(b []byte, num, size int, encode func(b []byte) []byte) []byte {
	return LongPrefixed(appendTag(b, num, kindBytes), size, encode)
}

// Prefixed appends the bytes that encode appends, preceded by their length as a uvarint. It is meant for
// fewer than 128 bytes; see LongPrefixed.
func Prefixed(b []byte, encode func(b []byte) []byte) []byte {
	return LongPrefixed(b, 0, encode)
}

// LongPrefixed is Prefixed for about size bytes. The size determines how many bytes are left free for the
// length. It does not change the result: if the length takes another number of bytes, those that encode has
// appended are moved once. A guess costs less than a first pass that counts, and all lengths from 128 to
// 16383, for example, take two bytes.
func LongPrefixed(b []byte, size int, encode func(b []byte) []byte) []byte {
	start, left := len(b), lengthOfUvarint(size)
	var free [binary.MaxVarintLen64]byte
	b = encode(append(b, free[:left]...))
	size = len(b) - start - left
	if takes := lengthOfUvarint(size); takes != left {
		b = append(b, free[:max(takes-left, 0)]...)
		copy(b[start+takes:], b[start+left:start+left+size])
		b = b[:start+takes+size]
	}
	binary.PutUvarint(b[start:], uint64(size))
	return b
}

// lengthOfUvarint returns how many bytes v takes as a uvarint.
func lengthOfUvarint(v int) int { return (bits.Len64(uint64(v)|1) + 6) / 7 }

// A Reader takes the fields of one message in turn:
//
//	r := wire.NewReader(b)
//	for r.Next() {
//		switch r.Field() {
//		case 1:
//			m.Key = r.Text()
//		}
//	}
//	return r.Err()
//
// A field that is not read is skipped. A field read as the other kind is zero or empty.
type Reader struct {
	rest    []byte
	field   int
	number  uint64
	payload []byte
	err     error
}

// NewReader returns a Reader of the message b, which it does not change.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Reset makes r a Reader of another message.
func (r *Reader) Reset(b []byte) { *r = Reader{rest: b} }

// Next moves to the next field. It returns false at the end or if the input is malformed.
func (r *Reader) Next() bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	tag, n := uvarint(r.rest)
	if n <= 0 || tag>>1 == 0 || tag>>1 > 1<<20 {
		r.err = ErrMalformed
		return false
	}
	number, m := uvarint(r.rest[n:])
	if m <= 0 {
		r.err = ErrMalformed
		return false
	}
	r.rest = r.rest[n+m:]
	r.field, r.number, r.payload = int(tag>>1), 0, nil
	if tag&1 == kindUint {
		r.number = number
		return true
	}
	if number > uint64(len(r.rest)) {
		r.err = ErrMalformed
		return false
	}
	r.payload, r.rest = r.rest[:number:number], r.rest[number:]
	return true
}

// uvarint is binary.Uvarint, faster for numbers of one byte. Most are.
func uvarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// Field returns the number of the current field.
func (r *Reader) Field() int { return r.field }

// Uint returns the current field as an unsigned number.
func (r *Reader) Uint() uint64 { return r.number }

// Int returns the current field as a signed number.
func (r *Reader) Int() int64 { return int64(r.number>>1) ^ -int64(r.number&1) }

// Bool returns the current field as a truth value.
func (r *Reader) Bool() bool { return r.number != 0 }

// Text returns a copy of the current field's bytes as a string.
func (r *Reader) Text() string { return string(r.payload) }

// Shared returns the current field's bytes as a string that shares the memory of the input. The input must not
// change while the string is used, and stays in memory as long as the string.
func (r *Reader) Shared() string { return unsafe.String(unsafe.SliceData(r.payload), len(r.payload)) }

// Bytes returns the current field's bytes, which share the memory of the input.
func (r *Reader) Bytes() []byte { return r.payload }

// Err returns ErrMalformed if the input was malformed, otherwise nil.
func (r *Reader) Err() error { return r.err }
