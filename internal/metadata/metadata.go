// SPDX-License-Identifier: Apache-2.0

// Package metadata encodes the metadata of members: small maps of texts.
package metadata

import (
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/wire"
)

// MaxBytes bounds the keys and values of a member's metadata together. Every node holds the metadata
// of every member in memory, and each record of a member in the log has it.
const MaxBytes = 4 << 10

// Check returns an error that matches fault.ErrInvalidOption if a map cannot be the metadata of a member.
func Check(m map[string]string) error {
	size := 0
	for k, v := range m {
		size += len(k) + len(v)
		if k == "" {
			return fmt.Errorf("%w: metadata has an empty key", fault.ErrInvalidOption)
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("%w: metadata %q is not UTF-8", fault.ErrInvalidOption, k)
		}
	}
	if size > MaxBytes {
		return fmt.Errorf("%w: metadata has %d bytes, more than %d", fault.ErrInvalidOption, size, MaxBytes)
	}
	return nil
}

// Encode returns the encoding of metadata, without the keys that have an empty value. Equal maps have
// equal encodings. A state.Member has it in this form because it is immutable and comparable.
func Encode(m map[string]string) string {
	return string(Append(nil, m, false))
}

// Decode returns the metadata of an encoding, or nil if there is none.
func Decode(encoded string) map[string]string {
	m, err := Read([]byte(encoded))
	if err != nil || len(m) == 0 {
		return nil
	}
	return m
}

// Update returns encoded metadata with changes. A change to an empty value removes the key.
//
// Errors: those of Check.
func Update(encoded string, changes map[string]string) (string, error) {
	m := Decode(encoded)
	if m == nil {
		m = map[string]string{}
	}
	maps.Copy(m, changes)
	maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
	if err := Check(m); err != nil {
		return "", err
	}
	return Encode(m), nil
}

// Append appends the encoding of a map, with or without its empty values.
func Append(b []byte, m map[string]string, empty bool) []byte {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] != "" || empty {
			b = wire.Message(b, 1, func(b []byte) []byte { return wire.Text(wire.Text(b, 1, k), 2, m[k]) })
		}
	}
	return b
}

// Read decodes a map. The result is not nil.
//
// Errors: wire.ErrMalformed.
func Read(b []byte) (map[string]string, error) {
	m := map[string]string{}
	r := wire.NewReader(b)
	for r.Next() {
		if r.Field() != 1 {
			continue
		}
		var k, v string
		pair := wire.NewReader(r.Bytes())
		for pair.Next() {
			switch pair.Field() {
			case 1:
				k = pair.Text()
			case 2:
				v = pair.Text()
			}
		}
		if pair.Err() != nil {
			return nil, pair.Err()
		}
		m[k] = v
	}
	return m, r.Err()
}
