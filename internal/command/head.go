// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A head precedes a stream of records in a file and describes it: a magic number with a version, zeros,
// the length and the CRC-32C of a message, and the message.
const (
	// HeadMagic is the size of the magic number with its version, and HeadSize the size of everything
	// before the message.
	HeadMagic = 8
	HeadSize  = HeadMagic + 8
	maxHead   = 1 << 20
)

// AppendHead appends a head with the message that encode appends.
func AppendHead(b []byte, format wire.Format, encode func(b []byte) []byte) []byte {
	start := len(b)
	b = encode(format.Append(b, HeadSize))
	head := b[start:]
	binary.LittleEndian.PutUint32(head[HeadMagic:], uint32(len(head)-HeadSize))
	binary.LittleEndian.PutUint32(head[HeadMagic+4:], crc32.Checksum(head[HeadSize:], castagnoli))
	return b
}

// ReadHead reads a head and returns its message. It reads nothing after the head.
//
// Errors: *CorruptError, *wire.FormatError, or an error of r.
func ReadHead(r io.Reader, format wire.Format) ([]byte, error) {
	head := make([]byte, HeadSize)
	if err := readFull(r, head, 0); err != nil {
		return nil, err
	}
	if err := checkFormat(format, head[:HeadMagic]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(head[HeadMagic:])
	if size > maxHead {
		return nil, &CorruptError{"head", HeadMagic}
	}
	message := make([]byte, size)
	if err := readFull(r, message, HeadSize); err != nil {
		return nil, err
	}
	if crc32.Checksum(message, castagnoli) != binary.LittleEndian.Uint32(head[HeadMagic+4:]) {
		return nil, &CorruptError{"head", HeadSize}
	}
	return message, nil
}

// checkFormat checks the magic number, the version and the zeros at the beginning of a file.
//
// Errors: *CorruptError, *wire.FormatError.
func checkFormat(format wire.Format, b []byte) error {
	err := format.Check(b)
	if errors.Is(err, wire.ErrMalformed) || err == nil && string(b) != string(format.Append(nil, len(b))) {
		return &CorruptError{"magic", 0}
	}
	return err
}

// readFull fills b with the bytes at an offset of r.
func readFull(r io.Reader, b []byte, offset int64) error {
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &CorruptError{"head: it is cut off", offset + int64(n)}
	}
	return err
}
