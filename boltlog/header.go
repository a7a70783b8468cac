// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/wire"
)

const (
	bucketLogs = "logs" // the buckets of raft-boltdb
	bucketConf = "conf"

	// version is the version of the headers of entries and records. A later version may change everything but the
	// checksum and the version.
	version = 1
	// entryHeader is the size of the header that a stored entry has in front of its extensions: the CRC-32C of
	// the entry, the version, and the applied index.
	entryHeader = 4 + 1 + 8
	// recordHeader is the size of the header of a record in bucket "conf": the CRC-32C of the key and the rest, and
	// the version.
	recordHeader = 4 + 1
	// entryOverhead is roughly the space that an entry takes in addition to its data.
	entryOverhead = 110
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumEntry returns the checksum of an entry with extensions that begin with a header.
func sumEntry(l *raft.Log) uint32 {
	var b [48]byte
	binary.LittleEndian.PutUint64(b[0:], l.Index)
	binary.LittleEndian.PutUint64(b[8:], l.Term)
	binary.LittleEndian.PutUint64(b[16:], uint64(l.Type))
	binary.LittleEndian.PutUint64(b[24:], uint64(len(l.Data)))
	if !l.AppendedAt.IsZero() {
		b[32] = 1
		binary.LittleEndian.PutUint64(b[40:], uint64(l.AppendedAt.UnixNano()))
	}
	sum := crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, l.Extensions[4:])
}

// sealEntry returns the copy of an entry that is stored. It carries the applied index, if that is not 0.
func sealEntry(l *raft.Log, applied uint64) *raft.Log {
	stored := *l
	stored.AppendedAt = l.AppendedAt.UTC() // the encoding of a time names its zone
	stored.Extensions = make([]byte, entryHeader, entryHeader+len(l.Extensions))
	stored.Extensions[4] = version
	binary.LittleEndian.PutUint64(stored.Extensions[5:], applied)
	stored.Extensions = append(stored.Extensions, l.Extensions...)
	binary.LittleEndian.PutUint32(stored.Extensions, sumEntry(&stored))
	return &stored
}

// openEntry verifies the entry that is stored under an index, and removes its header. It returns the applied index in
// the header.
func openEntry(index uint64, l *raft.Log) (applied uint64, err error) {
	header := l.Extensions
	switch {
	case len(header) < entryHeader:
		return 0, fmt.Errorf("entry %d has no checksum", index)
	case binary.LittleEndian.Uint32(header) != sumEntry(l):
		return 0, fmt.Errorf("the checksum of entry %d is wrong", index)
	case header[4] != version:
		return 0, wire.CheckVersion(fmt.Sprintf("entry %d", index), uint64(header[4]), version)
	case l.Index != index:
		return 0, fmt.Errorf("entry %d is stored as entry %d", l.Index, index)
	}
	if l.Extensions = header[entryHeader:]; len(l.Extensions) == 0 {
		l.Extensions = nil
	}
	if !l.AppendedAt.IsZero() {
		l.AppendedAt = time.Unix(0, l.AppendedAt.UnixNano())
	}
	return binary.LittleEndian.Uint64(header[5:]), nil
}

// A decoder decodes entries as raft-boltdb does, and verifies them.
type decoder struct{ msgpack *codec.Decoder }

func newDecoder() decoder { return decoder{codec.NewDecoderBytes(nil, &codec.MsgpackHandle{})} }

// decode decodes the entry that is stored under an index. It returns the applied index in its header, too.
func (d decoder) decode(index uint64, b []byte) (l *raft.Log, applied uint64, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("entry %d cannot be decoded: %v", index, r)
		}
	}()
	l = &raft.Log{}
	d.msgpack.ResetBytes(b)
	if err := d.msgpack.Decode(l); err != nil {
		return nil, 0, fmt.Errorf("entry %d cannot be decoded: %w", index, err)
	}
	applied, err = openEntry(index, l)
	return l, applied, err
}

// sealRecord returns the value of a record.
func sealRecord(key string, b []byte) []byte {
	sealed := make([]byte, recordHeader, recordHeader+len(b))
	sealed[4] = version
	sealed = append(sealed, b...)
	binary.LittleEndian.PutUint32(sealed, sumRecord(key, sealed))
	return sealed
}

func sumRecord(key string, sealed []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, sealed[4:])
}

// openRecord verifies the value of a record and returns its content, or nil if there is no record.
func openRecord(key string, sealed []byte) ([]byte, error) {
	if sealed == nil {
		return nil, nil
	}
	if len(sealed) < recordHeader || binary.LittleEndian.Uint32(sealed) != sumRecord(key, sealed) {
		return nil, fmt.Errorf("the checksum of record %q is wrong", key)
	}
	if err := wire.CheckVersion(key, uint64(sealed[4]), version); err != nil {
		return nil, err
	}
	return sealed[recordHeader:], nil
}

// A state is the record of everything about the log that is not in an entry.
type state struct {
	applied uint64
	// A removal of entries takes several transactions. Until all are done, the entries from low to high do not
	// count; both are 0 if there is no removal.
	low, high uint64
}

func (s state) encode() []byte {
	b := wire.Uint(nil, 1, s.applied)
	b = wire.Uint(b, 2, s.low)
	return wire.Uint(b, 3, s.high)
}

func decodeState(b []byte) (s state, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			s.applied = r.Uint()
		case 2:
			s.low = r.Uint()
		case 3:
			s.high = r.Uint()
		}
	}
	return s, r.Err()
}

// removed reports whether an entry belongs to a removal that is not complete.
func (s state) removed(index uint64) bool { return s.high > 0 && s.low <= index && index <= s.high }
