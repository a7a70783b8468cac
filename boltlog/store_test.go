// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func open(t testing.TB, dir string) *store {
	t.Helper()
	s, err := openStore(vfs.OS{}, dir, Options{})
	require.NoError(t, err)
	return s
}

// reopen closes a store and opens it again.
func reopen(t testing.TB, s *store) *store {
	t.Helper()
	require.NoError(t, s.Close())
	return open(t, filepath.Dir(s.db.name))
}

// entries makes entries with data of a size.
func entries(from, to uint64, size int) (all []*raft.Log) {
	for i := from; i <= to; i++ {
		data := bytes.Repeat([]byte{byte(i)}, size)
		all = append(all, &raft.Log{Index: i, Term: 3, Data: data, AppendedAt: time.Unix(int64(i), 7)})
	}
	return all
}

func appended(all []*raft.Log) storage.Change { return storage.Change{Entries: all} }

func truncated(index uint64) storage.Change {
	return storage.Change{Kind: storage.Truncate, Index: index}
}

func write(t testing.TB, s *store, applied uint64, changes ...storage.Change) {
	t.Helper()
	_, err := s.Write(changes, applied)
	require.NoError(t, err)
}

// holds checks that a store has exactly these entries, in memory and in its file.
func holds(t testing.TB, s *store, applied uint64, want []*raft.Log) {
	t.Helper()
	found, err := os.ReadFile(s.db.name)
	require.NoError(t, err)
	c, err := readContents(bytes.NewReader(found), int64(len(found)))
	require.NoError(t, err)
	require.Equal(t, applied, c.applied)
	require.Len(t, c.entries, len(want))
	first, last := s.bounds()
	require.Equal(t, c.last(), last)
	if len(want) > 0 {
		require.Equal(t, want[0].Index, c.first)
		require.Equal(t, c.first, first)
	}
	for _, l := range want {
		got, err := s.Entry(l.Index)
		require.NoError(t, err)
		require.Equal(t, l, got)
		require.NotZero(t, s.Size(l.Index))
	}
	for _, index := range []uint64{0, first - 1, last + 1} {
		if index == 0 || len(want) == 0 || index < first || index > last {
			_, err := s.Entry(index)
			require.Equal(t, raft.ErrLogNotFound, err)
			require.Zero(t, s.Size(index))
		}
	}
}

func TestNewLogIsEmpty(t *testing.T) {
	s := open(t, t.TempDir())
	loaded, err := s.Load()
	require.NoError(t, err)
	require.Zero(t, loaded)
	holds(t, s, 0, nil)
	for _, r := range []storage.Record{s.Vote(), s.Identity()} {
		b, err := r.Load()
		require.NoError(t, err)
		require.Nil(t, b)
	}
	require.NoError(t, s.Close())
}

func TestEntriesAndRecordsAreDurable(t *testing.T) {
	s := open(t, t.TempDir())
	want := entries(5, 30, 100)
	want[3].Extensions = []byte("extensions")
	want[4].Data, want[4].AppendedAt = nil, time.Time{}
	want[5].Type = raft.LogConfiguration
	write(t, s, 7, appended(want[:10]), appended(want[10:]))
	require.NoError(t, s.Vote().Save([]byte("vote")))
	require.NoError(t, s.Identity().Save([]byte("identity")))
	for range 2 {
		holds(t, s, 7, want)
		b, err := s.Vote().Load()
		require.NoError(t, err)
		require.Equal(t, "vote", string(b))
		b, err = s.Identity().Load()
		require.NoError(t, err)
		require.Equal(t, "identity", string(b))
		s = reopen(t, s)
		loaded, err := s.Load()
		require.NoError(t, err)
		require.Equal(t, storage.Loaded{First: 5, Last: 30, Applied: 7}, loaded)
	}
	require.NoError(t, s.Close())
}

func TestOneWriteIsOneTransaction(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	write(t, s, 0, appended(entries(1, 3, 10)))
	before := s.db.transaction.Load()
	n, err := s.Write([]storage.Change{appended(entries(4, 50, 10)), appended(entries(51, 60, 10))}, 3)
	require.NoError(t, err)
	require.Equal(t, before+1, s.db.transaction.Load())
	require.Greater(t, n, 3*os.Getpagesize())
	before = s.db.transaction.Load()
	write(t, s, 5)
	require.Equal(t, before+1, s.db.transaction.Load())
	write(t, s, 5)
	require.Equal(t, before+1, s.db.transaction.Load())
}

func TestRemovalsKeepTheAppliedIndex(t *testing.T) {
	s := open(t, t.TempDir())
	all := entries(1, 40, 200)
	write(t, s, 5, appended(all))
	write(t, s, 5, truncated(31))
	holds(t, s, 5, all[:30])
	other := entries(31, 35, 50)
	write(t, s, 6, appended(other))
	require.NoError(t, s.Compact(36))
	s = reopen(t, s)
	holds(t, s, 6, nil)
	write(t, s, 6, appended(entries(36, 38, 50)))
	write(t, s, 0, storage.Change{Kind: storage.Reset}, appended(entries(100, 101, 50)))
	s = reopen(t, s)
	holds(t, s, 0, entries(100, 101, 50))
	require.NoError(t, s.Close())
}

func TestCompactRemovesInSteps(t *testing.T) {
	s := open(t, t.TempDir())
	all := entries(1, 3*removalStep, 20)
	write(t, s, 9, appended(all))
	require.NoError(t, s.Compact(0))
	require.NoError(t, s.Compact(1))
	require.NoError(t, s.Compact(2*removalStep+10))
	holds(t, s, 9, all[2*removalStep+9:])
	write(t, s, 9, truncated(2*removalStep+20))
	holds(t, s, 9, all[2*removalStep+9:2*removalStep+19])
	require.NoError(t, s.Close())
}

func TestInterruptedRemovalIsCompleted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	all := entries(1, 100, 200)
	write(t, s, 9, appended(all))
	for i, step := range []state{{applied: 9, low: 90, high: 100}, {applied: 9, low: 1, high: 20}, {low: 21, high: 89}} {
		require.NoError(t, s.save(step))
		if i == 1 {
			require.NoError(t, s.db.bolt.DeleteRange(step.low, step.low+7))
		}
		r, err := read(vfs.ReadOnly(vfs.OS{}), dir, func(_ string, err error) { t.Error(err) })
		require.NoError(t, err)
		want := [][]*raft.Log{all[:89], all[20:89], nil}[i]
		require.Equal(t, len(want), len(r.contents.entries))
		require.NoError(t, r.Close())
		s = reopen(t, s)
		holds(t, s, step.applied, want)
	}
	require.NoError(t, s.Close())
}

// After an error that can be repeated, the next call need not be the same one.
func TestRemovalsDoNotOvertakeEachOther(t *testing.T) {
	s := open(t, t.TempDir())
	all := entries(1, 100, 20)
	write(t, s, 9, appended(all))
	require.NoError(t, s.save(state{applied: 9, low: 1, high: 40})) // the first step of Compact(41)
	s.forget(1, 40)
	require.NoError(t, s.Compact(61))
	holds(t, s, 9, all[60:])
	require.NoError(t, s.Close())
}

// Bbolt's documentation warns of a deletion during an iteration, which is how raft-boltdb removes a range.
func TestDeleteRangeSkipsNothing(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 2))
	next, first := uint64(1), uint64(1)
	for range 150 {
		switch n := next - first; {
		case n < 50 || r.IntN(2) == 0:
			grown := entries(next, next+uint64(r.IntN(300)), r.IntN(600))
			write(t, s, 0, appended(grown))
			next += uint64(len(grown))
		case r.IntN(2) == 0:
			first += 1 + r.Uint64N(n-1)
			require.NoError(t, s.Compact(first))
		default:
			next -= 1 + r.Uint64N(n-1)
			write(t, s, 0, truncated(next))
		}
		require.NoError(t, s.db.bolt.Sync())
		found, err := os.ReadFile(s.db.name)
		require.NoError(t, err)
		c, err := readContents(bytes.NewReader(found), int64(len(found)))
		require.NoError(t, err)
		require.Equal(t, [2]uint64{first, next - 1}, [2]uint64{c.first, c.last()})
	}
}

func TestEntriesOutOfOrderAreRejected(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	write(t, s, 0, appended(entries(5, 6, 10)))
	for _, next := range []uint64{1, 6, 8} {
		_, err := s.Write([]storage.Change{appended(entries(next, next, 10))}, 0)
		require.EqualError(t, err, fmt.Sprintf("boltlog: entry %d cannot follow entry 6", next))
	}
	holds(t, s, 0, entries(5, 6, 10))
}

func TestToolsCanReadTheFile(t *testing.T) {
	s := open(t, t.TempDir())
	write(t, s, 0, appended(entries(1, 20, 300)))
	require.NoError(t, s.Vote().Save([]byte("vote")))
	require.NoError(t, s.Close())
	db, err := bbolt.Open(s.db.name, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		require.Equal(t, 20, tx.Bucket([]byte(bucketLogs)).Stats().KeyN)
		require.NotNil(t, tx.Bucket([]byte(bucketConf)).Get([]byte(keyVote)))
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	}))
}

func TestLockOfAnotherProgramIsReported(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, err := openStore(vfs.OS{}, dir, Options{})
	require.ErrorIs(t, err, fault.ErrDirInUse)
	require.ErrorContains(t, err, s.db.name)
	s = reopen(t, s)
	require.NoError(t, s.Close())
}

func TestOtherFileSystemsAreRejected(t *testing.T) {
	_, err := New(Options{}).Format().Open(vfs.NewMemory().Mount(), "dir")
	require.ErrorContains(t, err, "needs a file system of the operating system")
}

func TestInterruptedCreationIsRepeated(t *testing.T) {
	dir := t.TempDir()
	part := filepath.Join(dir, logFile+partSuffix)
	require.NoError(t, os.WriteFile(part, []byte("incomplete"), 0o600))
	s := open(t, dir)
	require.NoFileExists(t, part)
	require.NoError(t, s.Close())
}

func TestInitialMmapSizeReservesSpace(t *testing.T) {
	s, err := openStore(vfs.OS{}, t.TempDir(), Options{InitialMmapSize: 1 << 30})
	require.NoError(t, err)
	write(t, s, 0, appended(entries(1, 100, 10_000)))
	info, err := os.Stat(s.db.name)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(64<<20))
	require.NoError(t, s.Close())
}

func TestNoFreelistSyncWritesLess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	all := entries(1, 8000, 1000)
	write(t, s, 1, appended(all))
	require.NoError(t, s.Compact(7000))
	size := map[bool]int{}
	for i, without := range []bool{false, true, true, false} {
		require.NoError(t, s.Close())
		var err error
		s, err = openStore(vfs.OS{}, dir, Options{NoFreelistSync: without})
		require.NoError(t, err)
		next := uint64(8001 + i)
		all = append(all, entries(next, next, 10)...)
		size[without], err = s.Write([]storage.Change{appended(all[next-1:])}, 1)
		require.NoError(t, err)
		holds(t, s, 1, all[6999:])
	}
	require.Less(t, size[true]+8<<10, size[false])
	require.NoError(t, s.Close())
}
