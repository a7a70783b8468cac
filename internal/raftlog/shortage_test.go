// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// shortages are the errors of a system that is short of a resource.
var shortages = []syscall.Errno{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR,
}

// work uses everything in a running log: segments that begin and go, votes, and snapshots that are
// written, listed and read. It repeats the operations that raft or the node would repeat.
func work(t *testing.T, l *Log) {
	for {
		err := l.Identify(crashIdentity)
		if err == nil {
			break
		}
		require.True(t, vfs.Short(err), err)
		time.Sleep(time.Second)
	}
	for i := range uint64(3) {
		keep(t, l, sized(i+1, smallSegment))
	}
	elect(t, l, 2, "a")
	for {
		sink, err := l.Snapshots().Create(1, 2, 1, configuration, 1, nil)
		if err == nil {
			_, err = sink.Write(body(t, "state 2"))
			if err == nil {
				err = sink.Close()
			} else {
				_ = sink.Cancel()
			}
		}
		if err == nil {
			break
		}
		require.True(t, vfs.Short(err), err)
		time.Sleep(time.Second)
	}
	require.NoError(t, l.Logs().DeleteRange(1, 1))
	member := storagetest.Entry(4, 2)
	member.Type = raft.LogConfiguration
	require.NoError(t, l.Logs().StoreLog(member))
	metas, err := l.Snapshots().List()
	require.NoError(t, err)
	_, r, err := l.Snapshots().Open(metas[0].ID)
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	settle(t, l)
	l.store.mu.Lock()
	l.store.evict(uint64(len(l.store.tail)))
	l.store.mu.Unlock()
	for i := uint64(2); i <= 4; i++ {
		require.NoError(t, l.Logs().GetLog(i, &raft.Log{}))
	}
}

// During any shortage, in any operation, the log waits, reports the shortage, and continues.
func TestShortageAtEveryStepIsRetried(t *testing.T) {
	for _, errno := range shortages {
		t.Run(errno.Error(), func(t *testing.T) {
			reported, steps, finished := 0, 0, false
			for ; !finished; steps++ {
				synctest.Test(t, func(t *testing.T) {
					disk := vfs.NewForgetful()
					l := openSized(t, disk.Mount(), smallSegment)
					disk.Shortage(steps, errno)
					done := waiting(func() error { work(t, l); return nil })
					time.Sleep(time.Minute)
					require.NoError(t, l.Condition().Err)
					if c := l.Condition(); c.Short > 0 {
						reported++
						require.ErrorIs(t, c.Lack, errno)
						require.Greater(t, c.Short, 50*time.Second)
					}
					finished = len(done) == 1 && l.Condition().Short == 0
					disk.Shortage(0, nil)
					require.NoError(t, <-done)
					time.Sleep(time.Second)
					require.Zero(t, l.Condition())
					want := all(t, l)
					finish(t, l)
					disk.Crash(nil)
					l = openSized(t, disk.Mount(), smallSegment)
					require.Equal(t, span(want), span(all(t, l)))
					requireBallot(t, l, 2, 2, "a")
					id, _ := l.Identity()
					require.Equal(t, crashIdentity, id)
					finish(t, l)
				})
			}
			t.Log(steps, "steps,", reported, "of which wait and report")
			require.Greater(t, reported, 20)
			require.Greater(t, steps, reported)
		})
	}
}

// A failed sync may have lost its data, whatever the reason.
func TestFailedSyncIsNoShortage(t *testing.T) {
	for _, errno := range shortages {
		inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
			keep(t, l, storagetest.Entries(1, 5, 1)...)
			disk.FailSync(errno)
			require.NoError(t, l.Logs().StoreLog(storagetest.Entry(6, 1)))
			require.ErrorIs(t, l.Await(t.Context(), l.Position()), errno)
			disk.FailSync(nil)
			require.ErrorIs(t, l.Condition().Err, errno)
			require.Zero(t, l.Condition().Short)
			_ = l.Close(t.Context())
		})
	}
}

// A log that closes right after a shortage does not wait for the next retry, and loses nothing.
func TestCloseRetriesAfterShortage(t *testing.T) {
	for _, errno := range shortages {
		inBubble(t, func(t *testing.T, disk *vfs.Memory, l *Log) {
			keep(t, l, storagetest.Entries(1, 5, 1)...)
			disk.Shortage(0, errno)
			require.NoError(t, l.Logs().StoreLog(storagetest.Entry(6, 1)))
			synctest.Wait()
			require.ErrorIs(t, l.Condition().Lack, errno)
			disk.Shortage(0, nil)
			finish(t, l)
			l = open(t, disk.Mount())
			require.Equal(t, []uint64{1, 6}, span(all(t, l)))
			finish(t, l)
		})
	}
}

// A shortage during Open is not damage, and changes nothing in the directory.
func TestShortageFailsOpenAndChangesNothing(t *testing.T) {
	for _, errno := range shortages {
		t.Run(errno.Error(), func(t *testing.T) {
			for steps, opened := 0, false; !opened; steps++ {
				synctest.Test(t, func(t *testing.T) {
					disk := vfs.NewForgetful()
					l := openSized(t, disk.Mount(), smallSegment)
					work(t, l)
					want := all(t, l)
					finish(t, l)
					disk.Shortage(steps, errno)
					l, err := openWith(disk.Mount(), home, false, smallSegment)
					_, inspected := Read(disk.Mount(), home, segments.Format{})
					disk.Shortage(0, nil)
					if opened = err == nil; !opened {
						require.ErrorIs(t, err, errno)
						require.ErrorIs(t, inspected, errno)
						var corrupt *CorruptError
						require.NotErrorAs(t, err, &corrupt)
						l = openSized(t, disk.Mount(), smallSegment)
					}
					require.Equal(t, span(want), span(all(t, l)))
					finish(t, l)
				})
			}
		})
	}
}
