// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

// home is the directory of the tests' logs.
const home = "/node"

// smallSegment and tinySegment let a test have many segments.
const (
	smallSegment = 4 << 10
	tinySegment  = 1 << 10
)

// The names and sizes of package segments, the format of these tests: see docs/format.md.
const (
	segmentDir    = "log"
	segmentSuffix = ".log"
	segmentHeader = 32
	allocateStep  = 1 << 20
	batchHeader   = 12
	identityFile  = "identity"
	voteFile      = "vote"
	slotSize      = 4 << 10
	slotCount     = 2
	extentsAt     = slotCount * slotSize // in the vote file
	voteFileSize  = 2 * slotCount * slotSize
	largeData     = 128 << 10 // of an entry, which then is written with calls of its own
)

func segmentName(sequence uint64) string { return fmt.Sprintf("%016x%s", sequence, segmentSuffix) }

// newestSegment returns the name of the newest segment, and where its last batch ends.
func newestSegment(t testing.TB, files vfs.FS) (name string, end int64) {
	t.Helper()
	all := names(t, files, segmentDir, segmentSuffix)
	name = all[len(all)-1]
	end = int64(len(bytes.TrimRight(vfstest.Load(t, files, name), "\x00"))) // no batch of these tests ends with a zero
	return name, (end + 7) / 8 * 8
}

// openWith opens a log with segments of a size.
func openWith(files vfs.FS, dir string, states bool, segment int64) (*Log, error) {
	return Open(files, dir, segments.Format{SegmentSize: segment}, states)
}

// random returns a source of random numbers and logs its seed.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	a, b := rand.Uint64(), rand.Uint64()
	t.Logf("seed %d, %d", a, b)
	return rand.New(rand.NewPCG(a, b))
}

// often returns n, or less with -short.
func often(n int) int {
	if testing.Short() {
		return (n + 3) / 4
	}
	return n
}

// open opens a log with the usual segment size, and closes it when the test ends.
func open(t testing.TB, files vfs.FS) *Log {
	t.Helper()
	return openSized(t, files, 0)
}

// openSized opens a log with segments of this size. The log has a term before it has entries, as with
// raft.
func openSized(t testing.TB, files vfs.FS, segment int64) *Log {
	t.Helper()
	l, err := openWith(files, home, false, segment)
	require.NoError(t, err)
	t.Cleanup(func() { // so that the bubble of a failed test can end
		l.End()
		l.store.shut()
	})
	if l.votes.term == 0 {
		require.NoError(t, l.Stable().SetUint64(keyTerm, 1))
	}
	return l
}

// finish closes a log.
func finish(t testing.TB, l *Log) {
	t.Helper()
	require.NoError(t, l.Close(t.Context()))
}

// settle waits until everything is durable.
func settle(t testing.TB, l *Log) {
	t.Helper()
	require.NoError(t, l.Await(t.Context(), l.Position()))
}

// keep stores entries and waits until they are durable.
func keep(t testing.TB, l *Log, logs ...*raft.Log) {
	t.Helper()
	require.NoError(t, l.Logs().StoreLogs(logs))
	settle(t, l)
}

// sized returns an entry with this much data.
func sized(index uint64, size int) *raft.Log { return storagetest.Sized(index, 1, size) }

// holds checks that a log has exactly these entries.
func holds(t testing.TB, l *Log, want ...*raft.Log) {
	t.Helper()
	got := all(t, l)
	require.Equal(t, span(want), span(got), "first and last index")
	for i, w := range want {
		if len(w.Data) < 1<<10 || !bytes.Equal(w.Data, got[i].Data) {
			require.Equal(t, w, got[i])
		}
	}
	for _, missing := range []uint64{span(want)[0] - 1, span(want)[1] + 1} {
		_, err := l.Entry(missing)
		require.ErrorIs(t, err, raft.ErrLogNotFound, "entry %d", missing)
	}
}

func span(logs []*raft.Log) []uint64 {
	if len(logs) == 0 {
		return []uint64{0, 0}
	}
	return []uint64{logs[0].Index, logs[len(logs)-1].Index}
}

// all returns all entries of a log.
func all(t testing.TB, l *Log) (logs []*raft.Log) {
	t.Helper()
	first, err := l.Logs().FirstIndex()
	require.NoError(t, err)
	last, err := l.Logs().LastIndex()
	require.NoError(t, err)
	for i := first; i != 0 && i <= last; i++ {
		logs = append(logs, get(t, l, i))
	}
	return logs
}

func get(t testing.TB, l *Log, index uint64) *raft.Log {
	t.Helper()
	var got raft.Log
	require.NoError(t, l.Logs().GetLog(index, &got), "entry %d", index)
	if !got.AppendedAt.IsZero() {
		got.AppendedAt = got.AppendedAt.UTC()
	}
	return &got
}

// inMemory returns the number of entries that can be read without the disk.
func inMemory(l *Log) int {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return len(l.store.tail)
}

var configuration = raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "host:1"}}}

// body returns a stream of blocks, the body of a snapshot.
func body(t testing.TB, records ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := command.NewBlockWriter(&b)
	for _, r := range records {
		require.NoError(t, w.Record(func(b []byte) []byte { return append(b, r...) }))
	}
	_, err := w.Close()
	require.NoError(t, err)
	return b.Bytes()
}

// create begins a snapshot and writes its body.
func create(t testing.TB, l *Log, index, term uint64, body []byte) raft.SnapshotSink {
	t.Helper()
	sink, err := l.Snapshots().Create(1, index, term, configuration, min(2, index), nil)
	require.NoError(t, err)
	_, err = sink.Write(body)
	require.NoError(t, err)
	return sink
}

// snapshot takes a snapshot.
func snapshot(t testing.TB, l *Log, index, term uint64) string {
	t.Helper()
	sink := create(t, l, index, term, body(t, fmt.Sprint("state ", index)))
	require.NoError(t, sink.Close())
	return sink.ID()
}

// records reads a snapshot.
func records(t testing.TB, l *Log, id string) (all []string, err error) {
	t.Helper()
	meta, r, err := l.Snapshots().Open(id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	require.Equal(t, id, meta.ID)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.EqualValues(t, len(b), meta.Size)
	err = command.ReadBlocks(bytes.NewReader(b), func(r []byte) error { all = append(all, string(r)); return nil })
	return all, err
}

// names returns the file names in a directory of the log that end in suffix.
func names(t testing.TB, files vfs.FS, dir, suffix string) (found []string) {
	t.Helper()
	all, err := files.ReadDir(filepath.Join(home, dir))
	require.NoError(t, err)
	for _, name := range all {
		if strings.HasSuffix(name, suffix) {
			found = append(found, filepath.Join(home, dir, name))
		}
	}
	return found
}

// bounded returns a context that ends after a while.
func bounded(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
