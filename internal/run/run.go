// SPDX-License-Identifier: Apache-2.0

// Package run numbers the runs of a node's directory, so that a copy of the directory can be told
// from the directory that went on without it.
package run

import (
	"math"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A Number names one run: from an opening of a directory to the next. The zero Number names none: it
// is not known, or the node is of a version that does not number its runs.
type Number struct {
	Count uint64 // of the runs of the directory, this one included
	Draw  uint64 // random: two copies of one directory count alike
}

// Void is later than any run, and of no directory.
var Void = Number{Count: math.MaxUint64, Draw: 1}

// kept bounds the runs that a Line names.
const kept = 8

// A Line is the runs that a directory knows that it has had: the present one, and those before it, back
// to the last that the cluster surely had on record.
type Line struct {
	Count uint64       // of the present run; 0: the Line is empty
	Draws [kept]uint64 // the present run's first; 0 after the last one
}

// Now returns the present run.
func (l Line) Now() Number { return Number{l.Count, l.Draws[0]} }

// Has reports whether a run that the cluster has on record can be one of the directory's. A run that
// is older than the Line goes back counts as one: the record is old. If it is not one of them, the
// directory went on elsewhere without this copy of it.
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

// Next returns the Line with a new run, if recorded is the last run that is known to have been on
// record. A Line that names as many runs as it can stays as it is, so that none of them is missed: then
// the new run goes by the number of the one before.
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

// ReadLine reads what Line.Append has written. Of more runs than a Line names it takes the newest.
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
