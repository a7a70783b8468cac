// SPDX-License-Identifier: Apache-2.0

package mvcc

// A history holds the changes of each revision since the compaction, in chunks, so that appending copies
// nothing and dropping the oldest frees them. A copy of it serves as a view: the original only appends,
// and replaces chunks when it drops entries.
type history struct {
	first  int64 // the revision of the oldest entry
	count  int64
	chunks []*chunk
	skip   int64 // number of dropped entries in the first chunk
}

const chunkSize = 256

type chunk [chunkSize]entry

// An entry holds the changes of one revision.
type entry struct {
	one  *KeyValue // if it is a single change
	many []*KeyValue
	// superseded is freed by compacting to this revision: the bytes of older versions that its changes
	// replaced.
	superseded int64
	// own is freed only by compacting beyond this revision, because its own changes are visible until
	// then: the bytes of its tombstones, and of versions that it both made and replaced.
	own int64
}

func (e *entry) changes() []*KeyValue {
	if e.one != nil {
		return []*KeyValue{e.one}
	}
	return e.many
}

func (e *entry) add(kv *KeyValue) {
	switch {
	case e.one == nil && e.many == nil:
		e.one = kv
	case e.many == nil:
		e.one, e.many = nil, []*KeyValue{e.one, kv}
	default:
		e.many = append(e.many, kv)
	}
}

// last returns the newest revision that has an entry.
func (h *history) last() int64 { return h.first + h.count - 1 }

func (h *history) at(rev int64) *entry {
	i := rev - h.first + h.skip
	return &h.chunks[i/chunkSize][i%chunkSize]
}

func (h *history) append(e entry) {
	i := h.skip + h.count
	if i == int64(len(h.chunks))*chunkSize {
		h.chunks = append(h.chunks, new(chunk))
	}
	h.chunks[i/chunkSize][i%chunkSize] = e
	h.count++
}

// drop removes the revisions before rev. Views keep theirs.
func (h *history) drop(rev int64) {
	n := min(rev-h.first, h.count)
	if n <= 0 {
		return
	}
	h.first, h.count, h.skip = h.first+n, h.count-n, h.skip+n
	whole := h.skip / chunkSize
	h.skip %= chunkSize
	// The old slice would keep the dropped chunks.
	h.chunks = append([]*chunk(nil), h.chunks[whole:]...)
	if h.skip > 0 && len(h.chunks) > 0 {
		// The first chunk is copied without its dropped entries, which it would otherwise keep in memory.
		rest := new(chunk)
		copy(rest[h.skip:], h.chunks[0][h.skip:])
		h.chunks[0] = rest
	}
}
