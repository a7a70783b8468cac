// SPDX-License-Identifier: Apache-2.0

// Package raftlogtest tests package raftlog on a format of its directory. Every format has to pass the same
// tests.
package raftlogtest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Run tests raftlog on a format. It calls create for each test; create returns a file system, and a directory on it
// that does not exist.
func Run(t *testing.T, format storage.Format, create func(t testing.TB) (files vfs.FS, dir string)) {
	for name, test := range map[string]func(t *testing.T, s site){
		"entries":             testEntries,
		"copies":              testCopies,
		"deletions":           testDeletions,
		"compaction":          testCompaction,
		"gap":                 testGap,
		"base":                testBase,
		"model":               testModel,
		"votes":               testVotes,
		"many votes":          testManyVotes,
		"identity":            testIdentity,
		"positions":           testPositions,
		"indexes":             testIndexes,
		"configurations":      testConfigurations,
		"held vote":           testHeldVote,
		"applied":             testApplied,
		"close":               testClose,
		"shortage":            testShortage,
		"short vote":          testShortVote,
		"failure":             testFailure,
		"reconcile":           testReconcile,
		"astray":              testAstray,
		"divergence":          testDivergence,
		"contradiction":       testContradiction,
		"founding":            testFounding,
		"unfinished founding": testUnfinishedFounding,
		"recovery":            testRecovery,
		"unfinished recovery": testUnfinishedRecovery,
		"lost end":            testLostEnd,
		"lost files":          testLostFiles,
		"damage":              testDamage,
		"mismatch":            testMismatch,
		"lock":                testLock,
		"inspection":          testInspection,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of them wait for a disk
			files, dir := create(t)
			test(t, site{format, files, dir})
		})
	}
}

// A site is a directory in which a test opens logs.
type site struct {
	format storage.Format
	files  vfs.FS
	dir    string
}

// The keys that raft uses for the term and the vote.
var (
	keyTerm      = []byte("CurrentTerm")
	keyVotedIn   = []byte("LastVoteTerm")
	keyCandidate = []byte("LastVoteCand")
)

// member is the identity of the tests' directories.
var member = raftlog.Identity{Cluster: 7, Member: 8, Incarnation: 9, Since: 1, Floor: 1}

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

// try opens the log.
func (s site) try() (*raftlog.Log, error) { return raftlog.Open(s.files, s.dir, s.format, false) }

// open opens the log. It has an identity and a term before it has entries, as in a node.
func (s site) open(t testing.TB) *raftlog.Log {
	t.Helper()
	l, err := s.try()
	require.NoError(t, err)
	if _, known := l.Identity(); !known {
		require.NoError(t, l.Identify(member))
	}
	if l.Term() == 0 {
		require.NoError(t, l.Stable().SetUint64(keyTerm, 1))
	}
	return l
}

// reopen closes a log and opens it again.
func (s site) reopen(t testing.TB, l *raftlog.Log) *raftlog.Log {
	t.Helper()
	finish(t, l)
	return s.open(t)
}

// read reads the directory for an inspection.
func (s site) read(t testing.TB) *raftlog.Reader {
	t.Helper()
	r, err := raftlog.Read(s.files, s.dir, s.format)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return r
}

// below returns the site of part of a test.
func (s site) below(part int) site {
	s.dir = fmt.Sprint(s.dir, "-", part)
	return s
}

// path returns the path of a file in the directory.
func (s site) path(name string) string { return filepath.Join(s.dir, name) }

// finish closes a log.
func finish(t testing.TB, l *raftlog.Log) {
	t.Helper()
	require.NoError(t, l.Close(t.Context()))
}

// settle waits until everything is durable.
func settle(t testing.TB, l *raftlog.Log) {
	t.Helper()
	require.NoError(t, l.Await(t.Context(), l.Position()))
}

// store stores entries.
func store(t testing.TB, l *raftlog.Log, logs ...*raft.Log) {
	t.Helper()
	require.NoError(t, l.Logs().StoreLogs(logs))
}

// keep stores entries and waits until they are durable.
func keep(t testing.TB, l *raftlog.Log, logs ...*raft.Log) {
	t.Helper()
	store(t, l, logs...)
	settle(t, l)
}

// remove deletes entries.
func remove(t testing.TB, l *raftlog.Log, low, high uint64) {
	t.Helper()
	require.NoError(t, l.Logs().DeleteRange(low, high))
}

// all returns all entries of a log.
func all(t testing.TB, l *raftlog.Log) (logs []*raft.Log) {
	t.Helper()
	first, err := l.Logs().FirstIndex()
	require.NoError(t, err)
	last, err := l.Logs().LastIndex()
	require.NoError(t, err)
	for i := first; i != 0 && i <= last; i++ {
		got, err := l.Entry(i)
		require.NoError(t, err, "entry %d", i)
		copied := *got
		if !got.AppendedAt.IsZero() {
			copied.AppendedAt = got.AppendedAt.UTC()
		}
		logs = append(logs, &copied)
	}
	return logs
}

// holds checks that a log has exactly these entries.
func holds(t testing.TB, l *raftlog.Log, want ...*raft.Log) {
	t.Helper()
	got := all(t, l)
	require.Equal(t, span(want), span(got), "first and last index")
	same(t, want, got)
	for _, missing := range []uint64{span(want)[0] - 1, span(want)[1] + 1} {
		_, err := l.Entry(missing)
		require.ErrorIs(t, err, raft.ErrLogNotFound, "entry %d", missing)
	}
}

// same is require.Equal that does not print large data.
func same(t testing.TB, want, got []*raft.Log) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, w := range want {
		if len(w.Data) < 1<<10 || !bytes.Equal(w.Data, got[i].Data) {
			require.Equal(t, w, got[i])
		}
	}
}

// span returns the first and the last index of entries.
func span(logs []*raft.Log) [2]uint64 {
	if len(logs) == 0 {
		return [2]uint64{}
	}
	return [2]uint64{logs[0].Index, logs[len(logs)-1].Index}
}

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

// snapshot takes a snapshot.
func snapshot(t testing.TB, l *raftlog.Log, index, term uint64) {
	t.Helper()
	servers := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "host:1"}}}
	sink, err := l.Snapshots().Create(1, index, term, servers, min(2, index), nil)
	require.NoError(t, err)
	_, err = sink.Write(body(t, fmt.Sprint("state ", index)))
	require.NoError(t, err)
	require.NoError(t, sink.Close())
}

// newest returns the index of the newest snapshot and its records.
func newest(t testing.TB, l *raftlog.Log) (index uint64, records []string) {
	t.Helper()
	metas, err := l.Snapshots().List()
	require.NoError(t, err)
	if len(metas) == 0 {
		return 0, nil
	}
	meta, r, err := l.Snapshots().Open(metas[0].ID)
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, command.ReadBlocks(bytes.NewReader(b), func(r []byte) error {
		records = append(records, string(r))
		return nil
	}))
	return meta.Index, records
}

// vote gives a vote.
func vote(t testing.TB, l *raftlog.Log, term uint64, candidate string) {
	t.Helper()
	require.NoError(t, l.Stable().SetUint64(keyTerm, term))
	require.NoError(t, l.Stable().SetUint64(keyVotedIn, term))
	require.NoError(t, l.Stable().Set(keyCandidate, []byte(candidate)))
}

// voted checks the term and the vote of a log.
func voted(t testing.TB, l *raftlog.Log, term, in uint64, candidate string) {
	t.Helper()
	got, err := l.Stable().GetUint64(keyTerm)
	require.NoError(t, err)
	votedIn, by := l.Voted()
	require.Equal(t, []any{term, term, in, candidate}, []any{l.Term(), got, votedIn, by})
}
