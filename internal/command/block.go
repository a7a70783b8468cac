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

// The format of a stream of records, in which a snapshot is written: the magic with a version as
// its last byte; blocks of records, each record with its length before it, each block with its
// length and its CRC-32C; and a closing block of length 0 with the number of records and the
// CRC-32C of that.
const (
	blockTarget = 64 << 10
	// maxBlock bounds what a reader believes: the largest record is a key with its value, or the
	// result of a command.
	maxBlock = 1 << 30
)

var blockFormat = wire.Format{What: "stream of records", Magic: "COTERIE", Version: 1}

// blockMagic is how many bytes a stream begins with.
const blockMagic = 8

// A BlockWriter writes records. Close ends the stream; without it a reader takes it for cut off.
type BlockWriter struct {
	w       *bufio.Writer
	block   []byte
	records uint64
	written int64
	err     error
}

// NewBlockWriter begins a stream.
func NewBlockWriter(w io.Writer) *BlockWriter {
	bw := &BlockWriter{w: bufio.NewWriterSize(w, blockTarget)}
	bw.write(blockFormat.Append(nil, blockMagic))
	return bw
}

func (w *BlockWriter) write(b []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(b)
		w.written += int64(len(b))
	}
}

// Record appends a record, encoded by encode. One that no reader would believe is an error.
func (w *BlockWriter) Record(encode func(b []byte) []byte) error {
	w.block = wire.Prefixed(w.block, encode)
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

// Close ends the stream and returns how many bytes it has. It does not close what is written to.
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

// ReadBlocks calls fn with each record of a stream, until it returns an error. A record is fn's
// only until it returns. It returns nil only when the stream was whole to its last byte.
//
// Errors: *CorruptError, *wire.FormatError, fn's, or r's.
func ReadBlocks(r io.Reader, fn func(record []byte) error) error {
	br := blockReader{r: bufio.NewReaderSize(r, blockTarget)}
	var magic [blockMagic]byte
	if err := br.read(magic[:]); err != nil {
		return err
	}
	if err := checkFormat(blockFormat, magic[:]); err != nil {
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

// block reads a block; nil is the closing one, with what is in the place of its checksum.
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
	// The buffer grows with what arrives, not with what a damaged length announces.
	r.buffer.Reset()
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

// end reads the rest of the closing block, of which low was read, and makes sure that nothing
// follows.
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
