// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"fmt"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/slot"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// An extent records how far the log reached on the disk. Segments only grow, and the newest one is never
// removed. So if a log ends before one of its own extents, it has lost its end, even if each remaining
// batch is whole. This holds after a truncation or a snapshot as well, because neither removes bytes from
// the end.
type extent struct {
	storage.Extent
	sequence uint64 // of the newest segment; 0 if unknown
	salt     uint64 // of that segment
	end      int64  // where its last batch ends
}

// lost returns an error if the log ends before e. newest is the newest segment of the log that has a
// header, and last its last entry.
func (e *extent) lost(dir string, newest *segment, last uint64) error {
	if e.sequence == 0 {
		return nil
	}
	found := "there is no segment"
	if newest != nil {
		found = fmt.Sprintf("the log ends at %d of %s, with entry %d", newest.end, filepath.Base(newest.name), last)
		if newest.sequence > e.sequence || newest.sequence == e.sequence && newest.salt == e.salt && newest.end >= e.end {
			return nil
		}
	}
	name := segmentName(e.sequence)
	return &storage.CorruptError{File: filepath.Join(dir, name), Err: fmt.Errorf("%s; it had reached %d of %s, with entry %d of term %d",
		found, e.end, name, e.Index, e.Term)}
}

// newestOf returns the newest segment that has a header, or nil.
func newestOf(files []*segment) *segment {
	for i := len(files) - 1; i >= 0; i-- {
		if files[i].end > 0 {
			return files[i]
		}
	}
	return nil
}

// extents keeps the newest extent in two slots of the vote file, after those of the vote. It is written
// after each batch but not synced: it survives a killed process, and a power failure as far as the system
// has written it. Each sync of the vote makes it durable, and so does Close. extents belongs to the
// writer's goroutine.
type extents struct {
	file   vfs.File // the vote file; raft's main loop writes the slots of the vote
	serial uint64
	dirty  bool   // the last write was not synced
	record []byte // buffer of write
}

// readExtent returns the newest extent in a vote file, and its serial number.
func readExtent(file vfs.File) (e extent, serial uint64, err error) {
	return slot.Newest(file, extentsAt, decodeExtent)
}

func decodeExtent(b []byte) (serial uint64, e extent, ok bool) {
	record, ok := slot.Open(b)
	if !ok {
		return 0, e, false
	}
	r := wire.NewReader(record)
	for r.Next() {
		switch r.Field() {
		case 1:
			serial = r.Uint()
		case 2:
			e.sequence = r.Uint()
		case 3:
			e.salt = r.Uint()
		case 4:
			e.end = int64(r.Uint())
		case 5:
			e.Index = r.Uint()
		case 6:
			e.Term = r.Uint()
		case 7:
			e.Snapshot = r.Uint()
		}
	}
	return serial, e, r.Err() == nil && serial > 0
}

// appendExtent makes the record of an extent in the memory of b.
func appendExtent(b []byte, serial uint64, e extent) []byte {
	b = append(b[:0], make([]byte, slot.Header)...)
	b = wire.Uint(b, 1, serial)
	b = wire.Uint(b, 2, e.sequence)
	b = wire.Uint(b, 3, e.salt)
	b = wire.Uint(b, 4, uint64(e.end))
	b = wire.Uint(b, 5, e.Index)
	b = wire.Uint(b, 6, e.Term)
	b = wire.Uint(b, 7, e.Snapshot)
	return slot.Seal(b)
}

// write writes the extent of durable data. If the write fails, less is known about the log but
// nothing is wrong: a failed disk shows when the log is written.
func (x *extents) write(e extent) {
	x.serial++
	x.record = appendExtent(x.record, x.serial, e)
	_, err := x.file.WriteAt(x.record, extentsAt+int64(x.serial%slot.Count)*slot.Size)
	x.dirty = x.dirty || err == nil
}

// sync makes the newest extent durable.
func (x *extents) sync() {
	if x.dirty {
		_ = x.file.Sync() // see write
		x.dirty = false
	}
}
