// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

// Hundreds call Do while leaders are lost: one function runs, and all calls return its outcome.
func TestOnceRunsOnceForHundreds(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		random := source(t)
		var ran atomic.Int64
		var wg sync.WaitGroup
		for i := range 200 {
			s := session(t, c.Node(i%3), coterie.WithTTL(time.Hour))
			arrive := time.Duration(random.IntN(10_000)) * time.Millisecond
			wg.Go(func() {
				time.Sleep(arrive)
				outcome, err := dsync.NewOnce(s, "once").Do(t.Context(), func(ctx context.Context) (string, error) {
					if !holds(t, s.Node(), coterie.GuardFromContext(ctx)) {
						t.Error("the runner has no guard")
					}
					time.Sleep(5 * time.Second)
					return fmt.Sprint("run ", ran.Add(1)), nil
				})
				if err != nil || outcome != "run 1" {
					t.Error(outcome, err)
				}
			})
		}
		trouble(c, random, &wg)
		require.EqualValues(t, 1, ran.Load())
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, count(t, c.Leader(), "once"), "no place is left")
	})
}

// A waiter returns as soon as an outcome is recorded. A runner that has lost its turn records none.
func TestOnceEndsWithItsOutcome(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		o := dsync.NewOnce(session(t, n), "once")
		running := make(chan struct{})
		first := make(chan error, 1)
		lose := func(ctx context.Context) (string, error) {
			close(running)
			_, err := n.Delete(ctx, "once/turn", coterie.WithPrefix())
			return "stale", err
		}
		go func() {
			_, err := o.Do(t.Context(), lose)
			first <- err
		}()
		<-running
		require.ErrorIs(t, <-first, coterie.ErrNotOwner)
		require.Zero(t, count(t, n, "once"))

		running = make(chan struct{})
		second := make(chan error, 1)
		go func() {
			_, err := o.Do(t.Context(), func(ctx context.Context) (string, error) {
				close(running)
				time.Sleep(time.Hour)
				return "late", nil
			})
			second <- err
		}()
		<-running
		outcomes := make(chan string, 100)
		for range 100 {
			go func() {
				outcome, err := o.Do(t.Context(), nil)
				if err != nil {
					t.Error(err)
				}
				outcomes <- outcome
			}()
		}
		time.Sleep(time.Second)
		_, err := n.Put(t.Context(), "once/done", "by hand")
		require.NoError(t, err)
		begin := time.Now()
		for range 100 {
			require.Equal(t, "by hand", <-outcomes)
		}
		require.Less(t, time.Since(begin), time.Minute)
		require.NoError(t, <-second)

		_, err = n.Delete(t.Context(), "once/done")
		require.NoError(t, err)
		outcome, err := o.Do(t.Context(), func(ctx context.Context) (string, error) {
			if _, err := n.Put(ctx, "once/done", "by hand"); err != nil {
				return "", err
			}
			<-ctx.Done()
			return "", ctx.Err()
		})
		require.NoError(t, err)
		require.Equal(t, "by hand", outcome, "though fn returned the end of its context as an error")
	})
}

// If a runner is lost, another function runs, and the outcome of the first is rejected.
func TestOnceRunsAgainAfterALostRunner(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		s := session(t, c.Follower())
		running, late := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := dsync.NewOnce(s, "once").Do(t.Context(), func(ctx context.Context) (string, error) {
				close(running)
				<-ctx.Done()
				time.Sleep(time.Minute) // it ignores its context
				return "stale", nil
			})
			late <- err
		}()
		<-running
		c.Pause(c.Index(s.Node()))
		o := dsync.NewOnce(session(t, c.Leader()), "once")
		outcome, err := o.Do(t.Context(), func(context.Context) (string, error) { return "fresh", nil })
		require.NoError(t, err)
		require.Equal(t, "fresh", outcome)
		c.Heal()
		require.ErrorIs(t, <-late, coterie.ErrSessionExpired)
		outcome, err = o.Do(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, "fresh", outcome)
	})
}

func TestOnceCalls(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		o := dsync.NewOnce(session(t, n), "once")
		failed := errors.New("failed")
		_, err := o.Do(t.Context(), func(context.Context) (string, error) { return "x", failed })
		require.ErrorIs(t, err, failed)
		running, end := make(chan struct{}), make(chan struct{})
		first := make(chan error, 1)
		go func() {
			_, err := o.Do(t.Context(), func(context.Context) (string, error) {
				close(running)
				<-end
				return "", nil
			})
			first <- err
		}()
		<-running
		_, err = o.Do(short(t), func(context.Context) (string, error) { return "second", nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		close(end)
		require.NoError(t, <-first)
		outcome, err := o.Do(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, outcome, "an empty outcome is one")
	})
}
