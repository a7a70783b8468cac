// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

var configuration = raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "host:1"}}}

// create begins a snapshot at an index.
func create(t testing.TB, l *Log, index uint64) raft.SnapshotSink {
	t.Helper()
	// The transport tells a store of files how to encode addresses.
	_, transport := raft.NewInmemTransport("")
	sink, err := l.Snapshots().Create(1, index, 3, configuration, 2, transport)
	require.NoError(t, err)
	return sink
}

// content opens a snapshot and reads it, and checks what is told of it.
func content(t testing.TB, l *Log, id string) string {
	t.Helper()
	meta, r, err := l.Snapshots().Open(id)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, id, meta.ID)
	require.EqualValues(t, len(b), meta.Size)
	return string(b)
}

func TestSnapshotsAreWrittenAndRead(t *testing.T) {
	inBoth(t, func(t *testing.T, l *Log) {
		list, err := l.Snapshots().List()
		require.NoError(t, err)
		require.Empty(t, list)

		sink := create(t, l, 7)
		for _, part := range []string{"content ", "of 7"} {
			_, err := sink.Write([]byte(part))
			require.NoError(t, err)
		}
		list, err = l.Snapshots().List()
		require.NoError(t, err)
		require.Empty(t, list, "it is not finished")
		require.NoError(t, sink.Close())

		list, err = l.Snapshots().List()
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, sink.ID(), list[0].ID)
		require.Equal(t, []uint64{7, 3, 2}, []uint64{list[0].Index, list[0].Term, list[0].ConfigurationIndex})
		require.Equal(t, configuration, list[0].Configuration)
		require.Equal(t, "content of 7", content(t, l, sink.ID()))
		require.Equal(t, "content of 7", content(t, l, sink.ID()), "once more")

		cancelled := create(t, l, 8)
		_, err = cancelled.Write([]byte("content of 8"))
		require.NoError(t, err)
		require.NoError(t, cancelled.Cancel())
		list, err = l.Snapshots().List()
		require.NoError(t, err)
		require.Len(t, list, 1)

		newer := create(t, l, 9)
		_, err = newer.Write([]byte("content of 9"))
		require.NoError(t, err)
		require.NoError(t, newer.Close())
		list, err = l.Snapshots().List()
		require.NoError(t, err)
		require.Equal(t, newer.ID(), list[0].ID, "the newest comes first")
		require.Equal(t, "content of 9", content(t, l, newer.ID()))

		_, _, err = l.Snapshots().Open("another")
		require.Error(t, err)
	})
}

// keep finishes a snapshot in memory whose content is what writeTo writes.
func keep(t testing.TB, l *Log, writeTo func(io.Writer) (int64, error)) string {
	t.Helper()
	sink := create(t, l, 7)
	sink.(interface {
		Keep(func(io.Writer) (int64, error))
	}).Keep(writeTo)
	require.NoError(t, sink.Close())
	return sink.ID()
}

// endless writes parts until it is refused, and at most this many.
func endless(parts int) func(io.Writer) (int64, error) {
	return func(w io.Writer) (written int64, err error) {
		for range parts {
			n, err := io.WriteString(w, "a part of it, ")
			if written += int64(n); err != nil {
				return written, err
			}
		}
		return written, nil
	}
}

func TestAKeptStateIsEncodedWheneverItIsRead(t *testing.T) {
	l := OpenMemory()
	id := keep(t, l, endless(1000))
	want := strings.Repeat("a part of it, ", 1000)
	_, a, err := l.Snapshots().Open(id)
	require.NoError(t, err)
	require.Equal(t, want, content(t, l, id), "while another reads it")
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
	require.NoError(t, a.Close())
}

func TestAStateThatCannotBeEncodedIsReported(t *testing.T) {
	broken := errors.New("broken")
	l := OpenMemory()
	id := keep(t, l, func(w io.Writer) (int64, error) {
		n, _ := io.WriteString(w, "begun")
		return int64(n), broken
	})
	_, r, err := l.Snapshots().Open(id)
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.ErrorIs(t, err, broken)
	require.Equal(t, "begun", string(b))
}

// A bubble does not end before its goroutines.
func TestASnapshotThatIsClosedEarlyLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := OpenMemory()
		id := keep(t, l, endless(1000))
		for _, n := range []int{0, 1, 14, 100, 14_000} {
			_, r, err := l.Snapshots().Open(id)
			require.NoError(t, err)
			_, err = io.ReadFull(r, make([]byte, n))
			require.NoError(t, err)
			synctest.Wait()
			require.NoError(t, r.Close())
		}
		synctest.Wait()
	})
}

func TestASnapshotOutlivesItsSuccessor(t *testing.T) {
	l := OpenMemory()
	id := keep(t, l, endless(1000))
	_, r, err := l.Snapshots().Open(id)
	require.NoError(t, err)
	newer := create(t, l, 9)
	require.NoError(t, newer.Close())
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Len(t, b, 14_000)
	_, _, err = l.Snapshots().Open(id)
	require.Error(t, err)
}

func TestAContextHasItsStores(t *testing.T) {
	l := OpenMemory()
	require.Same(t, l, From(With(context.Background(), l)))
	require.NotSame(t, From(context.Background()), From(context.Background()))
}
