// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
)

// A ref is the position of an entry on the disk.
type ref struct {
	segment *segment
	offset  int64
	size    int32
	// The CRC-32C of some text, and of that text with the entry: the CRC of a batch is checked only if the whole batch is
	// read. After Open that text is empty; in a batch that this process has written, it is everything before the entry.
	before, after uint32
}

// read reads the entry.
//
// Errors: *storage.CorruptError if its bytes differ from those that were last written or read; or an error of the
// disk.
func (r ref) read() (*raft.Log, error) {
	b := make([]byte, r.size)
	if _, err := r.segment.file.ReadAt(b, r.offset); err != nil {
		return nil, err
	}
	if crc32.Update(r.before, castagnoli, b) != r.after {
		return nil, &storage.CorruptError{File: r.segment.name, Err: fmt.Errorf("the entry at %d has changed since it was last read", r.offset)}
	}
	return readEntry(b)
}

// contents lists the entries of the segments that were not truncated, in order.
type contents struct {
	begin uint64 // the index of refs[0]
	refs  []ref
}

// at returns the position of an entry, and false if there is none at the index.
func (c *contents) at(index uint64) (ref, bool) {
	if index < c.begin || index-c.begin >= uint64(len(c.refs)) {
		return ref{}, false
	}
	return c.refs[index-c.begin], true
}

// first returns the index of the first entry, or 0 if there is none.
func (c *contents) first() uint64 {
	if len(c.refs) == 0 {
		return 0
	}
	return c.begin
}

// last returns the index of the last entry, or 0 if there is none.
func (c *contents) last() uint64 {
	if len(c.refs) == 0 {
		return 0
	}
	return c.begin + uint64(len(c.refs)) - 1
}

// truncate removes the entries at an index and after.
func (c *contents) truncate(index uint64) {
	n := len(c.refs)
	switch {
	case index <= c.begin:
		n = 0
	case index <= c.last():
		n = int(index - c.begin)
	}
	clear(c.refs[n:]) // so that a segment without references can be collected
	c.refs = c.refs[:n]
}

// drop removes the entries before an index.
func (c *contents) drop(index uint64) {
	if index <= c.begin {
		return
	}
	n := min(index-c.begin, uint64(len(c.refs)))
	c.refs = append([]ref(nil), c.refs[n:]...)
	c.begin += n
}

// add adds an entry and removes those at its index and after. It returns false if that would leave a gap.
func (c *contents) add(index uint64, r ref) bool {
	if len(c.refs) == 0 {
		c.begin = index
	}
	if index < c.begin || index > c.begin+uint64(len(c.refs)) {
		return false
	}
	c.truncate(index)
	if len(c.refs) == 0 {
		c.begin = index
	}
	c.refs = append(c.refs, r)
	return true
}
