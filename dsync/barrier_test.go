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

func TestABarrierBlocksAllUntilItIsLifted(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		random := source(t)
		barrier := func(i int) *dsync.Barrier { return dsync.NewBarrier(c.Node(i%3), "barrier") }
		require.NoError(t, barrier(0).Wait(t.Context()))
		require.NoError(t, barrier(0).Lift(t.Context()))
		require.NoError(t, barrier(0).Raise(t.Context()))
		require.NoError(t, barrier(1).Raise(t.Context()))
		require.ErrorIs(t, barrier(2).Wait(short(t)), context.DeadlineExceeded)
		var passed atomic.Int64
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if err := barrier(i).Wait(t.Context()); err != nil {
					t.Error(err)
				}
				passed.Add(1)
			})
		}
		wg.Go(func() {
			b := barrier(1)
			time.Sleep(time.Minute)
			if passed.Load() != 0 {
				t.Error("a waiter passed a raised barrier")
			}
			if err := b.Lift(t.Context()); err != nil {
				t.Error(err)
			}
			if err := b.Raise(t.Context()); err != nil { // directly after they passed
				t.Error(err)
			}
		})
		trouble(c, random, &wg)
		require.EqualValues(t, 200, passed.Load())

		require.NoError(t, barrier(0).Lift(t.Context()))
		s := session(t, c.Follower())
		require.NoError(t, barrier(0).Raise(t.Context(), coterie.WithLease(s.Lease())))
		c.Pause(c.Index(s.Node()))
		require.NoError(t, barrier(c.Index(c.Leader())).Wait(t.Context()), "it ends with its lease")
	})
}
