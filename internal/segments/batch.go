// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

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

// A batch collects records for a segment. Its bytes are those of b, and between them the data of large entries, which is
// not copied. It belongs to the writer's goroutine.
type batch struct {
	b     []byte
	large []large
	apart int   // bytes of large
	refs  []ref // of the entries, with offsets in the batch; seal computes their sums

	head, tail []byte   // buffers of entry; sums uses head
	parts      [][]byte // buffer of seal
}

// A large is the data of an entry that follows the first bytes of batch.b.
type large struct {
	after int
	data  []byte
}

// largeData is the size from which the data of an entry is not copied. Below it, two more system calls cost as much as the
// copy.
const largeData = 128 << 10

func newBatch() *batch { return &batch{b: make([]byte, batchHeader, 4<<10)} }

func (b *batch) empty() bool { return len(b.b) == batchHeader }

// size returns the size of the batch without its padding.
func (b *batch) size() int { return len(b.b) + b.apart }

// reset makes the batch empty. The data of its entries must not stay in memory.
func (b *batch) reset() {
	const keep = 4 << 20 // a larger buffer is not kept for the next batch
	if cap(b.b) > keep {
		*b = *newBatch()
	}
	clear(b.large)
	clear(b.parts)
	b.b, b.large, b.apart, b.refs, b.parts = b.b[:batchHeader], b.large[:0], 0, b.refs[:0], b.parts[:0]
}

// The kinds of record. Each record is a message with one of these fields.
const (
	recordEntry    = 1 // adds an entry to the log and removes those at its index and after
	recordTruncate = 2 // removes the entries at an index and after
	recordReset    = 3 // removes all entries
	recordApplied  = 4 // the state machine has applied everything up to an index
)

// entry appends an entry. The entry must not change until the batch is reset.
func (b *batch) entry(l *raft.Log) {
	b.head, b.tail = storage.AppendHead(b.head[:0], l), storage.AppendTail(b.tail[:0], l)
	size := len(b.head) + len(l.Data) + len(b.tail)
	message := wire.SizeOf(recordEntry, size)
	b.b = binary.AppendUvarint(b.b, uint64(message))
	b.refs = append(b.refs, ref{offset: int64(b.size()), size: int32(message)})
	b.b = append(wire.Begin(b.b, recordEntry, size), b.head...)
	if len(l.Data) >= largeData {
		b.large = append(b.large, large{len(b.b), l.Data})
		b.apart += len(l.Data)
	} else {
		b.b = append(b.b, l.Data...)
	}
	b.b = append(b.b, b.tail...)
}

// number appends a record that holds only an index.
func (b *batch) number(kind int, index uint64) {
	b.b = wire.Prefixed(b.b, func(b []byte) []byte {
		return wire.Message(b, kind, func(b []byte) []byte { return wire.Uint(b, 1, index) })
	})
}

// seal completes the batch for a place in a segment, and returns its bytes in parts, and their number. They are valid
// until the batch changes.
func (b *batch) seal(at place) (parts [][]byte, size int64) {
	whole := b.b // a batch that is sealed again, for a retry, has no padding yet
	for range align(int64(b.size())) - int64(b.size()) {
		whole = append(whole, 0)
	}
	b.parts = b.parts[:0]
	done := 0
	for _, l := range b.large {
		b.parts = append(b.parts, whole[done:l.after], l.data)
		done = l.after
	}
	b.parts = append(b.parts, whole[done:])
	binary.LittleEndian.PutUint32(whole[0:], batchMagic)
	binary.LittleEndian.PutUint32(whole[4:], uint32(b.size()-batchHeader))
	binary.LittleEndian.PutUint32(whole[8:], b.sums(at))
	return b.parts, int64(b.size() + len(whole) - len(b.b))
}

// sums returns the CRC of the batch at a place, and sets those of its entries. One pass computes both: it notes the CRC
// of everything before each entry and up to its end.
func (b *batch) sums(at place) uint32 {
	b.head = at.append(b.head[:0])
	rest := remainder{sum: crc32.Checksum(b.head, castagnoli), part: b.parts[0][batchHeader:], parts: b.parts[1:]}
	done := int64(batchHeader)
	for i := range b.refs {
		r := &b.refs[i]
		r.before = rest.add(r.offset - done)
		r.after = rest.add(int64(r.size))
		done = r.offset + int64(r.size)
	}
	return rest.add(int64(b.size()) - done)
}

// A remainder is the rest of a text in parts, and the CRC of everything before it.
type remainder struct {
	sum   uint32
	part  []byte
	parts [][]byte // after part
}

// add moves the next n bytes to the CRC, and returns it.
func (r *remainder) add(n int64) (sum uint32) {
	for n > 0 {
		if len(r.part) == 0 {
			r.part, r.parts = r.parts[0], r.parts[1:]
		}
		next := r.part[:min(n, int64(len(r.part)))]
		r.sum = crc32.Update(r.sum, castagnoli, next)
		r.part = r.part[len(next):]
		n -= int64(len(next))
	}
	return r.sum
}

// A place is the position of a batch: its segment and its offset there.
type place struct {
	salt   uint64 // of the segment
	offset int64
}

func (p place) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, p.salt)
	return binary.LittleEndian.AppendUint64(b, uint64(p.offset))
}

func (p place) sum(body []byte) uint32 {
	return crc32.Update(crc32.Checksum(p.append(nil), castagnoli), castagnoli, body)
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
