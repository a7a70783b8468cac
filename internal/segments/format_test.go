// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/golden"
	"github.com/coterie-kv/coterie/internal/slot"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
	"github.com/coterie-kv/coterie/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// withFile returns a file system in which one file of the directory has the contents b.
func withFile(t testing.TB, name string, b []byte) vfs.FS {
	t.Helper()
	files := vfs.NewMemory().Mount()
	vfstest.Save(t, files, filepath.Join(home, name), b)
	return files
}

// requireUnreadable checks that an error reports a damaged file or another version.
func requireUnreadable(t *testing.T, err error) {
	t.Helper()
	var corrupt *storage.CorruptError
	if !errors.Is(err, wire.ErrFormat) {
		require.ErrorAs(t, err, &corrupt)
	}
}

// sampleSegment is a segment with every kind of record.
func sampleSegment() []byte {
	g := &segment{sequence: 1, salt: 0x0123456789abcdef}
	b := g.header()
	for _, fill := range []func(*batch){
		func(b *batch) {
			for _, l := range append(storagetest.Entries(1, 4, 1), &raft.Log{Index: 5, Term: 1 << 40, Type: raft.LogNoop}) {
				b.entry(l)
			}
		},
		func(b *batch) {
			b.number(recordTruncate, 4)
			b.entry(storagetest.Entry(4, 2))
			b.number(recordApplied, 3)
		},
		func(b *batch) { b.number(recordReset, 0); b.entry(sized(300, 200)); b.entry(storagetest.Entry(301, 3)) },
		func(b *batch) { b.number(recordApplied, 300) },
	} {
		next := newBatch()
		fill(next)
		b = append(b, sealed(next, place{g.salt, int64(len(b))})...)
	}
	return b
}

// openSample opens a directory with a segment.
func openSample(t testing.TB, b []byte) (*store, storage.Loaded, error) {
	t.Helper()
	s, err := Format{}.Open(withFile(t, filepath.Join(segmentDir, segmentName(1)), b), home)
	require.NoError(t, err)
	found, err := s.Load()
	return s.(*store), found, err
}

func TestSegmentFormat(t *testing.T) {
	want := golden.File(t, *update, "segment.golden", sampleSegment())
	require.Equal(t, want, sampleSegment())
	s, found, err := openSample(t, want)
	require.NoError(t, err)
	require.Equal(t, storage.Loaded{First: 300, Last: 301, Applied: 300}, found)
	holds(t, s, sized(300, 200), storagetest.Entry(301, 3))
}

func TestExtentFormat(t *testing.T) {
	want := extent{Extent: storage.Extent{Index: 300, Term: 7, Snapshot: 200}, sequence: 3, salt: 1 << 40, end: 4096}
	b := appendExtent(nil, 9, want)
	require.Equal(t, golden.File(t, *update, "extent.golden", b), b)
	serial, got, ok := decodeExtent(append(b, make([]byte, slot.Size-len(b))...))
	require.True(t, ok)
	require.EqualValues(t, 9, serial)
	require.Equal(t, want, got)
	for at := range b {
		b[at] ^= 1
		_, _, ok := decodeExtent(b)
		require.False(t, ok, "a flip at %d", at)
		b[at] ^= 1
	}
}

// sampleVote returns a record of a vote, as package raftlog encodes it.
func sampleVote() (b []byte) {
	b = wire.Uint(b, 2, 300)
	b = wire.Uint(b, 3, 299)
	return wire.Text(b, 4, "0123456789abcdef")
}

func TestVoteFormat(t *testing.T) {
	want := golden.File(t, *update, "vote.golden", encodeVote(7, sampleVote()))
	require.Equal(t, want, encodeVote(7, sampleVote()))
	serial, version, got, ok := decodeVote(append(want, make([]byte, slot.Size-len(want))...))
	require.True(t, ok)
	require.EqualValues(t, 7, serial)
	require.EqualValues(t, 1, version)
	require.Equal(t, sampleVote(), got)
}

func TestFilesListsOnlyFilesWithData(t *testing.T) {
	files := vfs.NewMemory().Mount()
	require.NoError(t, files.MkdirAll(filepath.Join(home, segmentDir)))
	for _, name := range []string{"lock", "log/notes.log", "log/1.log"} {
		vfstest.Save(t, files, filepath.Join(home, name), nil)
	}
	names, err := Format{}.Files(files, home)
	require.NoError(t, err)
	require.Empty(t, names)
	formats, err := storage.Detect(files, home)
	require.NoError(t, err)
	require.Empty(t, formats)
	ours := []string{"identity", "vote", "log/000000000000000a.log"}
	for i, name := range ours {
		ours[i] = filepath.Join(home, name)
		vfstest.Save(t, files, ours[i], nil)
	}
	names, err = Format{}.Files(files, home)
	require.NoError(t, err)
	require.Equal(t, ours, names)
	formats, err = storage.Detect(files, home)
	require.NoError(t, err)
	require.Equal(t, []string{Format{}.Name()}, formats)
}

func FuzzSegment(f *testing.F) {
	sample := sampleSegment()
	f.Add(sample, false)
	f.Add(sample[:len(sample)-3], false)
	for at := int64(segmentHeader); at < int64(len(sample)); {
		body, end, _ := place{0x0123456789abcdef, at}.open(sample)
		f.Add(body, true)
		at = end
	}
	f.Fuzz(func(t *testing.T, b []byte, inBatch bool) {
		if inBatch { // the fuzzer cannot find a checksum by itself
			g := &segment{sequence: 1, salt: 7}
			one := newBatch()
			one.b = append(one.b, b...)
			b = append(g.header(), sealed(one, place{g.salt, segmentHeader})...)
		}
		s, _, err := openSample(t, b)
		if err != nil {
			requireUnreadable(t, err)
			return
		}
		for _, r := range s.contents.refs {
			require.LessOrEqual(t, r.offset+int64(r.size), int64(len(b)))
			_, _ = r.read() // an entry with a wrong checksum need not decode
		}
	})
}

func FuzzVote(f *testing.F) {
	record := encodeVote(7, sampleVote())
	f.Add(record, false)
	f.Add(append(make([]byte, slot.Size), record...), false)
	f.Add(record[8:], true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			b = append(make([]byte, 8), b...)
			binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
			binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
		}
		s, err := Format{}.Open(withFile(t, voteFile, b), home)
		require.NoError(t, err)
		if _, err := s.Vote().Load(); err != nil {
			requireUnreadable(t, err)
			return
		}
		require.NoError(t, s.Vote().Save(sampleVote()))
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(encodeIdentity(sampleVote()), false)
	f.Add(sampleVote(), true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			b = encodeIdentity(b)
		}
		files := withFile(t, identityFile, b)
		record, err := (&identity{fs: files, dir: home}).Load()
		if record == nil {
			requireUnreadable(t, err)
		}
	})
}
