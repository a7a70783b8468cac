// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

// Hundreds of readers and writers compete while leaders are lost: a writer is alone, and later writers have
// higher tokens.
func TestRWMutexExcludes(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		random := source(t)
		var readers, writers, together atomic.Int64
		var last int64
		var wg sync.WaitGroup
		for i := range 300 {
			s := session(t, c.Node(i%3), coterie.WithTTL(time.Hour))
			write := random.IntN(4) == 0
			arrive := time.Duration(random.IntN(10_000)) * time.Millisecond
			stay := time.Duration(random.IntN(400)) * time.Millisecond
			wg.Go(func() {
				m := reader(s, "lock")
				if write {
					m = writer(s, "lock")
				}
				time.Sleep(arrive)
				if err := m.acquire(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if write {
					if writers.Add(1) != 1 || readers.Load() != 0 {
						t.Error("a writer is not alone")
					}
					if m.Token() <= last {
						t.Errorf("token %d after %d", m.Token(), last)
					}
					last = m.Token()
				} else {
					if r := readers.Add(1); r > together.Load() {
						together.Store(r)
					}
					if writers.Load() != 0 {
						t.Error("a reader and a writer hold the lock together")
					}
				}
				time.Sleep(stay)
				if !holds(t, s.Node(), m.Guard()) {
					t.Error("the lock is lost")
				}
				if write {
					writers.Add(-1)
				} else {
					readers.Add(-1)
				}
				if err := m.release(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		trouble(c, random, &wg)
		require.Greater(t, together.Load(), int64(1), "readers hold it together")
		require.Zero(t, count(t, c.Leader(), "lock"))
	})
}

// A writer gets its turn after the earlier readers, though new readers never cease to come.
func TestRWMutexIsFair(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := session(t, c.Node(0))
		var wg sync.WaitGroup
		for i := range 3 {
			m := dsync.NewRWMutex(s, "lock")
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second) // so that at least one reads at any time
				for ctx.Err() == nil {
					if err := m.RLock(ctx); err == nil {
						time.Sleep(3 * time.Second)
						if err := m.RUnlock(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		time.Sleep(10 * time.Second)
		begin := time.Now()
		first, second := dsync.NewRWMutex(s, "lock"), dsync.NewRWMutex(s, "lock")
		require.NoError(t, first.Lock(ctx))
		require.LessOrEqual(t, time.Since(begin), 4*time.Second)
		late := make(chan time.Time, 1)
		go func() {
			if err := second.Lock(ctx); err == nil {
				locked := time.Now()
				if err := second.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
				late <- locked
			}
		}()
		time.Sleep(time.Second)
		require.NoError(t, first.Unlock(t.Context()))
		released := time.Now()
		require.Greater(t, (<-late).Sub(released), 2*time.Second, "earlier readers come first")
		cancel()
		wg.Wait()
	})
}

func TestRWMutexTries(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		s := session(t, n)
		first, second, third := dsync.NewRWMutex(s, "lock"), dsync.NewRWMutex(s, "lock"), dsync.NewRWMutex(s, "lock")
		before := revision(t, n)
		require.NoError(t, first.TryRLock(t.Context()))
		require.NoError(t, second.RLock(t.Context()))
		require.ErrorIs(t, third.TryLock(t.Context()), coterie.ErrLocked)
		require.NoError(t, first.RUnlock(t.Context()))
		require.NoError(t, second.RUnlock(t.Context()))
		require.Equal(t, before+4, revision(t, n), "two writes for a lock, none for a rejection")
		require.NoError(t, third.TryLock(t.Context()))
		require.ErrorIs(t, first.TryRLock(t.Context()), coterie.ErrLocked)
		require.NoError(t, third.Unlock(t.Context()))
	})
}

// A lock for reading is not released as one for writing, nor the reverse.
func TestRWMutexUnlocksAsItLocked(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		m := dsync.NewRWMutex(session(t, c.Node(0)), "lock")
		require.NoError(t, m.RLock(t.Context()))
		require.ErrorIs(t, m.Unlock(t.Context()), coterie.ErrNotOwner)
		require.ErrorIs(t, m.Lock(t.Context()), coterie.ErrLocked, "a read lock does not become a write lock")
		require.NoError(t, m.RUnlock(t.Context()))
		require.NoError(t, m.Lock(t.Context()))
		require.ErrorIs(t, m.RUnlock(t.Context()), coterie.ErrNotOwner)
		require.NoError(t, m.Unlock(t.Context()))
	})
}

// If the place of a waiter is deleted, the waiter does not take that for its turn.
func TestADeletedPlaceIsLost(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		s := session(t, n)
		reading, waiting := dsync.NewRWMutex(s, "lock"), dsync.NewRWMutex(s, "lock")
		require.NoError(t, reading.RLock(t.Context()))
		failed := make(chan error, 1)
		go func() { failed <- waiting.Lock(t.Context()) }()
		time.Sleep(time.Second)
		_, err := n.Delete(t.Context(), "lock/write/", coterie.WithPrefix())
		require.NoError(t, err)
		require.NoError(t, reading.RUnlock(t.Context()))
		require.ErrorIs(t, <-failed, coterie.ErrNotOwner)
	})
}
