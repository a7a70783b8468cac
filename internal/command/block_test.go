// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/golden"
	"github.com/coterie-kv/coterie/internal/wire"
)

// sampleRecords are records as in a snapshot.
func sampleRecords() [][]byte {
	return [][]byte{command.AppendKeyValue(nil, keyValue()), {}, result().Append(nil)}
}

// large returns records that fill several blocks. One is longer than the target size of a block.
func large() (all [][]byte) {
	for i := range 300 {
		all = append(all, bytes.Repeat([]byte{byte(i)}, i*5))
	}
	return append(all, bytes.Repeat([]byte("long"), 50_000), nil, []byte("last"))
}

func TestBlocksRoundTrip(t *testing.T) {
	for _, want := range [][][]byte{nil, {{}}, sampleRecords(), large()} {
		b := stream(t, want...)
		got, err := records(b)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i := range want {
			require.True(t, bytes.Equal(want[i], got[i]), "record %d", i)
		}
		require.Equal(t, b, stream(t, got...), "equal records have equal bytes")
	}
}

func TestGoldenBlocks(t *testing.T) {
	got := stream(t, sampleRecords()...)
	want := golden.File(t, *update, "blocks.golden", got)
	require.Equal(t, want, got, "the format has changed: increment its version, or undo the change")
	all, err := records(want)
	require.NoError(t, err)
	require.Len(t, all, 3)
	kv, err := command.DecodeKeyValue(all[0])
	require.NoError(t, err)
	require.Equal(t, keyValue(), kv)
	r, err := command.DecodeResult(all[2])
	require.NoError(t, err)
	require.Equal(t, result(), r)
	require.Equal(t, want, stream(t, command.AppendKeyValue(nil, kv), all[1], r.Append(nil)))
}

// found checks that the reader detects the damage.
func found(t *testing.T, b []byte, what string, at int) {
	t.Helper()
	var corrupt *command.CorruptError
	if _, err := records(b); !errors.As(err, &corrupt) && !errors.Is(err, wire.ErrFormat) {
		require.Fail(t, "damage is not found", "%s at %d: %v", what, at, err)
	}
}

func TestEveryDamageOfBlocksIsFound(t *testing.T) {
	b := stream(t, sampleRecords()...)
	for i := range b {
		found(t, b[:i], "cut", i)
		for _, mask := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			damaged := bytes.Clone(b)
			damaged[i] ^= mask
			found(t, damaged, "flipped", i)
		}
	}
	found(t, append(bytes.Clone(b), 0), "more", len(b))
	found(t, append(bytes.Clone(b), b...), "another stream", len(b))
}

func TestDamageOfManyBlocksIsFound(t *testing.T) {
	b := stream(t, large()...)
	for i := 0; i < len(b); i += 4001 {
		found(t, b[:i], "cut", i)
		b[i] ^= 0x10
		found(t, b, "flipped", i)
		b[i] ^= 0x10
	}
}

// splitBlocks returns the head of a stream, its blocks with their headers, and its closing block.
func splitBlocks(b []byte) (head []byte, blocks [][]byte, end []byte) {
	head, b = b[:8], b[8:]
	for {
		size := int(binary.LittleEndian.Uint32(b)) + 8
		if size == 8 {
			return head, blocks, b
		}
		blocks = append(blocks, b[:size])
		b = b[size:]
	}
}

func TestMissingBlockIsFound(t *testing.T) {
	head, blocks, end := splitBlocks(stream(t, large()...))
	require.Greater(t, len(blocks), 2)
	for missing := range blocks {
		b := bytes.Clone(head)
		for i, block := range blocks {
			if i != missing {
				b = append(b, block...)
			}
		}
		found(t, append(b, end...), "missing block", missing)
	}
	twice := append(bytes.Clone(head), blocks[0]...)
	for _, block := range blocks {
		twice = append(twice, block...)
	}
	found(t, append(twice, end...), "block twice", 0)
}

func TestStreamOfUnknownVersionIsNamed(t *testing.T) {
	b := stream(t, sampleRecords()...)
	b[7] = 3
	_, err := records(b)
	require.ErrorIs(t, err, wire.ErrFormat)
	require.ErrorContains(t, err, "version 3")
}

// An earlier version of this program rejects a stream of version 2 because of this byte.
func TestStreamsDifferInTheVersionOnly(t *testing.T) {
	one := stream(t, sampleRecords()...)
	var two bytes.Buffer
	w := command.NewBlockWriterOf(&two, command.Blocks2)
	for _, r := range sampleRecords() {
		require.NoError(t, w.Record(func(b []byte) []byte { return append(b, r...) }))
	}
	_, err := w.Close()
	require.NoError(t, err)
	require.Equal(t, []byte{command.Blocks1, command.Blocks2}, []byte{one[7], two.Bytes()[7]})
	got, err := records(two.Bytes())
	require.NoError(t, err)
	require.Len(t, got, len(sampleRecords()))
	two.Bytes()[7] = command.Blocks1
	require.Equal(t, one, two.Bytes())
}

// block returns a block with the given length and a valid checksum.
func block(length uint32, b []byte) []byte {
	header := binary.LittleEndian.AppendUint32(nil, length)
	return append(binary.LittleEndian.AppendUint32(header, checksum(b)), b...)
}

func TestLengthBeyondStreamTakesNoMemory(t *testing.T) {
	const head = "COTERIE\x01"
	for name, b := range map[string][]byte{
		"a block that is cut off": block(1<<30, []byte("x")),
		"a block too long":        block(1<<30+1, []byte("x")),
		"the longest block":       block(math.MaxUint32, []byte("x")),
		"a record too long":       block(2, []byte{2, 'x'}),
		"a record far too long":   block(6, binary.AppendUvarint(nil, 1<<40)),
		"a record without length": block(1, []byte{0x80}),
		"no length":               block(11, bytes.Repeat([]byte{0xff}, 11)),
	} {
		var corrupt *command.CorruptError
		var err error
		size := allocated(func() { _, err = records(append([]byte(head), b...)) })
		require.ErrorAs(t, err, &corrupt, name)
		require.Less(t, size, uint64(1<<20), name)
	}
}

func TestErrorsOfStreamAreReported(t *testing.T) {
	broken := errors.New("broken")
	b := stream(t, large()...)
	none := func([]byte) error { return nil }
	for _, n := range []int{0, 4, 8, 12, 16, 1000, 100_000, len(b) - 12, len(b) - 4, len(b)} {
		r := io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))
		require.ErrorIs(t, command.ReadBlocks(r, none), broken, "after %d bytes", n)
	}
	calls := 0
	err := command.ReadBlocks(iotest.OneByteReader(bytes.NewReader(b)), func([]byte) error {
		if calls++; calls == 200 {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, err, broken)
	require.Equal(t, 200, calls)
}

// full is a disk with space for this many bytes.
type full int

func (f *full) Write(b []byte) (int, error) {
	if *f -= full(len(b)); *f < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestFullDiskIsReportedByClose(t *testing.T) {
	size := len(stream(t, large()...))
	for _, room := range []int{0, 7, 70_000, size - 1} {
		left := full(room)
		w := command.NewBlockWriter(&left)
		for _, r := range large() {
			if w.Record(func(b []byte) []byte { return append(b, r...) }) != nil {
				break
			}
		}
		_, err := w.Close()
		require.ErrorIs(t, err, io.ErrShortWrite, "space for %d", room)
	}
}
