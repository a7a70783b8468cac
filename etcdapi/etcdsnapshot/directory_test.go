// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

// A logWriter writes records as etcd does.
type logWriter struct {
	bytes.Buffer
	sum uint32
}

func varint(field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, field, protowire.VarintType), v)
}

func message(field protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), b)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func (l *logWriter) record(kind uint64, data []byte) *logWriter {
	l.sum = crc32.Update(l.sum, crc32.MakeTable(crc32.Castagnoli), data)
	b := join(varint(1, kind), varint(2, uint64(l.sum)), message(3, data))
	head, padding := uint64(len(b)), (8-len(b)%8)%8
	if padding > 0 {
		head |= uint64(0x80|padding) << 56
	}
	l.Write(binary.LittleEndian.AppendUint64(nil, head))
	l.Write(append(b, make([]byte, padding)...))
	return l
}

// begin writes the first record of a file. It has no data, so its checksum is that of the earlier files.
func (l *logWriter) begin() *logWriter { return l.record(4, nil) }

// entry writes an entry with a request. The entry of a new leader has none.
func (l *logWriter) entry(index uint64, r *pb.InternalRaftRequest) *logWriter {
	var data []byte
	if r != nil {
		data, _ = proto.Marshal(r)
	}
	return l.record(2, join(varint(1, 0), varint(2, 1), varint(3, index), message(4, data)))
}

func (l *logWriter) commit(index uint64) *logWriter { return l.record(3, varint(3, index)) }

func (l *logWriter) snapshot(index uint64) *logWriter { return l.record(5, varint(1, index)) }

var put = &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1}, Put: &pb.PutRequest{Key: []byte("k")}}

// directory returns a data directory of etcd. Its database has the entries up to index 10, and its log has these files.
func directory(t testing.TB, c *coterie.Contents, files ...[]byte) string {
	t.Helper()
	database := edited(t, c, func(_, meta, _ *bolt.Bucket) error {
		return meta.Put([]byte("consistent_index"), binary.BigEndian.AppendUint64(nil, 10))
	})
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "member", "snap"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "member", "wal"), 0o700))
	require.NoError(t, os.Rename(database, filepath.Join(dir, "member", "snap", "db")))
	for i, b := range files {
		name := fmt.Sprintf("%016x-%016x.wal", i+3, i)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "member", "wal", name), b, 0o600))
	}
	return dir
}

func TestLogIsComparedWithDatabase(t *testing.T) {
	n := open(t)
	_, err := n.Put(t.Context(), "k", "v")
	require.NoError(t, err)
	want := contents(t, n)
	begin := func() *logWriter { return new(logWriter).begin().snapshot(0).entry(9, put).entry(10, put).commit(9) }
	admin := &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1}, Range: &pb.RangeRequest{Key: []byte("k")}}
	change := join(varint(1, 1), varint(3, 11), message(4, []byte("change of members")))
	torn := func(l *logWriter, cut int) *logWriter { l.Truncate(l.Len() - cut); return l }
	damaged := begin()
	damaged.Bytes()[40] ^= 1
	unwritten := begin().entry(11, &pb.InternalRaftRequest{Put: &pb.PutRequest{Value: bytes.Repeat([]byte{1}, 2000)}})
	clear(unwritten.Bytes()[unwritten.Len()-1024:])
	allocated := begin()
	allocated.Write(make([]byte, 4000))
	for name, test := range map[string]struct {
		log  *logWriter
		want error
	}{
		"the same end":                        {begin(), nil},
		"allocated space":                     {allocated, nil},
		"a write that the database lacks":     {begin().entry(11, put), etcdsnapshot.ErrUnapplied},
		"a write after a read":                {begin().entry(11, admin).entry(12, put).commit(11), etcdsnapshot.ErrUnapplied},
		"entries that change no data":         {begin().entry(11, nil).entry(12, admin).record(2, change).commit(11), nil},
		"a write that was replaced":           {begin().entry(11, put).entry(11, nil), nil},
		"writes that were replaced":           {begin().entry(11, put).entry(12, put).entry(11, nil), nil},
		"a snapshot that the database lacks":  {begin().snapshot(20).commit(20), etcdsnapshot.ErrUnapplied},
		"a snapshot that is not committed":    {begin().snapshot(20), nil},
		"entries after a snapshot":            {begin().snapshot(20).entry(21, nil).commit(20), etcdsnapshot.ErrUnapplied},
		"a gap":                               {begin().entry(13, nil), coterie.ErrCorrupt},
		"a commit index after the end":        {begin().commit(11), coterie.ErrCorrupt},
		"the log of another directory":        {new(logWriter).begin().entry(8, put), coterie.ErrCorrupt},
		"a record that is cut off":            {torn(begin().entry(11, put), 9), nil},
		"a record with a sector of zeros":     {unwritten, nil},
		"a damaged record":                    {damaged, coterie.ErrCorrupt},
		"an unknown record":                   {begin().record(9, nil), coterie.ErrCorrupt},
		"a record that is no message":         {begin().record(2, []byte{0xff}), coterie.ErrCorrupt},
		"a request that is unknown":           {begin().record(2, join(varint(3, 11), message(4, message(5000, nil)))), etcdsnapshot.ErrUnapplied},
		"a request of etcd's old store":       {begin().record(2, join(varint(3, 11), message(4, join(message(2, []byte("PUT")), message(4, nil))))), nil},
		"an entry before the database's end":  {begin().entry(11, put).entry(10, put), nil},
		"a new leader that replaces the tail": {begin().entry(11, put).entry(12, put).entry(11, nil).entry(12, put), etcdsnapshot.ErrUnapplied},
	} {
		got, err := etcdsnapshot.Read(t.Context(), directory(t, want, test.log.Bytes()))
		if test.want != nil {
			require.ErrorIs(t, err, test.want, name)
			continue
		}
		require.NoError(t, err, name)
		requireEqual(t, want, got)
	}
}

func TestFilesOfLogFollowEachOther(t *testing.T) {
	c := contents(t, open(t))
	l := new(logWriter).begin().entry(9, put)
	first := append(bytes.Clone(l.Bytes()), make([]byte, 1000)...) // space that etcd has allocated
	l.Reset()
	second := bytes.Clone(l.begin().entry(10, put).Bytes())
	l.Reset()
	third := bytes.Clone(l.begin().entry(11, put).Bytes())
	read := func(files ...[]byte) error {
		_, err := etcdsnapshot.Read(t.Context(), directory(t, c, files...))
		return err
	}
	require.NoError(t, read(first, second))
	require.NoError(t, read(second), "etcd removes old files")
	require.ErrorIs(t, read(first, second, third), etcdsnapshot.ErrUnapplied)
	require.ErrorIs(t, read(first, third), coterie.ErrCorrupt, "a checksum continues that of the file before")
	require.ErrorIs(t, read(first[:40], second), coterie.ErrCorrupt, "only the last record may be cut off")

	dir := directory(t, c, first, second, third)
	wal := filepath.Join(dir, "member", "wal")
	require.NoError(t, os.Remove(filepath.Join(wal, "0000000000000004-0000000000000001.wal")))
	_, err := etcdsnapshot.Read(t.Context(), dir)
	require.ErrorContains(t, err, "missing")
	require.NoError(t, os.WriteFile(filepath.Join(wal, "x.wal"), nil, 0o600))
	_, err = etcdsnapshot.Read(t.Context(), dir)
	require.ErrorIs(t, err, coterie.ErrCorrupt)
}

func TestDirectoryWithLogElsewhere(t *testing.T) {
	c := contents(t, open(t))
	dir := directory(t, c, new(logWriter).begin().entry(10, put).Bytes())
	elsewhere := filepath.Join(t.TempDir(), "wal")
	require.NoError(t, os.Rename(filepath.Join(dir, "member", "wal"), elsewhere))
	_, err := etcdsnapshot.Read(t.Context(), dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	got, err := etcdsnapshot.Read(t.Context(), dir, etcdsnapshot.WithWALDir(elsewhere))
	require.NoError(t, err)
	requireEqual(t, c, got)
}

func TestReadOfOtherDirectories(t *testing.T) {
	_, err := etcdsnapshot.Read(t.Context(), t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist)
	dir := directory(t, contents(t, open(t)), new(logWriter).begin().entry(10, put).Bytes())
	name := filepath.Join(dir, "member", "snap", "db")
	db, err := bolt.Open(name, 0o600, nil)
	require.NoError(t, err)
	_, err = etcdsnapshot.Read(t.Context(), dir)
	require.ErrorIs(t, err, coterie.ErrDirInUse)
	require.NoError(t, db.Close())
	require.NoError(t, os.WriteFile(name, []byte("damaged"), 0o600))
	_, err = etcdsnapshot.Read(t.Context(), dir)
	require.ErrorIs(t, err, coterie.ErrCorrupt)
}

// FuzzLog changes two numbers of a log.
func FuzzLog(f *testing.F) {
	l := new(logWriter).begin().snapshot(0).entry(9, put).entry(10, put).commit(9).entry(11, put)
	whole := bytes.Clone(l.Bytes())
	dir := directory(f, contents(f, open(f)), whole)
	name := filepath.Join(dir, "member", "wal", "0000000000000003-0000000000000000.wal")
	f.Add(uint16(16), uint64(1), uint16(40), uint16(2))
	f.Fuzz(func(t *testing.T, at1 uint16, to1 uint64, at2 uint16, to2 uint16) {
		b := bytes.Clone(whole)
		binary.LittleEndian.PutUint64(b[int(at1)%(len(b)-8):], to1)
		binary.LittleEndian.PutUint16(b[int(at2)%(len(b)-2):], to2)
		require.NoError(t, os.WriteFile(name, b, 0o600))
		if _, err := etcdsnapshot.Read(t.Context(), dir); err != nil {
			require.Regexp(t, "corrupt|lacks", err)
		}
	})
}
