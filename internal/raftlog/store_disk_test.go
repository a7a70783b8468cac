// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
	"github.com/coterie-kv/coterie/internal/wire"
)

var errBroken = errors.New("broken")

func TestFullDiskIsRetriedUntilThereIsSpace(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		disk.Fill(true) // before there is a segment
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(1, 5, 1)))
		time.Sleep(time.Minute)
		require.GreaterOrEqual(t, l.Condition().Short, time.Minute-retryShort)
		require.NoError(t, l.Condition().Err)
		require.Len(t, l.Trouble(), 1)
		disk.Fill(false)
		settle(t, l)
		require.Zero(t, l.Condition())

		disk.Fill(true) // there is a segment, but the next batch is larger than the space left in it
		require.NoError(t, l.Logs().StoreLog(storagetest.Entry(6, 1)))
		settle(t, l)
		require.NoError(t, l.Logs().StoreLog(sized(7, 2*allocateStep)))
		time.Sleep(time.Second)
		require.NotZero(t, l.Condition().Short)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(8, 9, 1)))
		require.NoError(t, l.Logs().DeleteRange(9, 9))
		require.EqualValues(t, 6, l.Durable())
		disk.Fill(false)
		settle(t, l)
		want := append(storagetest.Entries(1, 6, 1), sized(7, 2*allocateStep), storagetest.Entry(8, 1))
		holds(t, l, want...)
		disk.Crash(nil)
		l = open(t, disk.Mount())
		holds(t, l, want...)
		keep(t, l, storagetest.Entry(9, 1))
		finish(t, l)
	})
}

func TestCrashOfFullDiskKeepsAcknowledgedEntries(t *testing.T) {
	r := random(t)
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 5, 1)...)
		disk.Fill(true)
		require.NoError(t, l.Logs().StoreLog(sized(6, 2*allocateStep)))
		time.Sleep(time.Second)
		disk.Crash(r)
		disk.Fill(false)
		l = open(t, disk.Mount())
		holds(t, l, storagetest.Entries(1, 5, 1)...)
		finish(t, l)
	})
}

func TestFailedSyncEndsLog(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 5, 1)...)
		disk.FailSync(errBroken)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(6, 10, 1)))
		require.ErrorIs(t, l.Await(t.Context(), l.Position()), errBroken)
		disk.FailSync(nil)
		require.ErrorIs(t, l.Condition().Err, errBroken)
		require.Len(t, l.Trouble(), 1)
		require.ErrorIs(t, l.Logs().StoreLogs(storagetest.Entries(11, 11, 1)), errBroken)
		require.ErrorIs(t, l.Logs().DeleteRange(3, 10), errBroken)
		require.ErrorIs(t, l.Await(t.Context(), l.Position()), errBroken)
		require.ErrorIs(t, l.AwaitIndex(t.Context(), 6), errBroken)
		require.NoError(t, l.AwaitIndex(t.Context(), 5))
		require.EqualValues(t, 5, l.Durable())
		holds(t, l, storagetest.Entries(1, 10, 1)...)
		require.ErrorIs(t, l.Close(t.Context()), errBroken, "the queued changes are lost")
	})
}

func TestFailedVoteBlocksUntilEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		disk.FailSync(errBroken)
		require.NoError(t, l.Stable().SetUint64(keyVotedIn, 7))
		voted := waiting(func() error { return l.Stable().Set(keyCandidate, []byte("a")) })
		time.Sleep(time.Hour)
		require.Empty(t, voted)
		require.ErrorIs(t, l.Condition().Err, errBroken)
		require.ErrorIs(t, l.Logs().StoreLogs(storagetest.Entries(1, 1, 1)), errBroken)
		l.End()
		require.NoError(t, <-voted, "raft would panic")
		_, err := l.Stable().Get(keyCandidate)
		require.EqualError(t, err, "not found")
	})
}

// Raft panics on an error, and uses any entry that it gets; it may even send it.
func TestUnreadableEntryBlocksUntilEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 5, 1)...)
		finish(t, l)
		l = open(t, disk.Mount())
		disk.Crash(nil) // open files can no longer be read
		read := waiting(func() error { return l.Logs().GetLog(3, &raft.Log{}) })
		time.Sleep(time.Hour)
		require.Empty(t, read)
		require.Error(t, l.Condition().Err)
		_, err := l.Entry(3)
		require.Error(t, err, "Entry returns the error")
		l.End()
		require.NoError(t, <-read)
		_ = l.Close(t.Context())
	})
}

// An entry that was whole when the log was opened, or written, may be damaged when it is read again. The
// log returns no byte of such an entry.
func TestChangedEntryOnDiskFailsLog(t *testing.T) {
	for name, step := range map[string]int64{"since it was written": 10, "since it was opened": 1} {
		t.Run(name, func(t *testing.T) {
			size := int64(1)
			for at := int64(0); at < size; at += step {
				inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
					keep(t, l, storagetest.Entries(1, 5, 1)...)
					if step == 1 {
						finish(t, l)
						l = open(t, disk.Mount())
					} else {
						keep(t, l, sized(6, 2*cacheBytes))
						require.Zero(t, inMemory(l))
					}
					name := names(t, disk.Mount(), segmentDir, segmentSuffix)[0]
					message := wire.Message(nil, 1, func(b []byte) []byte { return storage.AppendEntry(b, storagetest.Entry(3, 1)) })
					place := bytes.Index(vfstest.Load(t, disk.Mount(), name), message)
					size = int64(len(message))
					require.True(t, disk.Damage(name, int64(place)+at))
					_, err := l.Entry(2)
					require.NoError(t, err, "another entry is damaged")
					read := waiting(func() error { return l.Logs().GetLog(3, &raft.Log{}) })
					synctest.Wait()
					require.Empty(t, read)
					var corrupt *CorruptError
					require.ErrorAs(t, l.Condition().Err, &corrupt, "byte %d", at)
					require.Equal(t, name, corrupt.File)
					require.NotEmpty(t, l.Trouble())
					l.End()
					require.NoError(t, <-read)
					_ = l.Close(t.Context())
				})
			}
			require.Greater(t, size, int64(20))
		})
	}
}

func TestStalledDiskIsReported(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entries(1, 1, 1)...)
		require.Zero(t, l.Condition())
		disk.Stall(true)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(2, 2, 1)))
		synctest.Wait()
		for i := range 5 {
			require.Equal(t, time.Duration(i)*time.Second, l.Condition().Stalled)
			time.Sleep(time.Second)
		}
		disk.Stall(false)
		settle(t, l)
		require.Zero(t, l.Condition())
	})
}

func TestWritesAreMeasured(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		keep(t, l, storagetest.Entry(1, 1)) // there is no measure function yet
		synctest.Wait()                     // a write is measured after it is durable
		var sizes []int
		var longest time.Duration
		l.Measure(func(bytes int, took time.Duration) {
			sizes = append(sizes, bytes)
			longest = max(longest, took)
		})
		disk.Stall(true)
		require.NoError(t, l.Logs().StoreLog(sized(2, 10_000)))
		time.Sleep(time.Second)
		require.Empty(t, sizes, "it is not durable yet")
		disk.Stall(false)
		settle(t, l)
		synctest.Wait()
		require.Len(t, sizes, 1)
		require.InDelta(t, 10_000, sizes[0], 200)
		require.GreaterOrEqual(t, longest, time.Second)
		finish(t, l)
	})
}

func TestCloseMakesQueueDurable(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		disk.Delay(time.Second)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(1, 5, 1)))
		synctest.Wait()
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(6, 9, 1)))
		finish(t, l)
		require.ErrorIs(t, l.Logs().StoreLogs(storagetest.Entries(10, 10, 1)), errClosed)
		disk.Delay(0)
		disk.Crash(nil)
		l = open(t, disk.Mount())
		holds(t, l, storagetest.Entries(1, 9, 1)...)
		finish(t, l)
	})
}

func TestHangingCloseReturnsError(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		disk.Stall(true)
		require.NoError(t, l.Logs().StoreLogs(storagetest.Entries(1, 1, 1)))
		err := l.Close(bounded(t, time.Second))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "hangs")
		_, err = Open(disk.Mount(), home, segments.Format{}, false)
		require.ErrorIs(t, err, fault.ErrDirInUse)
		disk.Stall(false)
	})
}

func TestDirectoryIsLocked(t *testing.T) {
	inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
		files := disk.Mount()
		_, err := Open(files, home, segments.Format{}, false)
		require.ErrorIs(t, err, fault.ErrDirInUse)
		require.ErrorContains(t, err, home)
		opened := waiting(func() error {
			l, err := Open(files, home, segments.Format{}, false)
			if err == nil {
				err = l.Close(t.Context())
			}
			return err
		})
		time.Sleep(lockWait / 2)
		finish(t, l)
		require.NoError(t, <-opened, "Open waits for a Log that is closing")
	})
}

func TestFirstFormatIsRejected(t *testing.T) {
	files := vfs.NewMemory().Mount()
	require.NoError(t, files.MkdirAll(home))
	vfstest.Save(t, files, home+"/"+earlierStore, nil)
	_, err := Open(files, home, segments.Format{}, false)
	require.ErrorIs(t, err, wire.ErrFormat)
}

// The writer removes files, too, and all changes wait in the meantime.
func TestHangingCompactionIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewForgetful()
		l := openSized(t, disk.Mount(), smallSegment)
		for i := range uint64(4) {
			keep(t, l, sized(i+1, smallSegment))
		}
		snapshot(t, l, 4, 1)
		disk.Delay(time.Second)
		require.NoError(t, l.Logs().DeleteRange(1, 2))
		time.Sleep(1500 * time.Millisecond)
		require.GreaterOrEqual(t, l.Condition().Stalled, time.Second)
		disk.Delay(0)
		time.Sleep(5 * time.Second)
		require.Zero(t, l.Condition())
		finish(t, l)
	})
}

func TestCloseReportsLostChanges(t *testing.T) {
	for name, fault := range map[string]func(disk *vfs.Memory){
		"full":    func(disk *vfs.Memory) { disk.Fill(true) },
		"failing": func(disk *vfs.Memory) { disk.FailSync(errBroken) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
				keep(t, l, storagetest.Entries(1, 5, 1)...)
				disk.Stall(true)
				require.NoError(t, l.Logs().StoreLog(sized(6, 2*allocateStep)))
				synctest.Wait()
				fault(disk)
				closed := waiting(func() error { return l.Close(t.Context()) })
				synctest.Wait()
				disk.Stall(false)
				require.Error(t, <-closed)
				disk.Fill(false)
				disk.FailSync(nil)
				l = open(t, disk.Mount())
				defer finish(t, l)
				require.Equal(t, storagetest.Entries(1, 5, 1), all(t, l)[:5])
			})
		})
	}
}
