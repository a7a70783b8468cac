// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestRunWithLockRunsOnceAndUnlocks(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		guarded := func(ctx context.Context) bool {
			return commit(t, n.Txn(t.Context()).If(coterie.GuardFromContext(ctx)).Then(coterie.OpPut("k", "v"))).Succeeded
		}
		var stale context.Context
		last := int64(0)
		for range 3 {
			runs := 0
			require.NoError(t, coterie.RunWithLock(t.Context(), n, "lock", func(ctx context.Context, token int64) error {
				runs++
				stale = ctx
				require.Greater(t, token, last)
				last = token
				require.True(t, guarded(ctx))
				require.ErrorIs(t, coterie.NewMutex(session(t, n), "lock").TryLock(t.Context()), coterie.ErrLocked)
				return nil
			}))
			require.Equal(t, 1, runs)
			require.False(t, guarded(stale))
			require.Error(t, stale.Err())
			require.Empty(t, get(t, n, "lock", coterie.WithPrefix()).KVs)
		}
		failed := errors.New("failed")
		require.Equal(t, failed, coterie.RunWithLock(t.Context(), n, "lock", func(context.Context, int64) error { return failed }))
		require.PanicsWithValue(t, "fn", func() {
			_ = coterie.RunWithLock(t.Context(), n, "lock", func(context.Context, int64) error { panic("fn") })
		})
		require.NoError(t, coterie.NewMutex(session(t, n), "lock").TryLock(t.Context()))
	})
}

// A caller that waits loses its session and its place. It waits on with others, and fn runs once.
func TestRunWithLockHealsWhileItWaits(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		holder := coterie.NewMutex(session(t, c.Leader(), coterie.WithTTL(time.Hour)), "lock")
		require.NoError(t, holder.Lock(t.Context()))
		waiting := func() []coterie.KeyValue {
			kvs := get(t, c.Leader(), "lock/", coterie.WithPrefix(), coterie.WithSort(coterie.SortByCreateRevision, coterie.SortAscend)).KVs
			require.Equal(t, holder.Key(), kvs[0].Key)
			return kvs[1:]
		}
		runs, ended := 0, make(chan error, 1)
		go func() {
			ended <- coterie.RunWithLock(t.Context(), n, "lock", func(context.Context, int64) error {
				runs++
				return nil
			}, coterie.WithExistingLease(7)) // which does not exist
		}()
		time.Sleep(10 * time.Second)
		first := waiting()
		require.Len(t, first, 1)

		c.Pause(c.Index(n))
		time.Sleep(time.Minute)
		require.Empty(t, waiting(), "its lease has expired")
		c.Heal()
		time.Sleep(10 * time.Second)
		second := waiting()
		require.Len(t, second, 1)
		require.NotEqual(t, first[0].Lease, second[0].Lease)

		del(t, c.Leader(), second[0].Key) // which the caller notices when it would be its turn
		time.Sleep(10 * time.Second)
		require.Empty(t, ended)
		require.Zero(t, runs)
		require.NoError(t, holder.Unlock(t.Context()))
		require.NoError(t, <-ended)
		require.Equal(t, 1, runs)
	})
}

// Once fn runs, a lost lock ends its context, and no second run follows.
func TestRunWithLockNeverRunsAgain(t *testing.T) {
	for name, loss := range map[string]struct {
		lose func(t *testing.T, c *coterietest.Cluster, n *coterie.Node)
		want error
	}{
		"lease revoked": {func(t *testing.T, _ *coterietest.Cluster, n *coterie.Node) {
			_, err := n.Revoke(t.Context(), get(t, n, "lock/", coterie.WithPrefix()).KVs[0].Lease)
			require.NoError(t, err)
		}, coterie.ErrNotOwner},
		"key deleted": {func(t *testing.T, _ *coterietest.Cluster, n *coterie.Node) {
			del(t, n, "lock/", coterie.WithPrefix())
		}, coterie.ErrNotOwner},
		"cut off":     {func(_ *testing.T, c *coterietest.Cluster, n *coterie.Node) { c.Pause(c.Index(n)) }, coterie.ErrSessionExpired},
		"node closed": {func(_ *testing.T, c *coterietest.Cluster, n *coterie.Node) { c.Stop(c.Index(n)) }, coterie.ErrSessionExpired},
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				n := c.Follower()
				failed := errors.New("failed")
				runs, holding := 0, make(chan struct{})
				ended := make(chan error, 1)
				go func() {
					ended <- coterie.RunWithLock(t.Context(), n, "lock", func(ctx context.Context, _ int64) error {
						runs++
						close(holding)
						<-ctx.Done()
						return failed
					})
				}()
				<-holding
				time.Sleep(time.Minute)
				require.Empty(t, ended)
				loss.lose(t, c, n)
				err := <-ended
				require.ErrorIs(t, err, loss.want)
				require.ErrorIs(t, err, failed)
				c.Heal()
				time.Sleep(time.Minute)
				require.Equal(t, 1, runs)
				require.NoError(t, coterie.NewMutex(session(t, c.Leader()), "lock").TryLock(t.Context()))
			})
		})
	}
}

// The guard may inform fn of a lost lock before the watch does.
func TestRunWithLockJoinsALossThatFnSees(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		rejected := errors.New("rejected")
		err := coterie.RunWithLock(t.Context(), n, "lock", func(context.Context, int64) error {
			del(t, n, "lock/", coterie.WithPrefix())
			return rejected
		})
		require.ErrorIs(t, err, rejected)
		require.ErrorIs(t, err, coterie.ErrNotOwner)
	})
}

// An error without a call of fn matches neither ErrSessionExpired nor ErrNotOwner.
func TestRunWithLockEndsWithoutACall(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		require.NoError(t, coterie.NewMutex(session(t, leader, coterie.WithTTL(time.Hour)), "lock").Lock(t.Context()))
		run := func(ctx context.Context, name string, opts ...coterie.SessionOption) error {
			err := coterie.RunWithLock(ctx, n, name, func(context.Context, int64) error {
				t.Error("fn is called")
				return nil
			}, opts...)
			require.NotErrorIs(t, err, coterie.ErrSessionExpired)
			require.NotErrorIs(t, err, coterie.ErrNotOwner)
			return err
		}
		require.ErrorIs(t, run(t.Context(), ""), coterie.ErrInvalidOption)
		require.ErrorIs(t, run(t.Context(), "lock", coterie.WithTTL(300)), coterie.ErrTTLRange)

		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := run(short, "lock")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var held *coterie.HeldError
		require.ErrorAs(t, err, &held)
		require.ErrorIs(t, run(short, "lock"), context.DeadlineExceeded)

		ended := make(chan error, 1)
		go func() { ended <- run(t.Context(), "lock") }()
		time.Sleep(time.Minute)
		c.Stop(c.Index(n))
		require.ErrorIs(t, <-ended, coterie.ErrClosed)
	})
}

// A ctx that ends is no loss of the lock: fn's own result counts.
func TestRunWithLockEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		for _, result := range []error{nil, errors.New("stopped")} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := coterie.RunWithLock(ctx, n, "lock", func(ctx context.Context, _ int64) error {
				<-ctx.Done()
				return result
			})
			cancel()
			require.Equal(t, result, err)
			time.Sleep(time.Second)
			require.Empty(t, get(t, n, "lock/", coterie.WithPrefix()).KVs)
		}
	})
}
