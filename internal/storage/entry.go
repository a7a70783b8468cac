// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/wire"
)

// SizeOf returns about how many bytes AppendEntry appends for an entry.
func SizeOf(l *raft.Log) int {
	const others = 24 // of the fields beside the data of an entry of a usual log, in which indexes take three bytes
	return len(l.Data) + len(l.Extensions) + others
}

// AppendEntry appends the encoding of an entry of raft's log to b. Every format and the network use the same
// encoding.
func AppendEntry(b []byte, l *raft.Log) []byte {
	return AppendTail(append(AppendHead(b, l), l.Data...), l)
}

// AppendHead appends the part of an entry's encoding before its data.
func AppendHead(b []byte, l *raft.Log) []byte {
	b = wire.Uint(b, 1, l.Index)
	b = wire.Uint(b, 2, l.Term)
	b = wire.Uint(b, 3, uint64(l.Type))
	if len(l.Data) > 0 {
		b = wire.Begin(b, 4, len(l.Data))
	}
	return b
}

// AppendTail appends the part of an entry's encoding after its data.
func AppendTail(b []byte, l *raft.Log) []byte {
	b = wire.Text(b, 5, l.Extensions)
	if !l.AppendedAt.IsZero() {
		b = wire.Int(b, 6, l.AppendedAt.UnixNano())
	}
	return b
}

// DecodeEntry decodes an entry, which shares the memory of b. It does not check the contents of the entry.
func DecodeEntry(b []byte) (*raft.Log, error) {
	l := &raft.Log{}
	return l, ReadEntry(b, l)
}

// ReadEntry decodes an entry into l, which is zero. Apart from that it does the same as DecodeEntry.
func ReadEntry(b []byte, l *raft.Log) error {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			l.Index = r.Uint()
		case 2:
			l.Term = r.Uint()
		case 3:
			l.Type = raft.LogType(min(r.Uint(), 255))
		case 4:
			l.Data = r.Bytes()
		case 5:
			l.Extensions = r.Bytes()
		case 6:
			l.AppendedAt = time.Unix(0, r.Int())
		}
	}
	return r.Err()
}
