// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"cmp"
	"slices"
)

// A history holds the changes of each revision since the compaction, in chunks, so that appending copies
// nothing and dropping the oldest frees them. A copy of it serves as a view: the original only appends,
// and replaces chunks when it drops revisions.
type history struct {
	first  int64 // the oldest revision
	count  int64 // of revisions
	skip   int64 // number of dropped revisions in the first chunk
	chunks []chunk
	// open is the chunk after those. It is not among them, because its slices and pointers change.
	open chunk
	// pending are the changes of the next revision, and replaced what they replaced. The store reuses their memory, and views
	// have none.
	pending, replaced []version
}

const chunkSize = 256

// A chunk holds chunkSize revisions. Most revisions have a single change, so a change costs one word, or two if any change of the
// chunk replaced a version.
type chunk struct {
	single   *[chunkSize]version // the changes of revisions that have only one
	replaced *[chunkSize]version // the versions that these changes replaced or deleted; nil if there are none
	groups   []group             // the changes of the other revisions, in their order
	sizes    *[chunkSize]sizes   // nil if all of them are zero
}

// A group holds the changes of a revision that has several.
type group struct {
	index    int
	changes  []version
	replaced []version // the versions that they replaced or deleted; nil if there are none
}

// sizes are the numbers of bytes that compaction frees because of the changes of one revision.
type sizes struct {
	// superseded is freed by compacting to this revision: the bytes of older versions that its changes
	// replaced.
	superseded int64
	// own is freed only by compacting beyond this revision, because its own changes are visible until
	// then: the bytes of its tombstones, and of versions that it both made and replaced.
	own int64
}

// last returns the newest revision.
func (h *history) last() int64 { return h.first + h.count - 1 }

// chunk returns the chunk of a revision, and the revision's index in it.
func (h *history) chunk(rev int64) (*chunk, int) {
	i := rev - h.first + h.skip
	if whole := i / chunkSize; whole < int64(len(h.chunks)) {
		return &h.chunks[whole], int(i % chunkSize)
	}
	return &h.open, int(i % chunkSize)
}

// changes returns the changes of a revision in their order. The caller must not change the slice.
func (h *history) changes(rev int64) []version {
	c, i := h.chunk(rev)
	if c.single[i].exists() {
		return c.single[i : i+1 : i+1]
	}
	return c.group(i).changes
}

// group returns the group of an index. It is empty if there is none.
func (c *chunk) group(i int) group {
	if at, ok := slices.BinarySearchFunc(c.groups, i, func(g group, i int) int { return cmp.Compare(g.index, i) }); ok {
		return c.groups[at]
	}
	return group{}
}

// sizes returns the sizes of a revision.
func (h *history) sizes(rev int64) sizes {
	if c, i := h.chunk(rev); c.sizes != nil {
		return c.sizes[i]
	}
	return sizes{}
}

// at returns the version at a place. It does not exist if it is older than the history.
func (h *history) at(p place) version {
	switch {
	case p.rev < h.first:
		return version{}
	case p.rev > h.last():
		return h.pending[p.index]
	}
	return h.changes(p.rev)[p.index]
}

// before returns the version that a change replaced or deleted. It does not exist if there was none, if the change is older
// than the history, or if the last compaction removed it, because the oldest revision of the history replaced it.
func (h *history) before(change version) (old version) {
	p := change.place()
	switch {
	case p.rev < h.first:
		return version{}
	case p.rev > h.last():
		old = h.replaced[p.index]
	default:
		c, i := h.chunk(p.rev)
		if !c.single[i].exists() {
			if replaced := c.group(i).replaced; replaced != nil {
				old = replaced[p.index]
			}
		} else if c.replaced != nil {
			old = c.replaced[i]
		}
	}
	if p.rev == h.first && old.exists() && old.modRevision() < h.first {
		return version{}
	}
	return old
}

// add adds a change of the next revision, and the version that it replaced or deleted, which may not exist.
func (h *history) add(change, old version) {
	h.pending, h.replaced = append(h.pending, change), append(h.replaced, old)
}

// end ends the next revision, with the pending changes.
func (h *history) end(s sizes) {
	i := int((h.skip + h.count) % chunkSize)
	if i == 0 && h.open.single != nil {
		h.chunks = append(h.chunks, h.open)
		h.open = chunk{}
	}
	c := &h.open
	if c.single == nil {
		c.single = new([chunkSize]version)
	}
	switch len(h.pending) {
	case 0:
	case 1:
		c.single[i] = h.pending[0]
		if h.replaced[0].exists() {
			if c.replaced == nil {
				c.replaced = new([chunkSize]version)
			}
			c.replaced[i] = h.replaced[0]
		}
	default:
		g := group{index: i, changes: slices.Clone(h.pending)}
		if slices.ContainsFunc(h.replaced, version.exists) {
			g.replaced = slices.Clone(h.replaced)
		}
		c.groups = append(c.groups, g)
	}
	clear(h.pending)
	clear(h.replaced)
	h.pending, h.replaced = h.pending[:0], h.replaced[:0]
	if s != (sizes{}) {
		if c.sizes == nil {
			c.sizes = new([chunkSize]sizes)
		}
		c.sizes[i] = s
	}
	h.count++
}

// drop removes the revisions before rev. Views keep theirs.
func (h *history) drop(rev int64) {
	n := min(rev-h.first, h.count)
	if n <= 0 {
		return
	}
	h.first, h.count, h.skip = h.first+n, h.count-n, h.skip+n
	whole := min(h.skip/chunkSize, int64(len(h.chunks)))
	h.skip -= whole * chunkSize
	// The old slice would keep the dropped chunks.
	h.chunks = slices.Clone(h.chunks[whole:])
	if h.skip == 0 {
		return
	}
	// The first chunk would keep its dropped revisions.
	first := &h.open
	if len(h.chunks) > 0 {
		first = &h.chunks[0]
	}
	*first = first.from(int(h.skip))
}

// from returns a copy of a chunk without the revisions before index i.
func (c *chunk) from(i int) chunk {
	rest := chunk{single: new([chunkSize]version), sizes: c.sizes}
	copy(rest.single[i:], c.single[min(i, chunkSize):])
	if c.replaced != nil {
		rest.replaced = new([chunkSize]version)
		copy(rest.replaced[i:], c.replaced[min(i, chunkSize):])
	}
	for _, g := range c.groups {
		if g.index >= i {
			rest.groups = append(rest.groups, g)
		}
	}
	return rest
}
