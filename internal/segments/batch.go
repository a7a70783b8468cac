// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A segment has a header and batches, each at a multiple of eight bytes. One write to the disk is one
// batch: a magic number, its length, its CRC-32C, and records, each preceded by its length. The CRC also
// covers the segment and the offset of the batch. A batch is written only after the previous one is
// durable, so if several are damaged or missing, a crash explains only the last. The header holds the end
// of the previous segment; otherwise a segment without its last batches would look complete.
const (
	segmentHeader = 32 // magic, version, 0, sequence, salt, end of the previous segment, CRC-32C of the header before it
	batchMagic    = 0xc07e91eb
	batchHeader   = 12
	batchAlign    = 8
)

var segmentFormat = wire.Format{What: "segment", Magic: "COTLOG", Version: 1}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A batch collects records for a segment.
type batch struct{ b []byte }

func newBatch() *batch { return &batch{make([]byte, batchHeader, 4<<10)} }

func (b *batch) empty() bool { return len(b.b) == batchHeader }

func (b *batch) reset() {
	const keep = 4 << 20 // a larger buffer is not kept for the next batch
	if cap(b.b) > keep {
		*b = *newBatch()
	}
	b.b = b.b[:batchHeader]
}

// The kinds of record. Each record is a message with one of these fields.
const (
	recordEntry    = 1 // adds an entry to the log and removes those at its index and after
	recordTruncate = 2 // removes the entries at an index and after
	recordReset    = 3 // removes all entries
	recordApplied  = 4 // the state machine has applied everything up to an index
)

// entry appends an entry, and returns the position of its message in the batch.
func (b *batch) entry(l *raft.Log) ref {
	about := storage.SizeOf(l)
	b.b = slices.Grow(b.b, about)
	var size int
	b.b = wire.LongPrefixed(b.b, about, func(b []byte) []byte {
		start := len(b)
		b = wire.LongMessage(b, recordEntry, about, func(b []byte) []byte { return storage.AppendEntry(b, l) })
		size = len(b) - start
		return b
	})
	at := len(b.b) - size
	return ref{offset: int64(at), size: int32(size), sum: crc32.Checksum(b.b[at:], castagnoli)}
}

// number appends a record that holds only an index.
func (b *batch) number(kind int, index uint64) {
	b.b = wire.Prefixed(b.b, func(b []byte) []byte {
		return wire.Message(b, kind, func(b []byte) []byte { return wire.Uint(b, 1, index) })
	})
}

// seal completes the batch for a place in a segment.
func (b *batch) seal(at place) []byte {
	body := b.b[batchHeader:]
	binary.LittleEndian.PutUint32(b.b[0:], batchMagic)
	binary.LittleEndian.PutUint32(b.b[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b.b[8:], at.sum(body))
	sealed := b.b // a batch that is sealed again, for a retry, has no padding yet
	for len(sealed)%batchAlign != 0 {
		sealed = append(sealed, 0)
	}
	return sealed
}

// A place is the position of a batch: its segment and its offset there.
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

// open returns the body of the batch at a place in the bytes of a segment, and the end of the batch. It
// returns false if there is no whole batch.
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

// A record is one record of a batch, as decodeRecords finds it.
type record struct {
	kind  int
	index uint64
	at    int // where the message of an entry begins in the body
	size  int // of the message
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

// readEntry decodes the entry in the message of a record. The entry shares the memory of the message.
func readEntry(message []byte) (*raft.Log, error) {
	l := &raft.Log{}
	fields := wire.NewReader(message)
	for fields.Next() {
		if fields.Field() != recordEntry {
			continue
		}
		var err error
		if l, err = storage.DecodeEntry(fields.Bytes()); err != nil {
			return nil, err
		}
	}
	if fields.Err() == nil && l.Index == 0 {
		return nil, wire.ErrMalformed
	}
	return l, fields.Err()
}
