// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden returns the contents of a golden file. With -update it writes got there first.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(name, got, 0o644))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	return want
}

// sampleSegment is a segment with every kind of record.
func sampleSegment() []byte {
	g := &segment{sequence: 1, salt: 0x0123456789abcdef}
	b := g.header()
	for _, fill := range []func(*batch){
		func(b *batch) {
			for _, l := range append(entries(1, 4, 1), &raft.Log{Index: 5, Term: 1 << 40, Type: raft.LogNoop}) {
				b.entry(l)
			}
		},
		func(b *batch) { b.number(recordTruncate, 4); b.entry(entry(4, 2)); b.number(recordApplied, 3) },
		func(b *batch) { b.number(recordReset, 0); b.entry(sized(300, 200)); b.entry(entry(301, 3)) },
		func(b *batch) { b.number(recordApplied, 300) },
	} {
		next := newBatch()
		fill(next)
		b = append(b, next.seal(place{g.salt, int64(len(b))})...)
	}
	return b
}

// withFile returns a file system in which one file of the log has the contents b.
func withFile(t testing.TB, name string, b []byte) vfs.FS {
	t.Helper()
	files := vfs.NewMemory().Mount()
	for _, dir := range []string{segmentDir, snapshotDir} {
		require.NoError(t, files.MkdirAll(filepath.Join(home, dir)))
	}
	save(t, files, filepath.Join(home, name), b)
	return files
}

func openSample(t testing.TB, b []byte) (*segments, *contents, error) {
	t.Helper()
	files := withFile(t, filepath.Join(segmentDir, segmentName(1)), b)
	return openSegments(files, filepath.Join(home, segmentDir), segmentSize, &extent{})
}

func TestSegmentFormat(t *testing.T) {
	want := golden(t, "segment.golden", sampleSegment())
	require.Equal(t, want, sampleSegment())
	s, c, err := openSample(t, want)
	require.NoError(t, err)
	require.EqualValues(t, 300, s.applied)
	require.Equal(t, []uint64{300, 301}, []uint64{c.first, c.last()})
	for i, w := range []*raft.Log{sized(300, 200), entry(301, 3)} {
		got, err := c.refs[i].read()
		require.NoError(t, err)
		if !got.AppendedAt.IsZero() {
			got.AppendedAt = got.AppendedAt.UTC()
		}
		require.Equal(t, w, got)
	}
}

var sampleVote = vote{term: 300, votedIn: 299, candidate: []byte("0123456789abcdef")}

func TestVoteFormat(t *testing.T) {
	want := golden(t, "vote.golden", encodeVote(7, sampleVote))
	require.Equal(t, want, encodeVote(7, sampleVote))
	serial, got, _, ok := decodeVote(append(want, make([]byte, slotSize-len(want))...))
	require.True(t, ok)
	require.EqualValues(t, 7, serial)
	require.Equal(t, sampleVote, got)
}

func TestSnapshotFileFormat(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	id := snapshot(t, l, 300, 7)
	require.Equal(t, "0000000000000007-000000000000012c", id)
	finish(t, l)
	name := filepath.Join(home, snapshotDir, id+snapshotSuffix)
	got := load(t, files, name)
	want := golden(t, "snapshot.golden", got)
	require.Equal(t, want, got)
	meta, err := readSnapshotMeta(bytes.NewReader(want))
	require.NoError(t, err)
	require.Equal(t, &raft.SnapshotMeta{Version: 1, Index: 300, Term: 7, Configuration: configuration, ConfigurationIndex: 2}, meta)
}

func TestIdentityFormat(t *testing.T) {
	files := withFile(t, "other", nil)
	id := Identity{Cluster: 1 << 63, Member: 300, Incarnation: 7, Since: 12, Floor: 3}
	id.Runs = id.Runs.Next(run.Number{}, 5).Next(run.Number{}, 1<<63)
	require.NoError(t, writeIdentity(files, home, id))
	b := load(t, files, filepath.Join(home, identityFile))
	want := golden(t, "identity.golden", b)
	require.Equal(t, want, b)
	got, known, err := readIdentity(files, home)
	require.NoError(t, err)
	require.True(t, known)
	require.Equal(t, id, got)
}

// Raft panics if it cannot decode a member list.
func TestSnapshotWithBadMembersIsDamaged(t *testing.T) {
	files := withFile(t, filepath.Join(snapshotDir, snapshotID(1, 1)+snapshotSuffix), sealMeta(wire.Text(nil, 3, "members")))
	_, err := Open(files, home, false)
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)
}

// sealMeta returns message as the head of a snapshot, with its checksum.
func sealMeta(message []byte) []byte {
	return command.AppendHead(nil, snapshotFormat, func(b []byte) []byte { return append(b, message...) })
}

// requireUnreadable checks that an error reports a damaged file or another version.
func requireUnreadable(t *testing.T, err error) {
	t.Helper()
	var corrupt *CorruptError
	if !errors.Is(err, wire.ErrFormat) {
		require.ErrorAs(t, err, &corrupt)
	}
}

// Files of another version are not damage: Open names the version and changes nothing, a Reader finds the
// same, and neither reports missing data as lost.
func TestFilesOfOtherVersionsAreNotDamage(t *testing.T) {
	seal := func(b []byte) { binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli)) }
	for what, c := range map[string]struct {
		file string
		next func(b []byte) []byte
	}{
		"identity":      {identityFile, func(b []byte) []byte { b[6] = 2; return b }},
		"snapshot":      {filepath.Join(snapshotDir, snapshotID(1, 2)+snapshotSuffix), func(b []byte) []byte { b[7] = 2; return b }},
		"segment":       {filepath.Join(segmentDir, segmentName(1)), func(b []byte) []byte { b[6] = 2; seal(b); return b }},
		"segment ":      {filepath.Join(segmentDir, segmentName(3)), func(b []byte) []byte { b[6] = 2; seal(b); return b[:segmentHeader] }},
		"vote":          {voteFile, func(b []byte) []byte { return newerVote(b, 0) }},
		"vote in place": {voteFile, func(b []byte) []byte { return newerVote(b, slotSize) }},
	} {
		t.Run(what, func(t *testing.T) {
			files := vfs.NewMemory().Mount()
			l := openSized(t, files, smallSegment)
			require.NoError(t, l.Identify(crashIdentity))
			elect(t, l, 2, "a")
			for i := range uint64(3) {
				keep(t, l, sized(i+1, smallSegment))
			}
			snapshot(t, l, 2, 1)
			finish(t, l)
			name := filepath.Join(home, c.file)
			before := c.next(load(t, files, name))
			save(t, files, name, before)
			check := func(err error) {
				var format *wire.FormatError
				require.ErrorAs(t, err, &format)
				require.Equal(t, wire.FormatError{What: strings.Fields(what)[0] + " in " + name, Version: 2, Reads: 1}, *format)
				var corrupt *CorruptError
				require.False(t, errors.As(err, &corrupt), err)
			}
			_, err := openWith(files, home, false, smallSegment)
			check(err)
			require.Equal(t, before, load(t, files, name))
			r, err := Read(files, home)
			require.NoError(t, err)
			check(r.Formats[0])
			require.Len(t, r.Formats, 1)
			require.Empty(t, r.Damage)
			require.NoError(t, r.Close())
		})
	}
}

// newerVote turns the record in a slot into one of version 2 with additional fields.
func newerVote(b []byte, at int) []byte {
	size := binary.LittleEndian.Uint32(b[at+4:])
	record := wire.Text(wire.Uint(b[at+8:at+8+int(size):at+8+int(size)], 15, 2), 16, "more")
	binary.LittleEndian.PutUint32(b[at+4:], uint32(len(record)))
	copy(b[at+8:], record)
	binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:at+8+len(record)], castagnoli))
	return b
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
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed { // the fuzzer cannot find a checksum by itself
			g := &segment{sequence: 1, salt: 7}
			one := newBatch()
			one.b = append(one.b, b...)
			b = append(g.header(), one.seal(place{g.salt, segmentHeader})...)
		}
		_, c, err := openSample(t, b)
		if err != nil {
			requireUnreadable(t, err)
			return
		}
		for _, r := range c.refs {
			require.LessOrEqual(t, r.offset+int64(r.size), int64(len(b)))
			_, _ = r.read() // an entry with a wrong checksum need not decode
		}
	})
}

func FuzzVote(f *testing.F) {
	record := encodeVote(7, sampleVote)
	f.Add(record, false)
	f.Add(append(make([]byte, slotSize), record...), false)
	f.Add(record[8:], true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			b = append(make([]byte, 8), b...)
			binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
			binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
		}
		v, err := openVotes(withFile(t, voteFile, b), home, func(write func() error) bool { return write() == nil })
		if err != nil {
			requireUnreadable(t, err)
			return
		}
		require.NoError(t, v.SetUint64(keyTerm, v.term+1))
	})
}

func FuzzSnapshotMeta(f *testing.F) {
	b := encodeSnapshotMeta(&raft.SnapshotMeta{Version: 1, Index: 300, Term: 7, Configuration: configuration, ConfigurationIndex: 2})
	f.Add(b, false)
	f.Add(b[command.HeadSize:], true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			b = sealMeta(b)
		}
		_, _ = readSnapshotMeta(bytes.NewReader(b)) // it must not panic
	})
}

func FuzzIdentity(f *testing.F) {
	files := withFile(f, "other", nil)
	require.NoError(f, writeIdentity(files, home, crashIdentity))
	b := load(f, files, filepath.Join(home, identityFile))
	f.Add(b, false)
	f.Add(b[identityMagic+4:], true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			sum := binary.LittleEndian.AppendUint32(identityFormat.Append(nil, identityMagic), crc32.Checksum(b, castagnoli))
			b = append(sum, b...)
		}
		_, known, err := readIdentity(withFile(t, identityFile, b), home)
		if !known {
			requireUnreadable(t, err)
		}
	})
}
