// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"runtime"
	"slices"
	"testing"
	"weak"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// The checksum covers the place of a batch, so a batch from earlier contents of the blocks is rejected.
func TestMisplacedBatchIsDamage(t *testing.T) {
	b := newBatch()
	b.entry(storagetest.Entry(1, 1))
	whole := sealed(b, place{7, 24})
	segment := append(make([]byte, 24), whole...)
	_, _, ok := place{7, 24}.open(segment)
	require.True(t, ok)
	_, _, ok = place{8, 24}.open(segment)
	require.False(t, ok)
	_, _, ok = place{7, 32}.open(append(make([]byte, 32), whole...))
	require.False(t, ok)
}

// A batch has the same bytes whether or not it copies the data of its entries.
func TestBatchOfLargeEntries(t *testing.T) {
	all := []*raft.Log{
		storagetest.Entry(1, 1), sized(2, largeData), sized(3, 3*largeData+5), sized(4, largeData-1), sized(5, 0), sized(6, largeData),
	}
	var body []byte
	for _, l := range all {
		message := wire.LongMessage(nil, recordEntry, 0, func(b []byte) []byte { return storage.AppendEntry(b, l) })
		body = append(binary.AppendUvarint(body, uint64(len(message))), message...)
	}
	for size := range batchAlign { // of the padding
		b := newBatch()
		for _, l := range all {
			b.entry(l)
		}
		want := slices.Clone(body)
		for range size {
			b.number(recordApplied, 1)
			want = append(want, 4, recordApplied<<1|1, 2, 2, 1)
		}
		at := place{salt: 7}
		for range 2 { // a retry
			whole := sealed(b, at)
			got, end, ok := at.open(whole)
			require.True(t, ok)
			require.True(t, bytes.Equal(want, got))
			require.EqualValues(t, len(whole), end)
			for i, r := range b.refs {
				message := whole[r.offset : r.offset+int64(r.size)]
				l, err := readEntry(message)
				require.NoError(t, err)
				require.Equal(t, all[i].Index, l.Index)
				require.Equal(t, r.after, crc32.Update(r.before, castagnoli, message))
			}
		}
		b.reset()
		require.True(t, b.empty())
		require.Equal(t, batchHeader, b.size())
	}
}

func TestLargeEntriesNeedNoMemoryForTheDisk(t *testing.T) {
	s, err := Format{}.Open(vfs.OS{}, t.TempDir())
	require.NoError(t, err)
	_, err = s.Load()
	require.NoError(t, err)
	l := sized(1, 1<<20)
	changes := []storage.Change{{Kind: storage.Append, Entries: []*raft.Log{l}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		_, err := s.Write(changes, 0)
		require.NoError(t, err)
		l.Index++
	}
	runtime.ReadMemStats(&after)
	require.Less(t, (after.TotalAlloc-before.TotalAlloc)/20, uint64(16<<10), "bytes an entry of 1 MiB")
	require.NoError(t, s.Close())
}

func TestWriteKeepsNoDataInMemory(t *testing.T) {
	s, _ := open(t, vfs.NewMemory().Mount(), largeData)
	l := sized(1, largeData)
	data := weak.Make(&l.Data[0])
	add(t, s, l)
	l = nil
	runtime.GC()
	require.Nil(t, data.Value())
	require.NoError(t, s.Close())
}
