// SPDX-License-Identifier: Apache-2.0

// The race detector allocates memory of its own, and drops values of sync.Pools.
//go:build !race

package raftlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// appender appends batches of entries to a log, each after the last entry.
type appender struct {
	log   *Log
	batch []*raft.Log
	next  uint64
}

func newAppender(t testing.TB, files vfs.FS, dir string, entries, size int) *appender {
	t.Helper()
	l, err := Open(files, dir, segments.Format{}, false)
	require.NoError(t, err)
	require.NoError(t, l.Stable().SetUint64(keyTerm, 1))
	a := &appender{log: l, next: 1}
	for range entries {
		a.batch = append(a.batch, &raft.Log{Term: 1, Data: make([]byte, size), AppendedAt: time.Unix(1, 0)})
	}
	return a
}

// append appends the batch and waits until it is durable, as a follower does before it acknowledges the entries. Then
// the state machine has applied it.
func (a *appender) append(t testing.TB) {
	for _, l := range a.batch {
		l.Index = a.next
		a.next++
	}
	if err := a.log.Logs().StoreLogs(a.batch); err != nil {
		t.Fatal(err)
	}
	if err := a.log.Await(t.Context(), a.log.Position()); err != nil {
		t.Fatal(err)
	}
	a.log.Applied(a.next - 1)
}

// BenchmarkAppend appends batches of entries with 300 bytes each on a real disk.
func BenchmarkAppend(b *testing.B) {
	for _, entries := range []int{1, 32, 1000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			a := newAppender(b, vfs.OS{}, b.TempDir(), entries, 300)
			defer a.log.Close(b.Context())
			b.ReportAllocs()
			b.SetBytes(int64(entries) * 300)
			for b.Loop() {
				a.append(b)
			}
		})
	}
}

func TestAppendNeedsFewAllocations(t *testing.T) {
	a := newAppender(t, vfs.OS{}, t.TempDir(), 1, 300)
	defer finish(t, a.log)
	for range 100 {
		a.append(t)
	}
	// The entry, a pointer to it, the channel of the wait, and a list that grows.
	require.LessOrEqual(t, testing.AllocsPerRun(500, func() { a.append(t) }), 4.0)
}
