// SPDX-License-Identifier: Apache-2.0

package mvcc

import "math/bits"

// The history has all changes since the last compaction, and the version that each of them replaced or deleted, so a superseded
// version needs no place in a tree. A read at an old revision begins at the live version of the key, or at the tombstone that
// deleted it later. It goes back to the first change after the revision, and returns what this change replaced.
//
// A version refers to the place of the one that it replaced, and a tombstone to that of the one that it deleted. Each version
// also refers to a far predecessor, so that a read goes back over n versions in O(log n) steps: the jump pointers of Myers, "An
// applicative random-access stack", 1983. Their lengths depend on Version alone.

// A place is that of a change: its revision, and its index among the changes of that revision. The zero place is none.
type place struct {
	rev   int64
	index int
}

// links are a version's place and its references to older versions of its key, since the key was created.
type links struct {
	index int   // of the version's own place
	pred  place // of the version before, or none if it was compacted already when this version was made
	far   place // of an older version: see farLength; or none if it is the predecessor, or was compacted
}

// farLength returns the number of versions from a version back to its far predecessor, for a version with some older ones. If
// that number is written as a sum of numbers 1, 3, 7, 15 and so on, each as large as possible, it is the last of them.
func farLength(older uint64) uint64 {
	for {
		length := uint64(1)<<(bits.Len64(older+1)-1) - 1
		if length == older {
			return length
		}
		older -= length
	}
}

// back returns the place of the version that is n versions older. n is 1 or the version's farLength.
func (l *links) back(n uint64) place {
	if n == 1 {
		return l.pred
	}
	return l.far
}

// links returns the links of the next change, to a previous version of its key with its contents, or to none.
func (h *history) links(old version, prev *KeyValue) links {
	l := links{index: len(h.pending)}
	if !old.exists() {
		return l
	}
	older := old.links()
	l.pred = place{prev.ModRevision, older.index}
	// A length above 1 is that of the previous version, that of the version there, which is the same, and 1.
	if length := farLength(uint64(prev.Version)); length > 1 {
		if middle := h.at(older.back(length / 2)); middle.exists() {
			older = middle.links()
			l.far = older.back(length / 2)
		}
	}
	return l
}

// trace goes back from a version while it finds versions that the history has, at or after rev. It returns the
// last of them.
func (h *history) trace(v version, rev int64) version {
	rev = max(rev, h.first)
	for {
		l := v.links()
		older := l.since(rev)
		if older.rev == 0 {
			return v
		}
		v = h.at(older)
	}
}

// since returns the farthest predecessor at or after a revision, which is positive.
func (l *links) since(rev int64) place {
	switch {
	case l.far.rev >= rev:
		return l.far
	case l.pred.rev >= rev:
		return l.pred
	}
	return place{}
}
