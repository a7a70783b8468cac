// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A log entry consists of a byte for the version, the CRC-32C of the rest, and proposals, each preceded
// by its length.
const (
	entryVersion = 1
	entryHeader  = 1 + 4
)

// A CorruptError reports damaged data.
type CorruptError struct {
	What   string
	Offset int64 // where the damage was noticed
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt %s at offset %d", e.What, e.Offset)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// An Entry is a log entry under construction. The zero value is an empty entry.
type Entry struct {
	b     []byte
	count int
}

// NewEntry returns an empty entry.
func NewEntry() *Entry { return &Entry{} }

// Grow makes memory for more proposals. size is the sum of the sizes that CheckSize has returned for their
// commands. Without it, the entry grows like a slice, by copying.
func (e *Entry) Grow(proposals, size int) {
	e.b = slices.Grow(e.b, entryHeader+proposals*proposalOverhead+size)
}

// proposalOverhead is the part of a proposal that CheckSize does not count: its numbers, if they are large, and
// its length.
const proposalOverhead = 16

// Add appends a proposal.
func (e *Entry) Add(p *Proposal) {
	e.begin()
	e.b = wire.LongPrefixed(e.b, p.Command.Op.size(), p.Append)
	e.count++
}

// begin leaves the header free, which Bytes fills.
func (e *Entry) begin() {
	if e.b == nil {
		e.b = make([]byte, 0, 512)
	}
	if len(e.b) == 0 {
		e.b = e.b[:entryHeader]
	}
}

// Len returns the number of proposals.
func (e *Entry) Len() int { return e.count }

// Size returns the number of bytes.
func (e *Entry) Size() int { return max(len(e.b), entryHeader) }

// Bytes completes the entry and returns its encoding.
func (e *Entry) Bytes() []byte {
	e.begin()
	e.b[0] = entryVersion
	binary.LittleEndian.PutUint32(e.b[1:], crc32.Checksum(e.b[entryHeader:], castagnoli))
	return e.b
}

// Single returns an entry with one proposal.
func Single(p *Proposal) []byte {
	e := NewEntry()
	e.Add(p)
	return e.Bytes()
}

// OfCluster returns an entry with one command of the cluster itself, which may be applied repeatedly.
func OfCluster(c Command) []byte { return Single(&Proposal{Command: c}) }

func proposalError(offset int, err error) error {
	err = fmt.Errorf("proposal at offset %d: %w", offset, err)
	if errors.Is(err, ErrUnknown) {
		return fmt.Errorf("%w: %w", &wire.FormatError{What: "log entry", Reads: entryVersion}, err)
	}
	return err
}

// proposals verifies an entry and calls fn with the offset and the bytes of each proposal, until fn
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
	return split(b, fn)
}

// split is proposals for an entry that is verified.
func split(b []byte, fn func(at int, proposal []byte) error) error {
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
