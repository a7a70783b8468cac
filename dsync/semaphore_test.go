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

// Hundreds acquire permits while leaders are lost: never more than the size, in the order of their requests.
func TestSemaphoreLimitsAndIsFair(t *testing.T) {
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
				if err := m.Acquire(t.Context(), n); err != nil {
					t.Error(err)
					return
				}
				now := used.Add(n)
				if now > size {
					t.Errorf("%d permits taken of %d", now, size)
				}
				mu.Lock()
				most.Store(max(most.Load(), now))
				tokens = append(tokens, m.Token())
				mu.Unlock()
				time.Sleep(stay)
				used.Add(-n)
				if err := m.Release(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		trouble(c, random, &wg)
		require.EqualValues(t, size, most.Load(), "all permits were used")
		require.Len(t, tokens, 300)
		require.Zero(t, count(t, c.Leader(), "semaphore"))
	})
}

// A request for many permits is not overtaken by later ones that would fit.
func TestSemaphoreServesInOrder(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		s := session(t, c.Follower())
		first := dsync.NewSemaphore(s, "semaphore", 4)
		require.NoError(t, first.Acquire(t.Context(), 1))
		var mu sync.Mutex
		var served []int64
		var wg sync.WaitGroup
		for i, n := range []int64{4, 1, 3, 2, 1, 1, 4, 2, 2, 1} {
			m := dsync.NewSemaphore(s, "semaphore", 4)
			wg.Go(func() {
				time.Sleep(time.Duration(i+1) * time.Second)
				if err := m.Acquire(t.Context(), n); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				served = append(served, m.Token())
				mu.Unlock()
				time.Sleep(time.Second)
				if err := m.Release(t.Context()); err != nil {
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

// coarse replaces tokens by numbers in their order. Requests that may be served at the same moment have the same
// number.
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
		s := session(t, n)
		first, second := dsync.NewSemaphore(s, "semaphore", 3), dsync.NewSemaphore(s, "semaphore", 3)
		for _, bad := range []int64{-1, 0, 4} {
			require.ErrorIs(t, first.Acquire(t.Context(), bad), coterie.ErrInvalidOption)
		}
		before := revision(t, n)
		require.NoError(t, first.TryAcquire(t.Context(), 2))
		require.ErrorIs(t, second.TryAcquire(t.Context(), 2), coterie.ErrLocked)
		require.NoError(t, second.Acquire(t.Context(), 1))
		require.NoError(t, second.Release(t.Context()))
		require.NoError(t, first.Release(t.Context()))
		require.Equal(t, before+6, revision(t, n), "two writes each")
		require.Zero(t, count(t, n, "semaphore"))

		_, err := n.Put(t.Context(), "semaphore/1-00000001", "many")
		require.NoError(t, err)
		require.ErrorIs(t, first.Acquire(t.Context(), 1), dsync.ErrForeignValue)
	})
}

// TryAcquire may be served after a later request has looked, and found no free permits. It signals that request.
func TestATryThatIsServedSignalsTheNext(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, slow := c.Leader(), c.Follower()
		s := session(t, leader)
		holder, late := dsync.NewSemaphore(s, "slots", 2), dsync.NewSemaphore(s, "slots", 2)
		trying := dsync.NewSemaphore(session(t, slow), "slots", 2)
		require.NoError(t, holder.Acquire(t.Context(), 2))
		c.Delay(c.Index(leader), c.Index(slow), 100*time.Millisecond)
		c.Delay(c.Index(slow), c.Index(leader), 100*time.Millisecond)
		tried, behind := make(chan error, 1), make(chan error, 1)
		go func() { tried <- trying.TryAcquire(t.Context(), 1) }()
		awaitPlaces := func(keys int64) {
			for count(t, leader, "slots/") < keys {
				time.Sleep(time.Millisecond)
			}
		}
		awaitPlaces(2)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() { behind <- late.Acquire(ctx, 1) }()
		awaitPlaces(3)
		time.Sleep(10 * time.Millisecond) // it has looked
		require.NoError(t, holder.Release(t.Context()))
		require.NoError(t, <-tried)
		require.NoError(t, <-behind)
	})
}

// A release wakes the first waiter: the hundreds behind it cost neither a write nor a read.
func TestASemaphoreReleaseWakesOne(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		s := session(t, n)
		first := dsync.NewSemaphore(s, "semaphore", 1)
		require.NoError(t, first.Acquire(t.Context(), 1))
		served := make(chan *dsync.Semaphore, 200)
		for range 200 {
			m := dsync.NewSemaphore(s, "semaphore", 1)
			go func() {
				if err := m.Acquire(t.Context(), 1); err != nil {
					t.Error(err)
				}
				served <- m
			}()
		}
		time.Sleep(time.Second)
		before := revision(t, n)
		require.NoError(t, first.Release(t.Context()))
		m := <-served
		time.Sleep(time.Second)
		require.Empty(t, served)
		require.Equal(t, before+2, revision(t, n), "the release, and the signal of the served request")
		require.NoError(t, m.Release(t.Context()))
		for range 199 {
			m := <-served
			require.NoError(t, m.Release(t.Context()))
		}
		require.Equal(t, before+201+199, revision(t, n), "201 releases; the last request has nobody to signal")
	})
}
