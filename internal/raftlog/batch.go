// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/wire"
)

// The format of a segment: a header, and batches, each at a multiple of eight bytes. A batch is what
// one write brings to the disk: a magic, its length and its CRC-32C, and records, each with its
// length before it. The CRC covers where the batch stands, too: in which segment, at which offset. A
// batch is written only when the one before it is durable; so of several that are damaged or
// missing, all but the last cannot be the work of a crash. The header says where the segment before
// ends: without its last batches it would else seem whole.
const (
	segmentHeader = 32 // magic, version, 0, sequence, salt, end of the one before, CRC-32C of that
	batchMagic    = 0xc07e91eb
	batchHeader   = 12
	batchAlign    = 8
)

var segmentFormat = wire.Format{What: "segment", Magic: "COTLOG", Version: 1}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A batch is records on their way to a segment.
type batch struct{ b []byte }

func newBatch() *batch { return &batch{make([]byte, batchHeader, 4<<10)} }

func (b *batch) empty() bool { return len(b.b) == batchHeader }

func (b *batch) reset() {
	const keep = 4 << 20 // more is not kept for the next
	if cap(b.b) > keep {
		*b = *newBatch()
	}
	b.b = b.b[:batchHeader]
}

// The kinds of record: each is a message with one of these fields.
const (
	recordEntry    = 1 // an entry of the log: those at its index and after go
	recordTruncate = 2 // the entries at an index and after go
	recordReset    = 3 // all entries go
	recordApplied  = 4 // the state machine has applied what comes up to an index
)

// entry appends an entry, and returns where in the batch its message is.
func (b *batch) entry(l *raft.Log) ref {
	var size int
	b.b = wire.Prefixed(b.b, func(b []byte) []byte {
		start := len(b)
		b = wire.Message(b, recordEntry, func(b []byte) []byte { return AppendEntry(b, l) })
		size = len(b) - start
		return b
	})
	at := len(b.b) - size
	return ref{offset: int64(at), size: int32(size), sum: crc32.Checksum(b.b[at:], castagnoli)}
}

// number appends one of the records that have but an index.
func (b *batch) number(kind int, index uint64) {
	b.b = wire.Prefixed(b.b, func(b []byte) []byte {
		return wire.Message(b, kind, func(b []byte) []byte { return wire.Uint(b, 1, index) })
	})
}

// seal finishes the batch for a place.
func (b *batch) seal(at place) []byte {
	body := b.b[batchHeader:]
	binary.LittleEndian.PutUint32(b.b[0:], batchMagic)
	binary.LittleEndian.PutUint32(b.b[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b.b[8:], at.sum(body))
	sealed := b.b // a batch that is sealed once more, for another try, has no padding yet
	for len(sealed)%batchAlign != 0 {
		sealed = append(sealed, 0)
	}
	return sealed
}

// A place is where a batch stands.
type place struct {
	salt   uint64 // of the segment
	offset int64
}

func (p place) sum(body []byte) uint32 {
	var where [16]byte
	binary.LittleEndian.PutUint64(where[0:], p.salt)
	binary.LittleEndian.PutUint64(where[8:], uint64(p.offset))
	return crc32.Update(crc32.Checksum(where[:], castagnoli), castagnoli, body)
}

// open returns the body of the batch at a place of a segment's bytes, and where it ends; false if no
// whole batch is there.
func (p place) open(segment []byte) (body []byte, end int64, ok bool) {
	rest := segment[p.offset:]
	if len(rest) < batchHeader || binary.LittleEndian.Uint32(rest) != batchMagic {
		return nil, 0, false
	}
	size := int64(binary.LittleEndian.Uint32(rest[4:]))
	if size > int64(len(rest)-batchHeader) {
		return nil, 0, false
	}
	body = rest[batchHeader : batchHeader+size]
	if p.sum(body) != binary.LittleEndian.Uint32(rest[8:]) {
		return nil, 0, false
	}
	return body, align(p.offset + batchHeader + size), true
}

func align(n int64) int64 { return (n + batchAlign - 1) / batchAlign * batchAlign }

// A record is what decodeRecords finds.
type record struct {
	kind  int
	index uint64
	at    int // of an entry, where its message begins in the body
	size  int // of it
}

// decodeRecords calls fn with each record of a batch's body. Unknown kinds are skipped.
func decodeRecords(body []byte, fn func(r record, message []byte) error) error {
	for at := 0; at < len(body); {
		size, n := binary.Uvarint(body[at:])
		if n <= 0 || size > uint64(len(body)-at-n) {
			return fmt.Errorf("%w: record at %d", wire.ErrMalformed, at)
		}
		at += n
		message := body[at : at+int(size)]
		fields := wire.NewReader(message)
		for fields.Next() {
			inner := wire.NewReader(fields.Bytes())
			r := record{kind: fields.Field(), at: at, size: int(size)}
			for inner.Next() {
				if inner.Field() == 1 {
					r.index = inner.Uint()
				}
			}
			if inner.Err() != nil {
				return inner.Err()
			}
			if err := fn(r, message); err != nil {
				return err
			}
		}
		if fields.Err() != nil {
			return fields.Err()
		}
		at += int(size)
	}
	return nil
}

// readEntry reads the entry of a record's message, whose memory it shares.
func readEntry(message []byte) (*raft.Log, error) {
	l := &raft.Log{}
	fields := wire.NewReader(message)
	for fields.Next() {
		if fields.Field() != recordEntry {
			continue
		}
		var err error
		if l, err = DecodeEntry(fields.Bytes()); err != nil {
			return nil, err
		}
	}
	if fields.Err() == nil && l.Index == 0 {
		return nil, wire.ErrMalformed
	}
	return l, fields.Err()
}
