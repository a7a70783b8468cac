// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// A wal has the facts of etcd's write-ahead log about the entries after an index. etcd's own package panics if a log is
// damaged, so this one reads the files with checks of its own.
//
// The files have frames: 8 bytes with the length of the record and of its padding, then the record. A record has a type,
// a checksum of all data up to here, and data.
type wal struct {
	after    uint64   // the index
	changes  []uint64 // the indexes of the later entries that change data
	last     uint64   // the index of the newest entry, or of the newest snapshot if that is newer
	commit   uint64   // the newest commit index
	snapshot uint64   // the index of the newest snapshot
	named    []uint64 // the indexes of all snapshots in the log; etcd ignores those after the commit index
}

// The types of records.
const (
	walMetadata = iota + 1
	walEntry
	walState
	walChecksum
	walSnapshot
)

const (
	walFrameHeader = 8
	walSector      = 512 // a disk writes a sector completely or not at all
)

var walTable = crc32.MakeTable(crc32.Castagnoli)

// errTorn is a record that was not written completely. If it is the last one, etcd has never acknowledged it.
var errTorn = errors.New("a record is cut off")

// walFiles returns the files of a log, in their order.
func walFiles(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".wal" {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, &os.PathError{Op: "read", Path: dir, Err: os.ErrNotExist}
	}
	return names, nil
}

// readWAL reads all files of a log.
func readWAL(ctx context.Context, dir string, after uint64) (*wal, error) {
	names, err := walFiles(dir)
	if err != nil {
		return nil, err
	}
	w := &wal{after: after}
	var sum uint32
	var next uint64 // number of the next file
	for i, name := range names {
		var number, index uint64
		if _, err := fmt.Sscanf(filepath.Base(name), "%016x-%016x.wal", &number, &index); err != nil {
			return nil, fmt.Errorf("%s does not have the name of a file of the log", name)
		}
		if i > 0 && number != next {
			return nil, fmt.Errorf("the file before %s is missing", name)
		}
		next = number + 1
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		sum, err = w.file(b, sum, i == 0)
		if err != nil && !(errors.Is(err, errTorn) && i == len(names)-1) {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	w.takeSnapshots()
	return w, nil
}

// file reads the records of a file. sum is the checksum so far, which the first record repeats.
func (w *wal) file(b []byte, sum uint32, first bool) (uint32, error) {
	for at := 0; len(b)-at >= walFrameHeader; {
		head := binary.LittleEndian.Uint64(b[at:])
		if head == 0 {
			return sum, nil // space that etcd has allocated
		}
		size, padding := head&(1<<56-1), uint64(0)
		if head>>63 == 1 {
			padding = head >> 56 & 7
		}
		begin := at + walFrameHeader
		if size+padding > uint64(len(b)-begin) {
			return sum, errTorn
		}
		frame := b[begin : begin+int(size+padding)]
		kind, want, data, err := walRecord(frame[:size])
		switch {
		case err != nil:
		case kind == walChecksum && (first && at == 0 || want == sum):
			sum = want
		case kind == walChecksum:
			err = errors.New("it does not follow the file before")
		default:
			if sum = crc32.Update(sum, walTable, data); sum != want {
				err = errors.New("a checksum is wrong")
			} else {
				err = w.record(kind, data)
			}
		}
		if err != nil && torn(frame, begin) {
			return sum, errTorn
		}
		if err != nil {
			return sum, fmt.Errorf("offset %d: %w", at, err)
		}
		at = begin + len(frame)
	}
	return sum, nil
}

// torn reports whether a sector of a frame at an offset was never written.
func torn(frame []byte, at int) bool {
	for len(frame) > 0 {
		n := min(walSector-at%walSector, len(frame))
		if !slices.ContainsFunc(frame[:n], func(b byte) bool { return b != 0 }) {
			return true
		}
		frame, at = frame[n:], at+n
	}
	return false
}

// walRecord returns the parts of a record.
func walRecord(b []byte) (kind uint64, sum uint32, data []byte, err error) {
	err = fields(b, func(f protowire.Number, number uint64, value []byte) {
		switch f {
		case 1:
			kind = number
		case 2:
			sum = uint32(number)
		case 3:
			data = value
		}
	})
	return kind, sum, data, err
}

// fields calls fn for each field of a message. number is the value of a varint, value that of bytes.
func fields(b []byte, fn func(f protowire.Number, number uint64, value []byte)) error {
	for len(b) > 0 {
		f, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(f, kind, b); n < 0 {
			return protowire.ParseError(n)
		}
		number, _ := protowire.ConsumeVarint(b[:n])
		var value []byte
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(b[:n])
		}
		fn(f, number, value)
		b = b[n:]
	}
	return nil
}

// record updates w with a record.
func (w *wal) record(kind uint64, data []byte) error {
	switch kind {
	case walMetadata:
		return nil
	case walState:
		return fields(data, func(f protowire.Number, number uint64, _ []byte) {
			if f == 3 {
				w.commit = number
			}
		})
	case walSnapshot:
		return fields(data, func(f protowire.Number, number uint64, _ []byte) {
			if f == 1 {
				w.named = append(w.named, number)
			}
		})
	case walEntry:
		return w.entry(data)
	}
	return fmt.Errorf("a record has the unknown type %d", kind)
}

// takeSnapshots updates w with the committed snapshots. etcd ignores the others.
func (w *wal) takeSnapshots() {
	for _, index := range w.named {
		if index <= w.commit {
			w.snapshot = max(w.snapshot, index)
		}
	}
	w.last = max(w.last, w.snapshot)
}

// entry updates w with an entry, which replaces earlier entries with the same or a higher index.
func (w *wal) entry(data []byte) error {
	var kind, index uint64
	var request []byte
	err := fields(data, func(f protowire.Number, number uint64, value []byte) {
		switch f {
		case 1:
			kind = number
		case 3:
			index = number
		case 4:
			request = value
		}
	})
	if err != nil {
		return err
	}
	if w.last > 0 && index > w.last+1 && !slices.Contains(w.named, index-1) {
		return fmt.Errorf("the entries between the indexes %d and %d are missing", w.last, index)
	}
	w.last = index
	w.changes = slices.DeleteFunc(w.changes, func(later uint64) bool { return later >= index })
	if index <= w.after || kind != 0 || len(request) == 0 {
		return nil // applied; a change of members; the first entry of a leader
	}
	changes, err := changesData(request)
	if changes {
		w.changes = append(w.changes, index)
	}
	return err
}

// changesData reports whether a request of etcd's log changes anything that moves with the data: keys, leases, users and
// roles. It assumes so for requests that it does not know.
func changesData(request []byte) (changes bool, err error) {
	v2 := false
	err = fields(request, func(f protowire.Number, _ uint64, _ []byte) {
		switch f {
		case 2: // of etcd's old store, which etcd 3.5 and older use for their members
			v2 = true
		case 1, 100: // ID and header
		case 3, 10, 11: // a read, an alarm, the remaining time of a lease
		case 1012, 1013, 1102, 1106, 1107, 1202: // a token, and reads of users and roles
		case 1300, 1301, 1302, 9900: // versions, and the names of members
		default:
			changes = true
		}
	})
	return changes && !v2, err
}
