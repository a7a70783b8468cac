// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

// Hundreds add while leaders are lost: the sum is right, and no two calls return the same sum.
func TestACounterLosesNoAddition(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		random := source(t)
		var seen sync.Map
		var added, unknown atomic.Int64
		var wg sync.WaitGroup
		for i := range 15 { // five on each node, so that they conflict
			counter := dsync.NewCounter(c.Node(i%3), "counter")
			for range 20 {
				arrive := time.Duration(random.IntN(10_000)) * time.Millisecond
				wg.Go(func() {
					time.Sleep(arrive)
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
					defer cancel()
					sum, err := counter.Add(ctx, 1)
					switch {
					case err == nil:
						added.Add(1)
						if _, twice := seen.LoadOrStore(sum, true); twice {
							t.Error("seen twice:", sum)
						}
					case errors.Is(err, coterie.ErrMaybeApplied):
						unknown.Add(1)
					}
				})
			}
		}
		trouble(c, random, &wg)
		time.Sleep(10 * time.Second)
		sum, err := dsync.NewCounter(c.Leader(), "counter").Get(t.Context())
		require.NoError(t, err)
		t.Log(added.Load(), "added,", unknown.Load(), "unknown, the sum is", sum)
		require.Greater(t, added.Load(), int64(100))
		require.GreaterOrEqual(t, sum, added.Load())
		require.LessOrEqual(t, sum, added.Load()+unknown.Load())
	})
}

func TestCounterCalls(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		ctx, n := t.Context(), c.Node(0)
		a, b := dsync.NewCounter(n, "counter"), dsync.NewCounter(n, "counter")
		add := func(c *dsync.Counter, delta, want int64) {
			t.Helper()
			sum, err := c.Add(ctx, delta)
			require.NoError(t, err)
			require.Equal(t, want, sum)
		}
		sum, err := a.Get(ctx)
		require.NoError(t, err)
		require.Zero(t, sum)
		before := revision(t, n)
		for i := range int64(10) {
			add(a, 1, i+1)
		}
		require.Equal(t, before+10, revision(t, n))
		add(b, math.MaxInt64-10, math.MaxInt64)
		_, err = b.Add(ctx, 1)
		require.ErrorIs(t, err, dsync.ErrOverflow)
		add(b, math.MinInt64, -1)
		add(a, 0, -1)
		_, err = b.Add(ctx, math.MinInt64)
		require.ErrorIs(t, err, dsync.ErrOverflow)
		_, err = a.Add(ctx, math.MinInt64+1)
		require.NoError(t, err)
		add(b, math.MaxInt64, -1)
		add(a, math.MaxInt64, math.MaxInt64-1)
		add(b, -10, math.MaxInt64-11)
		add(a, 10, math.MaxInt64-1)

		_, err = n.Put(ctx, "counter", "many")
		require.NoError(t, err)
		_, err = a.Add(ctx, 1)
		require.ErrorIs(t, err, dsync.ErrForeignValue)
		_, err = a.Get(ctx)
		require.ErrorIs(t, err, dsync.ErrForeignValue)
		_, err = n.Delete(ctx, "counter")
		require.NoError(t, err)
		add(a, 5, 5)
	})
}
