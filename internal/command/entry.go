// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/coterie-kv/coterie/internal/wire"
)

// The format of an entry of the log: a byte for the version, the CRC-32C of what follows, and
// proposals, each with its length before it.
const (
	entryVersion = 1
	entryHeader  = 1 + 4
)

// A CorruptError says that data is damaged.
type CorruptError struct {
	What   string
	Offset int64 // where it was noticed
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("command: corrupt %s at offset %d", e.What, e.Offset)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// An Entry is an entry of the log in the making.
type Entry struct {
	b     []byte
	count int
}

// NewEntry returns an empty entry.
func NewEntry() *Entry { return &Entry{b: make([]byte, entryHeader, 512)} }

// Add appends a proposal.
func (e *Entry) Add(p *Proposal) {
	e.b = wire.Prefixed(e.b, p.Append)
	e.count++
}

// Len returns how many proposals the entry has.
func (e *Entry) Len() int { return e.count }

// Size returns how many bytes the entry has.
func (e *Entry) Size() int { return len(e.b) }

// Bytes returns the entry, finished.
func (e *Entry) Bytes() []byte {
	e.b[0] = entryVersion
	binary.LittleEndian.PutUint32(e.b[1:], crc32.Checksum(e.b[entryHeader:], castagnoli))
	return e.b
}

// Single returns an entry of one proposal.
func Single(p *Proposal) []byte {
	e := NewEntry()
	e.Add(p)
	return e.Bytes()
}

// DecodeEntry calls fn with each proposal of an entry, until it returns an error. The proposal is
// fn's only until it returns, what it points to for good.
//
// Errors: *CorruptError, *wire.FormatError, also with ErrUnknown, or fn's. Nothing is told of a damaged
// entry.
func DecodeEntry(b []byte, fn func(*Proposal) error) error {
	var p Proposal
	return proposals(b, func(at int, b []byte) error {
		if err := p.Decode(b); err != nil {
			return proposalError(at, err)
		}
		return fn(&p)
	})
}

func proposalError(offset int, err error) error {
	err = fmt.Errorf("command: proposal at offset %d: %w", offset, err)
	if errors.Is(err, ErrUnknown) {
		return fmt.Errorf("%w: %w", &wire.FormatError{What: "log entry", Reads: entryVersion}, err)
	}
	return err
}

// proposals verifies an entry and calls fn with the offset and the bytes of each proposal, until it
// returns an error.
func proposals(b []byte, fn func(at int, proposal []byte) error) error {
	if len(b) < entryHeader {
		return &CorruptError{"log entry", 0}
	}
	if err := wire.CheckVersion("log entry", uint64(b[0]), entryVersion); err != nil {
		return err
	}
	if crc32.Checksum(b[entryHeader:], castagnoli) != binary.LittleEndian.Uint32(b[1:]) {
		return &CorruptError{"log entry", 1}
	}
	for rest := b[entryHeader:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return &CorruptError{"log entry", int64(len(b) - len(rest))}
		}
		if err := fn(len(b)-len(rest), rest[n:n+int(size)]); err != nil {
			return err
		}
		rest = rest[n+int(size):]
	}
	return nil
}
