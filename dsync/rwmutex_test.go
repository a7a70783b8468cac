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

// Hundreds read and write while leaders are lost: a writer is alone, and later ones have higher
// tokens.
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
				m := dsync.NewRWMutex(s, "lock")
				time.Sleep(arrive)
				lock := m.RLock
				if write {
					lock = m.Lock
				}
				h, err := lock(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if write {
					if writers.Add(1) != 1 || readers.Load() != 0 {
						t.Error("a writer is not alone")
					}
					if h.Token() <= last {
						t.Errorf("token %d after %d", h.Token(), last)
					}
					last = h.Token()
				} else {
					if r := readers.Add(1); r > together.Load() {
						together.Store(r)
					}
					if writers.Load() != 0 {
						t.Error("a reader beside a writer")
					}
				}
				time.Sleep(stay)
				if !holds(t, s.Node(), h.Guard()) {
					t.Error("not held any more")
				}
				if write {
					writers.Add(-1)
				} else {
					readers.Add(-1)
				}
				if err := h.Release(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		trouble(c, random, &wg)
		require.Greater(t, together.Load(), int64(1), "readers hold it together")
		require.Zero(t, count(t, c.Leader(), "lock"))
	})
}

// A writer comes when those before it are gone, though readers never cease to come.
func TestRWMutexIsFair(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		m := dsync.NewRWMutex(session(t, c.Node(0)), "lock")
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second) // so that one at least reads at any time
				for ctx.Err() == nil {
					if h, err := m.RLock(ctx); err == nil {
						time.Sleep(3 * time.Second)
						if err := h.Release(t.Context()); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		time.Sleep(10 * time.Second)
		begin := time.Now()
		h, err := m.Lock(ctx)
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(begin), 4*time.Second)
		late := make(chan time.Time, 1)
		go func() {
			if h, err := m.Lock(ctx); err == nil {
				locked := time.Now()
				if err := h.Release(t.Context()); err != nil {
					t.Error(err)
				}
				late <- locked
			}
		}()
		time.Sleep(time.Second)
		require.NoError(t, h.Release(t.Context()))
		released := time.Now()
		require.Greater(t, (<-late).Sub(released), 2*time.Second, "the readers that came before come before")
		cancel()
		wg.Wait()
	})
}

func TestRWMutexTries(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		m := dsync.NewRWMutex(session(t, n), "lock")
		before := revision(t, n)
		reader, err := m.TryRLock(t.Context())
		require.NoError(t, err)
		other, err := m.RLock(t.Context())
		require.NoError(t, err)
		_, err = m.TryLock(t.Context())
		require.ErrorIs(t, err, coterie.ErrLocked)
		require.NoError(t, reader.Release(t.Context()))
		require.NoError(t, other.Release(t.Context()))
		require.Equal(t, before+4, revision(t, n), "two writes for a lock, none for a refusal")
		writer, err := m.TryLock(t.Context())
		require.NoError(t, err)
		_, err = m.TryRLock(t.Context())
		require.ErrorIs(t, err, coterie.ErrLocked)
		require.NoError(t, writer.Release(t.Context()))
	})
}

// A place that somebody deletes is not taken for the lock.
func TestAPlaceThatIsDeletedIsLost(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		m := dsync.NewRWMutex(session(t, n), "lock")
		h, err := m.RLock(t.Context())
		require.NoError(t, err)
		failed := make(chan error, 1)
		go func() {
			_, err := m.Lock(t.Context())
			failed <- err
		}()
		time.Sleep(time.Second)
		_, err = n.Delete(t.Context(), "lock/write/", coterie.WithPrefix())
		require.NoError(t, err)
		require.NoError(t, h.Release(t.Context()))
		require.ErrorIs(t, <-failed, coterie.ErrNotOwner)
	})
}
