// SPDX-License-Identifier: Apache-2.0

// Package run numbers the runs of a node's directory, so that a copy of the directory can be told from
// the original that continued without it.
package run

import (
	"math"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A Number identifies one run, which lasts from an opening of a directory to the next. The zero Number
// means unknown: the node may be of a version that does not number its runs.
type Number struct {
	Count uint64 // number of runs of the directory, including this one
	Draw  uint64 // random, since two copies of one directory count alike
}

// Void is later than any run, and belongs to no directory.
var Void = Number{Count: math.MaxUint64, Draw: 1}

// kept bounds the number of runs in a Line.
const kept = 8

// A Line lists the runs that a directory knows of: the current one and earlier ones, back to the last
// that the cluster certainly had on record.
type Line struct {
	Count uint64       // of the current run; 0 if the Line is empty
	Draws [kept]uint64 // the current run's first; 0 after the last one
}

// Now returns the current run.
func (l Line) Now() Number { return Number{l.Count, l.Draws[0]} }

// Has reports whether a run that the cluster has on record can belong to the directory. A run older than
// the Line counts as one, because the record may be old. If Has returns false, the directory continued
// elsewhere without this copy of it.
func (l Line) Has(n Number) bool {
	if l.Count == 0 || n == (Number{}) {
		return true // nothing is known
	}
	if n.Count > l.Count {
		return false
	}
	back := l.Count - n.Count
	return back >= kept || l.Draws[back] == 0 || l.Draws[back] == n.Draw
}

// Next returns the Line with a new run. recorded is the last run that is known to have been on record. A
// full Line is returned unchanged, so that it loses no run; the new run then uses the number of the
// previous one.
func (l Line) Next(recorded Number, draw uint64) Line {
	if back := l.Count - recorded.Count; recorded.Count <= l.Count && back < kept && l.Draws[back] == recorded.Draw {
		clear(l.Draws[back+1:])
	}
	if l.Draws[kept-1] != 0 {
		return l
	}
	copy(l.Draws[1:], l.Draws[:])
	l.Count, l.Draws[0] = l.Count+1, max(draw, 1)
	return l
}

// Append appends the fields of a Line.
func (l Line) Append(b []byte) []byte {
	b = wire.Uint(b, 1, l.Count)
	for _, draw := range l.Draws {
		b = wire.Uint(b, 2, draw)
	}
	return b
}

// ReadLine decodes a Line. If there are more runs than fit, it keeps the newest.
func ReadLine(b []byte) (l Line, err error) {
	r := wire.NewReader(b)
	for at := 0; r.Next(); {
		switch {
		case r.Field() == 1:
			l.Count = r.Uint()
		case r.Field() == 2 && at < kept:
			l.Draws[at] = r.Uint()
			at++
		}
	}
	return l, r.Err()
}
