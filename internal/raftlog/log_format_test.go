// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/golden"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
	"github.com/coterie-kv/coterie/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// withFile returns a file system in which one file of the log has the contents b.
func withFile(t testing.TB, name string, b []byte) vfs.FS {
	t.Helper()
	files := vfs.NewMemory().Mount()
	for _, dir := range []string{segmentDir, snapshotDir} {
		require.NoError(t, files.MkdirAll(filepath.Join(home, dir)))
	}
	vfstest.Save(t, files, filepath.Join(home, name), b)
	return files
}

func TestSnapshotFileFormat(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	id := snapshot(t, l, 300, 7)
	require.Equal(t, "0000000000000007-000000000000012c", id)
	finish(t, l)
	name := filepath.Join(home, snapshotDir, id+snapshotSuffix)
	got := vfstest.Load(t, files, name)
	want := golden.File(t, *update, "snapshot.golden", got)
	require.Equal(t, want, got)
	meta, err := readSnapshotMeta(bytes.NewReader(want))
	require.NoError(t, err)
	require.Equal(t, &raft.SnapshotMeta{Version: 1, Index: 300, Term: 7, Configuration: configuration, ConfigurationIndex: 2}, meta)
}

func TestIdentityFormat(t *testing.T) {
	files := withFile(t, "other", nil)
	id := Identity{Cluster: 1 << 63, Member: 300, Incarnation: 7, Since: 12, Floor: 3}
	id.Runs = id.Runs.Next(run.Number{}, 5).Next(run.Number{}, 1<<63)
	l := open(t, files)
	require.NoError(t, l.Identify(id))
	finish(t, l)
	b := vfstest.Load(t, files, filepath.Join(home, identityFile))
	want := golden.File(t, *update, "identity.golden", b)
	require.Equal(t, want, b)
	l = open(t, files)
	got, known := l.Identity()
	require.True(t, known)
	require.Equal(t, id, got)
	finish(t, l)
}

// Raft panics if it cannot decode a member list.
func TestSnapshotWithBadMembersIsDamaged(t *testing.T) {
	files := withFile(t, filepath.Join(snapshotDir, snapshotID(1, 1)+snapshotSuffix), sealMeta(wire.Text(nil, 3, "members")))
	_, err := Open(files, home, segments.Format{}, false)
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
	seal := func(b []byte) {
		binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], crc32.MakeTable(crc32.Castagnoli)))
	}
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
			before := c.next(vfstest.Load(t, files, name))
			vfstest.Save(t, files, name, before)
			check := func(err error) {
				var format *wire.FormatError
				require.ErrorAs(t, err, &format)
				require.Equal(t, wire.FormatError{What: strings.Fields(what)[0] + " in " + name, Version: 2, Reads: 1}, *format)
				var corrupt *CorruptError
				require.False(t, errors.As(err, &corrupt), err)
			}
			_, err := openWith(files, home, false, smallSegment)
			check(err)
			require.Equal(t, before, vfstest.Load(t, files, name))
			r, err := Read(files, home, segments.Format{})
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
	binary.LittleEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:at+8+len(record)], crc32.MakeTable(crc32.Castagnoli)))
	return b
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

func TestVoteFormat(t *testing.T) {
	v := vote{term: 300, votedIn: 299, candidate: []byte("0123456789abcdef")}
	want := golden.File(t, *update, "vote.golden", encodeVote(v))
	require.Equal(t, want, encodeVote(v))
	got, err := decodeVote(want, "")
	require.NoError(t, err)
	require.Equal(t, v, got)
}

// A record may be damaged in a way that its checksum does not cover, and that is not found earlier.
func FuzzRecords(f *testing.F) {
	f.Add(encodeVote(vote{term: 300, votedIn: 299, candidate: []byte("0123456789abcdef")}))
	f.Add(encodeIdentity(&crashIdentity))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeVote(b, "vote"); err != nil {
			requireUnreadable(t, err)
		}
		if _, err := decodeIdentity(b, "identity"); err != nil {
			requireUnreadable(t, err)
		}
	})
}
