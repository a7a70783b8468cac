// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
)

// gated opens the log on a gate.
func (s *site) gated(t *testing.T) (*raftlog.Log, *gate) {
	t.Helper()
	g := newGate(s.format)
	s.format = g
	l := s.open(t)
	t.Cleanup(func() { // so that nothing waits after a failed test
		g.fail(nil)
		g.release()
	})
	return l, g
}

// pending checks that a position is not durable.
func pending(t testing.TB, l *raftlog.Log, position uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, l.Await(ctx, position), context.DeadlineExceeded)
}

// A position is durable when the change at it is, whatever entries had its index before.
func testPositions(t *testing.T, s site) {
	l, g := s.gated(t)
	keep(t, l, storagetest.Entries(1, 5, 1)...)
	g.hold()
	durable := l.Position()
	remove(t, l, 4, 5)
	store(t, l, storagetest.Entries(4, 5, 2)...)
	position := l.Position()
	require.NoError(t, l.Await(t.Context(), durable))
	pending(t, l, position)
	require.EqualValues(t, 3, l.Durable(), "a truncation lowers the durable index at once")
	same(t, append(storagetest.Entries(1, 3, 1), storagetest.Entries(4, 5, 2)...), all(t, l))
	g.release()
	require.NoError(t, l.Await(t.Context(), position))
	require.EqualValues(t, 5, l.Durable())
	finish(t, s.verify(t, l, append(storagetest.Entries(1, 3, 1), storagetest.Entries(4, 5, 2)...)...))
}

func testIndexes(t *testing.T, s site) {
	l, g := s.gated(t)
	keep(t, l, storagetest.Entries(1, 3, 1)...)
	g.hold()
	store(t, l, storagetest.Entries(4, 6, 1)...)
	require.NoError(t, l.AwaitIndex(t.Context(), 3))
	reached := make(chan error, 1)
	go func() { reached <- l.AwaitIndex(t.Context(), 6) }()
	g.await(1)
	time.Sleep(5 * time.Millisecond)
	require.Empty(t, reached)
	require.EqualValues(t, 3, l.Durable())
	require.Greater(t, l.Condition().Stalled, time.Duration(0))
	snapshot(t, l, 6, 1)
	require.NoError(t, <-reached, "a snapshot is durable")
	pending(t, l, l.Position())
	g.release()
	settle(t, l)
	finish(t, l)
}

// Raft acts on an entry with members at once, so such an entry is durable when StoreLogs returns.
func testConfigurations(t *testing.T, s site) {
	l, g := s.gated(t)
	g.hold()
	stored := make(chan error, 1)
	go func() { stored <- l.Logs().StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration}) }()
	g.await(1)
	time.Sleep(5 * time.Millisecond)
	require.Empty(t, stored)
	require.Greater(t, l.Condition().Blocked, time.Duration(0))
	g.release()
	require.NoError(t, <-stored)
	require.EqualValues(t, 1, l.Durable())
	finish(t, l)
}

func testHeldVote(t *testing.T, s site) {
	l, g := s.gated(t)
	g.hold()
	done := make(chan error, 1)
	go func() { done <- l.Stable().SetUint64(keyTerm, 9) }()
	g.await(1)
	time.Sleep(5 * time.Millisecond)
	require.Empty(t, done)
	require.EqualValues(t, 1, l.Term())
	g.release()
	require.NoError(t, <-done)
	l = s.reopen(t, l)
	voted(t, l, 9, 0, "")
	finish(t, l)
}

// The recorded applied index never exceeds the durable index, and becomes durable without further writes.
func testApplied(t *testing.T, s site) {
	l, g := s.gated(t)
	keep(t, l, storagetest.Entries(1, 5, 1)...)
	g.hold()
	store(t, l, storagetest.Entries(6, 9, 1)...)
	l.Applied(8)
	g.await(1)
	require.LessOrEqual(t, l.Recorded(), uint64(5))
	g.release()
	settle(t, l)
	l.Applied(7)
	for l.Recorded() != 7 {
		time.Sleep(time.Millisecond)
	}
	l = s.reopen(t, l)
	require.EqualValues(t, 7, l.Recorded())
	remove(t, l, 9, 9)
	store(t, l, storagetest.Entry(9, 2))
	l = s.reopen(t, l)
	require.EqualValues(t, 7, l.Recorded())
	finish(t, l)
}

// Close makes the queue durable. If the disk hangs, it gives up with its context.
func testClose(t *testing.T, s site) {
	l, g := s.gated(t)
	g.hold()
	store(t, l, storagetest.Entries(1, 5, 1)...)
	g.await(1)
	store(t, l, storagetest.Entries(6, 9, 1)...)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, l.Close(ctx), context.DeadlineExceeded)
	g.release()
	finish(t, l)
	l = s.open(t)
	holds(t, l, storagetest.Entries(1, 9, 1)...)
	finish(t, l)
}

// While the system is short of a resource, nothing is lost and nothing becomes durable.
func testShortage(t *testing.T, s site) {
	l, g := s.gated(t)
	keep(t, l, storagetest.Entries(1, 3, 1)...)
	g.fail(syscall.ENOSPC)
	store(t, l, storagetest.Entries(4, 6, 1)...)
	position := l.Position()
	g.awaitFailures(2)
	require.Greater(t, l.Condition().Short, time.Duration(0))
	require.ErrorIs(t, l.Condition().Lack, syscall.ENOSPC)
	require.NoError(t, l.Condition().Err)
	pending(t, l, position)
	require.Len(t, all(t, l), 6, "reads work")
	g.fail(nil)
	require.NoError(t, l.Await(t.Context(), position))
	require.Zero(t, l.Condition().Short)
	finish(t, s.verify(t, l, storagetest.Entries(1, 6, 1)...))
}

func testShortVote(t *testing.T, s site) {
	l, g := s.gated(t)
	g.fail(syscall.ENOSPC)
	done := make(chan error, 1)
	go func() { done <- l.Stable().SetUint64(keyTerm, 9) }()
	g.awaitFailures(1)
	require.Empty(t, done)
	require.EqualValues(t, 1, l.Term())
	g.fail(nil)
	require.NoError(t, <-done)
	l = s.reopen(t, l)
	voted(t, l, 9, 0, "")
	finish(t, l)
}

// After an error of the disk nothing more becomes durable.
func testFailure(t *testing.T, s site) {
	l, g := s.gated(t)
	keep(t, l, storagetest.Entries(1, 3, 1)...)
	broken := errors.New("broken")
	g.fail(broken)
	store(t, l, storagetest.Entries(4, 6, 1)...)
	require.ErrorIs(t, l.Await(t.Context(), l.Position()), broken)
	require.ErrorIs(t, l.Condition().Err, broken)
	g.fail(nil)
	require.Error(t, l.Logs().StoreLog(storagetest.Entry(7, 1)))
	require.EqualValues(t, 3, l.Durable())
	require.ErrorIs(t, l.Close(t.Context()), broken)
	l = s.open(t)
	holds(t, l, storagetest.Entries(1, 3, 1)...)
	finish(t, l)
}
