// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"slices"
	"strings"
)

// ranges are ranges of keys in their order. No two of them overlap or touch. The last one may have no end.
type ranges []span

// A span is the range from key to end. An empty end means that it has none.
type span struct{ key, end string }

// noEnd is the end of a range without an end, in requests and permissions.
const noEnd = "\x00"

// bounds returns the range of a request or a permission as a span.
func bounds(key, end string) span {
	switch end {
	case "":
		return span{key, key + "\x00"}
	case noEnd:
		return span{key, ""}
	}
	return span{key, end}
}

// before reports whether the range ends before a key.
func (s span) before(key string) bool { return s.end != "" && s.end < key }

// with returns the ranges joined with another one. Ranges come in the order of their keys.
func (r ranges) with(key, end string) ranges {
	next := bounds(key, end)
	if len(r) == 0 || r[len(r)-1].before(next.key) {
		return append(r, next)
	}
	last := &r[len(r)-1]
	if last.end != "" && (next.end == "" || next.end > last.end) {
		last.end = next.end
	}
	return r
}

// at returns the range that contains a key.
func (r ranges) at(key string) (span, bool) {
	i, exact := slices.BinarySearchFunc(r, key, func(s span, key string) int { return strings.Compare(s.key, key) })
	if !exact {
		i-- // the last one that begins before the key
	}
	if i < 0 || r[i].end != "" && r[i].end <= key {
		return span{}, false
	}
	return r[i], true
}

// covered reports whether the ranges that at returns for keys cover a range together.
func covered(key, end string, at func(key string) (span, bool)) bool {
	want := bounds(key, end)
	if empty := want.end != "" && want.end <= want.key; empty {
		// As in etcd, a request of an empty range is allowed only to users that may access everything between its
		// bounds.
		want = span{want.end, want.key + "\x00"}
	}
	for {
		found, ok := at(want.key)
		switch {
		case !ok:
			return false
		case found.end == "" || want.end != "" && want.end <= found.end:
			return true
		}
		want.key = found.end
	}
}

// farther returns the one of two ranges that ends later.
func farther(a, b span) span {
	if a.end == "" || b.end != "" && a.end >= b.end {
		return a
	}
	return b
}
