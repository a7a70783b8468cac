// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// An extent records how far the log reached on the disk. Segments only grow, and the newest one is never
// removed. So if a log ends before one of its own extents, it has lost its end, even if each remaining
// batch is whole. This holds after a truncation or a snapshot as well, because neither removes bytes from
// the end.
type extent struct {
	sequence uint64 // of the newest segment; 0 if unknown
	salt     uint64 // of that segment
	end      int64  // where its last batch ends
	index    uint64 // the last durable entry, in the log or in a snapshot
	term     uint64 // of that entry; 0 if unknown
	snapshot uint64 // the last entry of the newest snapshot
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
	return &CorruptError{File: filepath.Join(dir, name), Err: fmt.Errorf("%s; it had reached %d of %s, with entry %d of term %d",
		found, e.end, name, e.index, e.term)}
}

// lostSnapshot returns an error if the log and the snapshots end before a snapshot that existed.
func (e *extent) lostSnapshot(dir string, last, snapshot uint64) error {
	if end := max(last, snapshot); end < e.snapshot {
		return &CorruptError{File: filepath.Join(dir, snapshotDir), Err: fmt.Errorf("log and snapshots end with entry %d, but there was a snapshot of entry %d", end, e.snapshot)}
	}
	return nil
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
	dirty  bool // the last write was not synced
}

// extentsAt is where the slots begin.
const extentsAt = slotCount * slotSize

// readExtent returns the newest extent of a directory, and its serial number. It ignores slots that it
// cannot read: a crash may have torn both.
func readExtent(fs vfs.FS, dir string) (e extent, serial uint64, err error) {
	file, err := fs.Open(filepath.Join(dir, voteFile))
	if isNotExist(err) {
		return e, 0, nil
	}
	if err != nil {
		return e, 0, err
	}
	defer file.Close()
	slots := make([]byte, slotCount*slotSize)
	if _, err := file.ReadAt(slots, extentsAt); err != nil && !errors.Is(err, io.EOF) {
		return e, 0, err
	}
	for i := range slotCount {
		if n, found, ok := decodeExtent(slots[i*slotSize : (i+1)*slotSize]); ok && n > serial {
			serial, e = n, found
		}
	}
	return e, serial, nil
}

func decodeExtent(slot []byte) (serial uint64, e extent, ok bool) {
	record, ok := openSlot(slot)
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
			e.index = r.Uint()
		case 6:
			e.term = r.Uint()
		case 7:
			e.snapshot = r.Uint()
		}
	}
	return serial, e, r.Err() == nil && serial > 0
}

func encodeExtent(serial uint64, e extent) []byte {
	b := make([]byte, slotHeader, 128)
	b = wire.Uint(b, 1, serial)
	b = wire.Uint(b, 2, e.sequence)
	b = wire.Uint(b, 3, e.salt)
	b = wire.Uint(b, 4, uint64(e.end))
	b = wire.Uint(b, 5, e.index)
	b = wire.Uint(b, 6, e.term)
	b = wire.Uint(b, 7, e.snapshot)
	return sealSlot(b)
}

// write writes the extent of durable data. If the write fails, less is known about the log but
// nothing is wrong: a failed disk shows when the log is written.
func (x *extents) write(e extent) {
	x.serial++
	_, err := x.file.WriteAt(encodeExtent(x.serial, e), extentsAt+int64(x.serial%slotCount)*slotSize)
	x.dirty = x.dirty || err == nil
}

// sync makes the newest extent durable.
func (x *extents) sync() {
	if x.dirty {
		_ = x.file.Sync() // see write
		x.dirty = false
	}
}

// extend writes the current extent. The caller does not hold mu.
func (s *store) extend() {
	g := s.disk.files[len(s.disk.files)-1]
	e := extent{sequence: g.sequence, salt: g.salt, end: g.end}
	s.mu.Lock()
	e.index, e.snapshot = s.upTo(), s.snapshot
	begin := s.last + 1 - uint64(len(s.tail))
	switch {
	case e.index == s.snapshot:
		e.term = s.snapshotTerm
	case len(s.tail) > 0 && begin <= e.index && e.index <= s.last:
		e.term = s.tail[e.index-begin].Term
	}
	s.mu.Unlock()
	s.busy(time.Now())
	s.extents.write(e)
	s.busy(time.Time{})
}
