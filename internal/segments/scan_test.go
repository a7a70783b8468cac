// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestScanSums(t *testing.T) {
	r := random(t)
	for range often(300) {
		segment := make([]byte, r.IntN(2000))
		for i := range segment {
			segment[i] = byte(r.Uint32())
		}
		from := r.Int64N(int64(len(segment)) + 1)
		s := newScan(segment[from:], from)
		for range 10 {
			begin := from + r.Int64N(int64(len(segment))-from+1)
			end := begin + r.Int64N(int64(len(segment))-begin+1)
			p := place{r.Uint64(), r.Int64()}
			require.Equal(t, p.sum(segment[begin:end]), s.sum(p, begin, end))
		}
	}
}

func TestFindBatch(t *testing.T) {
	r := random(t)
	for range often(300) {
		at := int64(r.IntN(300)) * batchAlign
		segment := make([]byte, at, 4<<10)
		for i := 0; i+batchHeader < len(segment); i += batchAlign { // bytes that look like batches
			binary.LittleEndian.PutUint32(segment[i:], batchMagic)
			binary.LittleEndian.PutUint32(segment[i+4:], uint32(r.IntN(1000)))
		}
		b := newBatch()
		b.entry(sized(1, r.IntN(500)))
		segment = append(segment, sealed(b, place{7, at})...)
		segment = append(segment, make([]byte, r.IntN(100))...)
		found, ok := findBatch(segment, 7, r.Int64N(at+1))
		require.True(t, ok)
		require.Equal(t, at, found)
		_, ok = findBatch(segment, 7, at+1)
		require.False(t, ok)
		_, ok = findBatch(segment, 8, 0)
		require.False(t, ok, "a batch of another segment")
	}
}

// A value may be full of bytes that look like batches reaching to the end. To check the bytes of each
// would take minutes.
func TestTornBatchOfLookalikesIsFast(t *testing.T) {
	disk := vfs.NewMemory()
	files := disk.Mount()
	s, _ := open(t, files, 0)
	add(t, s, storagetest.Entries(1, 3, 1)...)
	data := make([]byte, segmentSize-8<<10)
	for shift := range batchAlign { // wherever in the file the data begin
		header := binary.LittleEndian.AppendUint32(nil, batchMagic)
		header = binary.LittleEndian.AppendUint32(header, 3<<20)
		copy(data[shift*len(data)/batchAlign+shift:], bytes.Repeat(header, len(data)/batchAlign/batchAlign-1))
	}
	big := sized(4, 0)
	big.Data = data
	add(t, s, big)
	require.NoError(t, s.Close())
	require.Len(t, s.files, 1)
	g := s.files[0]
	require.True(t, disk.Damage(g.name, g.end-100))
	s, _ = open(t, files, 0)
	holds(t, s, storagetest.Entries(1, 3, 1)...)
	require.NoError(t, s.Close())
}
