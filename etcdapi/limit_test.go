// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// limitedServer returns a server with a time limit of 7 s for each call.
func limitedServer() *server {
	return &server{direct: true, limiter: newLimiter(coterie.Limits{ElectionTimeout: time.Second})}
}

func TestCallsEndAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, begin := limitedServer(), time.Now()
		ctx, cancel := s.limit(t.Context())
		defer cancel()
		derived, stop := context.WithCancel(ctx)
		defer stop()
		time.Sleep(6 * time.Second)
		later, cancelLater := s.limit(t.Context())
		defer cancelLater()
		<-derived.Done()
		require.NoError(t, later.Err())
		require.InDelta(t, 7*time.Second, time.Since(begin), float64(2*sweepInterval))
		require.ErrorIs(t, context.Cause(derived), errTimeout)
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
		end, ok := ctx.Deadline()
		require.True(t, ok)
		require.Equal(t, begin.Add(7*time.Second), end)
	})
}

func TestCallsEndWithTheirClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, gone := limitedServer(), errors.New("gone")
		client, leave := context.WithCancelCause(t.Context())
		ctx, cancel := s.limit(client)
		defer cancel()
		derived, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		synctest.Wait()
		require.NoError(t, ctx.Err())
		begin := time.Now()
		leave(gone)
		<-derived.Done()
		require.LessOrEqual(t, time.Since(begin), sweepInterval)
		require.ErrorIs(t, ctx.Err(), context.Canceled)
		require.ErrorIs(t, context.Cause(ctx), gone)
		require.ErrorIs(t, context.Cause(derived), gone)
	})
}

func TestFinishedCallsLeaveTheLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limitedServer()
		for range 2 { // the timer begins again
			one, cancelOne := s.limit(t.Context())
			two, cancelTwo := s.limit(t.Context())
			ended := false
			context.AfterFunc(one, func() { ended = true })
			stop := context.AfterFunc(two, func() { t.Error("it was stopped") })
			require.True(t, stop())
			require.False(t, stop())
			cancelOne()
			cancelOne()
			cancelTwo()
			synctest.Wait()
			require.True(t, ended)
			require.ErrorIs(t, one.Err(), context.Canceled)
			time.Sleep(2 * sweepInterval)
			s.limiter.mu.Lock()
			require.Same(t, &s.limiter.calls, s.limiter.calls.next)
			require.False(t, s.limiter.sweeping)
			s.limiter.mu.Unlock()
		}
	})
}

func TestEarlierDeadlinesNeedNoLimit(t *testing.T) {
	client, leave := context.WithTimeout(t.Context(), time.Second)
	defer leave()
	ctx, cancel := limitedServer().limit(client)
	cancel()
	require.Same(t, client, ctx)
	require.NoError(t, ctx.Err())
}
