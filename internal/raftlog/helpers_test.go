// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// random returns a source of random numbers whose seed is in the test's log.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	a, b := rand.Uint64(), rand.Uint64()
	t.Logf("seed %d, %d", a, b)
	return rand.New(rand.NewPCG(a, b))
}

// open opens a directory, and closes it when the test ends.
func open(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(dir, hclog.NewNullLogger())
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// inBoth runs a test with both kinds of stores.
func inBoth(t *testing.T, test func(t *testing.T, l *Log)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { test(t, OpenMemory()) })
	t.Run("directory", func(t *testing.T) { test(t, open(t, t.TempDir())) })
}

// entry returns an entry whose data says which it is.
func entry(index, term uint64) *raft.Log {
	return &raft.Log{
		Index: index, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d of term %d", index, term),
		Extensions: []byte{byte(term)}, AppendedAt: time.Unix(int64(index), int64(term)).UTC(),
	}
}

// entries returns those from first to last.
func entries(first, last, term uint64) (logs []*raft.Log) {
	for i := first; i <= last; i++ {
		logs = append(logs, entry(i, term))
	}
	return logs
}

// sized returns an entry with this much data.
func sized(index uint64, size int) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Data: bytes.Repeat([]byte{byte(index)}, size)}
}

// holds checks that a store has these entries, and none before or behind them.
func holds(t testing.TB, store raft.LogStore, want ...*raft.Log) {
	t.Helper()
	var wantFirst, wantLast uint64
	if len(want) > 0 {
		wantFirst, wantLast = want[0].Index, want[len(want)-1].Index
	}
	first, err := store.FirstIndex()
	require.NoError(t, err)
	last, err := store.LastIndex()
	require.NoError(t, err)
	require.Equal(t, []uint64{wantFirst, wantLast}, []uint64{first, last}, "first and last index")
	for _, w := range want {
		got, err := read(store, w.Index)
		require.NoError(t, err, "entry %d", w.Index)
		require.Equal(t, w, got)
	}
	for _, missing := range []uint64{wantFirst - 1, wantLast + 1} {
		_, err := read(store, missing)
		require.ErrorIs(t, err, raft.ErrLogNotFound, "entry %d", missing)
	}
}

func read(store raft.LogStore, index uint64) (*raft.Log, error) {
	var log raft.Log
	err := store.GetLog(index, &log)
	log.AppendedAt = log.AppendedAt.UTC()
	return &log, err
}
