// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// inBubble runs a test of a log on a disk of its own, in virtual time. It closes the log at the end. A
// bubble ends only after its goroutines, so none may be left.
func inBubble(t *testing.T, test func(t *testing.T, disk *vfs.Memory, l *Log)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewForgetful()
		l := open(t, disk.Mount())
		test(t, disk, l)
		_ = l.Close(t.Context()) // some tests break the disk, or have closed the log
	})
}

// waiting calls fn in the background. The channel receives its result.
func waiting(fn func() error) chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

func TestAwaitIsByPositionNotIndex(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 5, 1)...)
		require.EqualValues(t, 5, l.Durable())
		disk.Delay(time.Second) // for the write, and for the sync
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(6, 10, 1)))
		first := l.Position()
		synctest.Wait()
		require.NoError(t, l.Logs().DeleteRange(4, 10))
		require.EqualValues(t, 3, l.Durable(), "the next entries at these indexes are different ones")
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(4, 10, 2)))
		second := l.Position()
		require.Greater(t, second, first)

		begin := time.Now()
		require.NoError(t, l.Await(t.Context(), first))
		require.Equal(t, 2*time.Second, time.Since(begin))
		require.EqualValues(t, 3, l.Durable(), "the durable entry 10 is the old one")
		index := waiting(func() error { return l.AwaitIndex(t.Context(), 4) })
		synctest.Wait()
		require.Empty(t, index)
		require.NoError(t, l.Await(t.Context(), second))
		require.Equal(t, 5*time.Second, time.Since(begin), "including the extent between them")
		require.NoError(t, <-index)
		require.EqualValues(t, 10, l.Durable())
		holds(t, l, append(storagetest.Entries(1, 3, 1), storagetest.Entries(4, 10, 2)...)...)
		disk.Delay(0)
	})
}

func TestOnlyTruncationLowersDurable(t *testing.T) {
	r := random(t)
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		last, durable := uint64(0), uint64(0)
		for step := range 2000 {
			switch r.IntN(6) {
			case 0:
				disk.Stall(true)
			case 1:
				disk.Stall(false)
			case 2:
				if last > 0 {
					low := 1 + r.Uint64N(last)
					require.NoError(t, l.Logs().DeleteRange(low, last))
					last, durable = low-1, min(durable, low-1)
				}
			case 3:
				synctest.Wait()
			default:
				next := last + 1 + r.Uint64N(3)
				require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(last+1, next, uint64(step))))
				last = next
			}
			now := l.Durable()
			require.GreaterOrEqual(t, now, durable)
			require.LessOrEqual(t, now, last)
			durable = now
		}
		disk.Stall(false)
		settle(t, l)
		require.Equal(t, last, l.Durable())
	})
}

func TestSnapshotMakesItsIndexDurable(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 5, 1)...)
		index := waiting(func() error { return l.AwaitIndex(t.Context(), 50) })
		snapshot(t, l, 49, 2)
		synctest.Wait()
		require.Empty(t, index)
		require.EqualValues(t, 49, l.Durable())
		disk.Stall(true)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(50, 50, 2)))
		synctest.Wait()
		require.Empty(t, index)
		require.EqualValues(t, 49, l.Durable())
		disk.Stall(false)
		require.NoError(t, <-index)
	})
}

func TestAwaitEndsWithContext(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		disk.Stall(true)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(1, 1, 1)))
		require.ErrorIs(t, l.Await(bounded(t, time.Second), l.Position()), context.DeadlineExceeded)
		require.ErrorIs(t, l.AwaitIndex(bounded(t, time.Second), 1), context.DeadlineExceeded)
		ended := waiting(func() error { return l.Await(t.Context(), l.Position()) })
		synctest.Wait()
		l.End()
		require.ErrorIs(t, <-ended, errClosed)
		disk.Stall(false)
	})
}

func TestFullQueueBlocksAwaitRoom(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		disk.Stall(true)
		for i := range uint64(8) {
			require.NoError(t, l.AwaitRoom(t.Context()))
			require.NoError(t, l.Logs().StoreLog(sized(i+1, maxQueued/8)))
		}
		room := waiting(func() error { return l.AwaitRoom(t.Context()) })
		synctest.Wait()
		require.Empty(t, room)
		require.NoError(t, l.Logs().StoreLog(sized(9, 10)), "raft itself never waits")
		disk.Stall(false)
		require.NoError(t, <-room)
		settle(t, l)
		require.Zero(t, l.store.queued)
	})
}

func TestTruncatedEntriesLeaveTheQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		disk.Stall(true)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(1, 10, 1)))
		synctest.Wait() // the write is in progress
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(11, 20, 1)))
		require.NoError(t, l.Logs().DeleteRange(6, 20))
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(6, 8, 2)))
		require.NoError(t, l.Logs().DeleteRange(1, 2))
		disk.Stall(false)
		settle(t, l)
		require.Zero(t, l.store.queued)
		require.Empty(t, l.store.marks)
		holds(t, l, append(storagetest.Entries(3, 5, 1), storagetest.Entries(6, 8, 2)...)...)
	})
}

func TestStoredConfigurationIsDurable(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		disk.Delay(time.Second)
		begin := time.Now()
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(1, 3, 1)))
		require.Zero(t, time.Since(begin), "commands do not wait")
		members := storagetest.Entry(4, 1)
		members.Type = raft.LogConfiguration
		require.NoError(t, l.Logs().StoreLogs([]*raft.Log{members, storagetest.Entry(5, 1)}))
		require.NotZero(t, time.Since(begin))
		require.EqualValues(t, 5, l.Durable())
		disk.Delay(0)
		disk.Crash(nil)
		l = open(t, disk.Mount())
		require.EqualValues(t, 5, l.Durable())
		finish(t, l)
	})
}

func TestQueueTakesOneWriteAndOneSync(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 1, 1)...)
		synctest.Wait() // the extent is written after the batch is durable
		disk.Stall(true)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(2, 2, 1)))
		synctest.Wait()
		for i := range uint64(500) {
			require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(i+3, i+3, 1)))
		}
		require.NoError(t, l.Logs().DeleteRange(400, 502))
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(400, 410, 2)))
		l.Applied(1)
		// Changes that wait for a stalled disk are counted when the disk continues.
		before := disk.Changes()
		disk.Stall(false)
		settle(t, l)
		synctest.Wait()
		require.Equal(t, 3+3, disk.Changes()-before, "the write in progress, and one more, each with its extent")
		holds(t, l, append(storagetest.Entries(1, 399, 1), storagetest.Entries(400, 410, 2)...)...)
		require.EqualValues(t, 1, l.Recorded())
	})
}

// The state in a snapshot may be ahead of the snapshot's index, and of the log.
func TestRecordedIsAtMostDurable(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 5, 1)...)
		disk.Stall(true)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(6, 9, 1)))
		l.Applied(8)
		disk.Stall(false)
		settle(t, l)
		time.Sleep(time.Second)
		require.EqualValues(t, 5, l.Recorded())
		l.Applied(8)
		time.Sleep(time.Second)
		require.EqualValues(t, 8, l.Recorded())
		l.Applied(100)
		finish(t, l)
		l = open(t, disk.Mount())
		require.EqualValues(t, 9, l.Recorded())
		finish(t, l)
	})
}

func TestAppliedIsRecordedSoon(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 100, 1)...)
		before := disk.Changes()
		for i := range uint64(100) {
			l.Applied(i + 1)
		}
		synctest.Wait()
		require.Equal(t, before, disk.Changes())
		require.Zero(t, l.Recorded())
		time.Sleep(recordAfter)
		synctest.Wait()
		require.EqualValues(t, 100, l.Recorded())
		require.Equal(t, 3, disk.Changes()-before)
		time.Sleep(time.Hour)
		require.Equal(t, 3, disk.Changes()-before, "an idle log writes nothing")
		l.Applied(7)
		time.Sleep(time.Hour)
		require.EqualValues(t, 100, l.Recorded(), "it never decreases")

		keep(t, l, storagetest.Entries(101, 110, 1)...)
		l.Applied(110)
		finish(t, l)
		l = open(t, disk.Mount())
		require.EqualValues(t, 110, l.Recorded(), "Close records it")
		finish(t, l)
	})
}
