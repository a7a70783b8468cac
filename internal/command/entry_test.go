// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/golden"
	"github.com/coterie-kv/coterie/internal/wire"
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// sealed returns an entry of these bytes, with a valid checksum.
func sealed(b []byte) []byte {
	e := binary.LittleEndian.AppendUint32([]byte{1}, checksum(b))
	return append(e, b...)
}

func TestEntriesRoundTrip(t *testing.T) {
	all := proposals()
	e := command.NewEntry()
	got, err := decode(e.Bytes())
	require.NoError(t, err)
	require.Empty(t, got)
	for i := range all {
		require.Equal(t, i, e.Len())
		size := e.Size()
		e.Add(&all[i])
		require.Greater(t, e.Size(), size)
		got, err := decode(e.Bytes())
		require.NoError(t, err)
		require.Equal(t, all[:i+1], got)
		require.Len(t, e.Bytes(), e.Size())
	}
	require.Equal(t, entry(all...), e.Bytes(), "equal values have equal bytes")
	require.Equal(t, entry(all[3]), command.Single(&all[3]))
}

func TestGoldenEntry(t *testing.T) {
	got := entry(proposals()...)
	want := golden.File(t, *update, "entry.golden", got)
	require.Equal(t, want, got, "the format has changed: increment its version, or undo the change")
	all, err := decode(want)
	require.NoError(t, err)
	require.Equal(t, proposals(), all)
	require.Equal(t, want, entry(all...))
}

func TestEveryDamageOfEntryIsFound(t *testing.T) {
	b := entry(proposals()...)
	var corrupt *command.CorruptError
	for i := range b {
		all, err := decode(b[:i])
		require.ErrorAs(t, err, &corrupt, "cut at %d", i)
		require.Empty(t, all)
		for mask := 1; mask < 256; mask++ {
			damaged := bytes.Clone(b)
			damaged[i] ^= byte(mask)
			all, err := decode(damaged)
			if i == 0 {
				require.ErrorIs(t, err, wire.ErrFormat)
			} else if !errors.As(err, &corrupt) {
				require.Fail(t, "damage is not found", "%d flipped at %d: %v", mask, i, err)
			}
			if len(all) > 0 {
				require.Fail(t, "a damaged entry has proposals", "%d flipped at %d", mask, i)
			}
		}
	}
	_, err := decode(append(bytes.Clone(b), 0))
	require.ErrorAs(t, err, &corrupt, "something follows the end")
	require.Contains(t, corrupt.Error(), "log entry")
}

func TestEntryOfUnknownVersionIsNamed(t *testing.T) {
	b := entry(proposals()...)
	b[0] = 2
	_, err := decode(b)
	require.ErrorIs(t, err, wire.ErrFormat)
	require.ErrorContains(t, err, "version 2")
}

// A faulty writer may seal proposals of wrong lengths.
func TestProposalBeyondItsEntryIsFound(t *testing.T) {
	var corrupt *command.CorruptError
	for _, b := range [][]byte{{0x80}, {5}, {2, 'x'}, binary.AppendUvarint(nil, 1<<40), bytes.Repeat([]byte{0xff}, 11)} {
		var err error
		size := allocated(func() { _, err = decode(sealed(b)) })
		require.ErrorAs(t, err, &corrupt, "%x", b)
		require.EqualValues(t, 5, corrupt.Offset)
		require.Less(t, size, uint64(64<<10))
	}
}
