// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

// The error of a call that gives up names the process that holds the lock, and says so if there is no leader.
func TestAnErrorNamesTheHolder(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		holder := session(t, n, coterie.WithTTL(time.Hour))
		require.NoError(t, dsync.NewRWMutex(holder, "written").Lock(t.Context()))
		require.NoError(t, dsync.NewRWMutex(holder, "read").RLock(t.Context()))
		require.NoError(t, dsync.NewSemaphore(holder, "pool", 3).Acquire(t.Context(), 2))
		require.NoError(t, dsync.NewBarrier(n, "barrier").Raise(t.Context(), coterie.WithLease(holder.Lease())))
		held := make(chan struct{})
		running := make(chan struct{})
		go func() {
			_, _ = dsync.NewOnce(holder, "once").Do(t.Context(), func(context.Context) (string, error) {
				close(running)
				<-held
				return "", nil
			})
		}()
		<-running
		defer close(held)

		s := session(t, c.Leader(), coterie.WithTTL(time.Hour))
		discard := func(_ any, err error) error { return err }
		m, pool := dsync.NewRWMutex(s, "written"), dsync.NewSemaphore(s, "pool", 3)
		waits := map[string]func(ctx context.Context) error{
			"written": m.Lock,
			"read":    dsync.NewRWMutex(s, "read").Lock,
			"pool":    func(ctx context.Context) error { return pool.Acquire(ctx, 2) },
			"barrier": dsync.NewBarrier(s.Node(), "barrier").Wait,
			"once/turn": func(ctx context.Context) error {
				return discard(dsync.NewOnce(s, "once").Do(ctx, func(context.Context) (string, error) { return "", nil }))
			},
		}
		check := func(name string, err, cause error) {
			var held *coterie.HeldError
			require.ErrorAs(t, err, &held, name)
			require.ErrorIs(t, err, cause)
			require.Equal(t, holder.Lease(), held.Lease)
			require.Equal(t, name, held.Name)
			h, ok := coterie.ParseHolder(held.Value)
			if name != "pool" { // the value of its key is a number of permits
				require.True(t, ok, name)
				require.Equal(t, n.Status().Name, h.Node)
			}
		}
		for name, wait := range waits {
			check(name, wait(short(t)), context.DeadlineExceeded)
		}
		check("written", m.TryLock(t.Context()), coterie.ErrLocked)
		check("written", m.TryRLock(t.Context()), coterie.ErrLocked)
		check("pool", pool.TryAcquire(t.Context(), 2), coterie.ErrLocked)
		double := dsync.NewDoubleBarrier(s, "double", 3)
		require.ErrorContains(t, discard(double.Enter(short(t))), `1 of 3 had entered "double"`)

		c.Partition() // each alone
		for name, wait := range waits {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := wait(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			require.ErrorIs(t, err, coterie.ErrNoLeader, name)
		}
		c.Heal()
	})
}
