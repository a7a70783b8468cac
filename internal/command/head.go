// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A head stands in a file before a stream of records, and says of what it is: a magic, whose last
// bytes are a version; the length and the CRC-32C of a message; and the message.
const (
	// HeadMagic is how many bytes a magic has, and HeadSize how many stand before the message.
	HeadMagic = 8
	HeadSize  = HeadMagic + 8
	maxHead   = 1 << 20
)

// AppendHead appends a head whose message is what encode appends.
func AppendHead(b []byte, magic string, encode func(b []byte) []byte) []byte {
	start := len(b)
	b = encode(append(append(b, magic...), make([]byte, HeadSize-HeadMagic)...))
	head := b[start:]
	binary.LittleEndian.PutUint32(head[HeadMagic:], uint32(len(head)-HeadSize))
	binary.LittleEndian.PutUint32(head[HeadMagic+4:], crc32.Checksum(head[HeadSize:], castagnoli))
	return b
}

// ReadHead reads a head and returns its message. What follows is not touched.
//
// Errors: *CorruptError, or r's.
func ReadHead(r io.Reader, magic string) ([]byte, error) {
	head := make([]byte, HeadSize)
	if err := readFull(r, head, 0); err != nil {
		return nil, err
	}
	if string(head[:HeadMagic]) != magic {
		return nil, &CorruptError{"magic", 0}
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

// readFull fills b with what stands at an offset of r.
func readFull(r io.Reader, b []byte, offset int64) error {
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &CorruptError{"head: it is cut off", offset + int64(n)}
	}
	return err
}
