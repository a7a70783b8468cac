// SPDX-License-Identifier: Apache-2.0

package command

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A stream of records is the format of snapshots. It begins with a magic number, with a
// version as its last byte. Blocks of records follow, each record preceded by its length, each block by
// its length and its CRC-32C. A closing block of length 0 has the number of records and its CRC-32C.
const (
	blockTarget = 64 << 10
	// blockMemory is the memory for a block without a large record at its end.
	blockMemory = blockTarget + blockTarget/8
	// maxBlock bounds the block lengths that a reader accepts. The largest record is a key with its
	// value, or the result of a command.
	maxBlock = 1 << 30
)

// The versions of a stream. A writer chooses the oldest one that suffices, so that earlier versions of this
// program can read the stream.
const (
	Blocks1 byte = 1
	Blocks2 byte = 2 // the stream has records that a reader of version 1 must not skip
)

func blockFormat(version byte) wire.Format {
	return wire.Format{What: "stream of records", Magic: "COTERIE", Version: version}
}

// blockMagic is the number of bytes before the first block; the last one is the version.
const blockMagic = 8

// A BlockWriter writes records. Close ends the stream; without it a reader reports the stream as cut off.
type BlockWriter struct {
	w       *bufio.Writer
	block   []byte
	records uint64
	written int64
	err     error
}

// NewBlockWriter begins a stream of version 1.
func NewBlockWriter(w io.Writer) *BlockWriter { return NewBlockWriterOf(w, Blocks1) }

// NewBlockWriterOf begins a stream of a version.
func NewBlockWriterOf(w io.Writer, version byte) *BlockWriter {
	bw := &BlockWriter{w: bufio.NewWriterSize(w, blockTarget), block: make([]byte, 0, blockMemory)}
	bw.write(blockFormat(version).Append(nil, blockMagic))
	return bw
}

func (w *BlockWriter) write(b []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
		w.written += int64(len(b))
	}
}

// Record appends a record, which encode appends to a buffer. It returns an error if the record is too large for
// a reader.
func (w *BlockWriter) Record(encode func(b []byte) []byte) error { return w.LongRecord(0, encode) }

// LongRecord is Record for a record of about size bytes. See wire.LongPrefixed.
func (w *BlockWriter) LongRecord(size int, encode func(b []byte) []byte) error {
	w.block = wire.LongPrefixed(w.block, size, encode)
	w.records++
	if len(w.block) > maxBlock && w.err == nil {
		w.err = fmt.Errorf("command: a block of %d bytes", len(w.block))
	}
	if len(w.block) >= blockTarget {
		w.flush()
	}
	return w.err
}

func (w *BlockWriter) flush() {
	if len(w.block) == 0 {
		return
	}
	var header [8]byte
	binary.LittleEndian.PutUint32(header[0:], uint32(len(w.block)))
	binary.LittleEndian.PutUint32(header[4:], crc32.Checksum(w.block, castagnoli))
	w.write(header[:])
	w.write(w.block)
	w.block = w.block[:0]
}

// Close ends the stream and returns its size in bytes. It does not close the underlying writer.
func (w *BlockWriter) Close() (int64, error) {
	w.flush()
	var end [16]byte
	binary.LittleEndian.PutUint64(end[4:], w.records)
	binary.LittleEndian.PutUint32(end[12:], crc32.Checksum(end[4:12], castagnoli))
	w.write(end[:])
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.written, w.err
}

// ReadBlocks calls fn with each record of a stream, until fn returns an error. fn must not keep the
// record. ReadBlocks returns nil only if the stream is intact to its last byte.
//
// Errors: *CorruptError, *wire.FormatError, an error of fn, or an error of r.
func ReadBlocks(r io.Reader, fn func(record []byte) error) error {
	br := blockReader{r: bufio.NewReaderSize(r, blockTarget)}
	var magic [blockMagic]byte
	if err := br.read(magic[:]); err != nil {
		return err
	}
	format := blockFormat(Blocks2)
	if magic[blockMagic-1] == Blocks1 {
		format.Version = Blocks1
	}
	if err := checkFormat(format, magic[:]); err != nil {
		return err
	}
	for records := uint64(0); ; {
		block, sum, err := br.block()
		if err != nil {
			return err
		}
		if block == nil {
			return br.end(sum, records)
		}
		for rest := block; len(rest) > 0; records++ {
			size, n := binary.Uvarint(rest)
			if n <= 0 || size > uint64(len(rest)-n) {
				return br.corrupt("record")
			}
			if err := fn(rest[n : n+int(size)]); err != nil {
				return err
			}
			rest = rest[n+int(size):]
		}
	}
}

type blockReader struct {
	r      *bufio.Reader
	offset int64
	buffer bytes.Buffer
}

func (r *blockReader) corrupt(what string) error { return &CorruptError{what, r.offset} }

func (r *blockReader) read(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.offset += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.corrupt("stream: it is cut off")
	}
	return err
}

// block reads a block. For the closing block it returns nil and the bytes in place of its checksum.
func (r *blockReader) block() (block []byte, sum uint32, err error) {
	var header [8]byte
	if err := r.read(header[:]); err != nil {
		return nil, 0, err
	}
	size := binary.LittleEndian.Uint32(header[0:])
	sum = binary.LittleEndian.Uint32(header[4:])
	if size == 0 {
		return nil, sum, nil
	}
	if size > maxBlock {
		return nil, 0, r.corrupt("block length")
	}
	// The buffer of a large block grows with the data that arrives, not with a length that may be damaged.
	r.buffer.Reset()
	r.buffer.Grow(min(int(size), blockMemory) + bytes.MinRead)
	n, err := io.CopyN(&r.buffer, r.r, int64(size))
	r.offset += n
	if errors.Is(err, io.EOF) {
		return nil, 0, r.corrupt("stream: it is cut off")
	}
	if err != nil {
		return nil, 0, err
	}
	if crc32.Checksum(r.buffer.Bytes(), castagnoli) != sum {
		return nil, 0, r.corrupt("block")
	}
	return r.buffer.Bytes(), sum, nil
}

// end reads the rest of the closing block after its first bytes, low, and checks that nothing follows.
func (r *blockReader) end(low uint32, records uint64) error {
	var end [8]byte
	if err := r.read(end[:]); err != nil {
		return err
	}
	var count [8]byte
	binary.LittleEndian.PutUint32(count[0:], low)
	copy(count[4:], end[:4])
	if crc32.Checksum(count[:], castagnoli) != binary.LittleEndian.Uint32(end[4:]) || binary.LittleEndian.Uint64(count[:]) != records {
		return r.corrupt("closing block")
	}
	if _, err := r.r.ReadByte(); err != io.EOF {
		if err != nil {
			return err
		}
		return r.corrupt("stream: something follows its end")
	}
	return nil
}
