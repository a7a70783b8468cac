// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

// Hundreds take permits while leaders are lost: never more than there are, in the order of their
// places.
func TestSemaphoreBoundsAndIsFair(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const size = 7
		random := source(t)
		var used, most atomic.Int64
		var mu sync.Mutex
		var tokens []int64
		var wg sync.WaitGroup
		for i := range 300 {
			s := session(t, c.Node(i%3), coterie.WithTTL(time.Hour))
			n := 1 + random.Int64N(size)
			arrive := time.Duration(random.IntN(10_000)) * time.Millisecond
			stay := time.Duration(random.IntN(400)) * time.Millisecond
			wg.Go(func() {
				m := dsync.NewSemaphore(s, "semaphore", size)
				time.Sleep(arrive)
				h, err := m.Acquire(t.Context(), n)
				if err != nil {
					t.Error(err)
					return
				}
				now := used.Add(n)
				if now > size {
					t.Errorf("%d permits taken of %d", now, size)
				}
				mu.Lock()
				most.Store(max(most.Load(), now))
				tokens = append(tokens, h.Token())
				mu.Unlock()
				time.Sleep(stay)
				used.Add(-n)
				if err := h.Release(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		trouble(c, random, &wg)
		require.EqualValues(t, size, most.Load(), "all were of use")
		require.Len(t, tokens, 300)
		require.Zero(t, count(t, c.Leader(), "semaphore"))
	})
}

// One that asks for much is not overtaken by those that would fit in.
func TestASemaphoreServesInOrder(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		m := dsync.NewSemaphore(session(t, c.Follower()), "semaphore", 4)
		first, err := m.Acquire(t.Context(), 1)
		require.NoError(t, err)
		var mu sync.Mutex
		var served []int64
		var wg sync.WaitGroup
		for i, n := range []int64{4, 1, 3, 2, 1, 1, 4, 2, 2, 1} {
			wg.Go(func() {
				time.Sleep(time.Duration(i+1) * time.Second)
				h, err := m.Acquire(t.Context(), n)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				served = append(served, h.Token())
				mu.Unlock()
				time.Sleep(time.Second)
				if err := h.Release(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Minute)
		require.Empty(t, served)
		require.NoError(t, first.Release(t.Context()))
		wg.Wait()
		require.Len(t, served, 10)
		require.IsNonDecreasing(t, coarse(served))
	})
}

// coarse numbers tokens by their order, where those that may be served at the same moment are
// alike.
func coarse(tokens []int64) (out []int) {
	sorted := slices.Sorted(slices.Values(tokens))
	batch := []int{0, 1, 1, 2, 2, 2, 3, 4, 4, 5}
	for _, token := range tokens {
		out = append(out, batch[slices.Index(sorted, token)])
	}
	return out
}

func TestSemaphoreCalls(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		m := dsync.NewSemaphore(session(t, n), "semaphore", 3)
		for _, bad := range []int64{-1, 0, 4} {
			_, err := m.Acquire(t.Context(), bad)
			require.ErrorIs(t, err, coterie.ErrInvalidOption)
		}
		before := revision(t, n)
		two, err := m.TryAcquire(t.Context(), 2)
		require.NoError(t, err)
		_, err = m.TryAcquire(t.Context(), 2)
		require.ErrorIs(t, err, coterie.ErrLocked)
		one, err := m.Acquire(t.Context(), 1)
		require.NoError(t, err)
		require.NoError(t, one.Release(t.Context()))
		require.NoError(t, two.Release(t.Context()))
		require.Equal(t, before+6, revision(t, n), "two writes each")
		require.Zero(t, count(t, n, "semaphore"))

		_, err = n.Put(t.Context(), "semaphore/1-00000001", "many")
		require.NoError(t, err)
		_, err = m.Acquire(t.Context(), 1)
		require.ErrorIs(t, err, dsync.ErrForeignValue)
	})
}

// What a release wakes is the first who waits: hundreds behind it cost no write, and no look.
// What a try finds free may have become so after somebody behind it has seen that it was not.
func TestATryThatIsServedLateWakesWhoStandsBehind(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, slow := c.Leader(), c.Follower()
		ours := dsync.NewSemaphore(session(t, leader), "slots", 2)
		theirs := dsync.NewSemaphore(session(t, slow), "slots", 2)
		all, err := ours.Acquire(t.Context(), 2)
		require.NoError(t, err)
		c.Delay(c.Index(leader), c.Index(slow), 100*time.Millisecond)
		c.Delay(c.Index(slow), c.Index(leader), 100*time.Millisecond)
		tried, behind := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := theirs.TryAcquire(t.Context(), 1)
			tried <- err
		}()
		stand := func(keys int64) {
			for count(t, leader, "slots/") < keys {
				time.Sleep(time.Millisecond)
			}
		}
		stand(2)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() {
			_, err := ours.Acquire(ctx, 1)
			behind <- err
		}()
		stand(3)
		time.Sleep(10 * time.Millisecond) // it has looked
		require.NoError(t, all.Release(t.Context()))
		require.NoError(t, <-tried)
		require.NoError(t, <-behind)
	})
}

func TestAReleaseOfASemaphoreWakesOne(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		m := dsync.NewSemaphore(session(t, n), "semaphore", 1)
		first, err := m.Acquire(t.Context(), 1)
		require.NoError(t, err)
		served := make(chan *dsync.Hold, 200)
		for range 200 {
			go func() {
				h, err := m.Acquire(t.Context(), 1)
				if err != nil {
					t.Error(err)
				}
				served <- h
			}()
		}
		time.Sleep(time.Second)
		before := revision(t, n)
		require.NoError(t, first.Release(t.Context()))
		h := <-served
		time.Sleep(time.Second)
		require.Empty(t, served)
		require.Equal(t, before+2, revision(t, n), "the release, and the sign of who was served")
		require.NoError(t, h.Release(t.Context()))
		for range 199 {
			h := <-served
			require.NoError(t, h.Release(t.Context()))
		}
		require.Equal(t, before+201+199, revision(t, n), "201 releases, and the last had nobody to give a sign to")
	})
}
