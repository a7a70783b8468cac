// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Otherwise a client that guesses one password could keep all users from logging in.
func TestGuessesDoNotDelayOtherUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(1)
		var running sync.WaitGroup
		var mu sync.Mutex
		var began []string
		begin := func(line string) {
			running.Go(func() {
				if turns.begin(t.Context(), line) == nil {
					mu.Lock()
					defer mu.Unlock()
					began = append(began, line)
				}
			})
			synctest.Wait()
		}
		for range 1000 {
			begin("root")
		}
		begin("alice")
		begin(administrators)
		begin("alice")
		for range 1002 {
			turns.end()
			synctest.Wait()
		}
		running.Wait()
		require.Equal(t, []string{"root", "root", "alice", administrators, "root", "alice", "root"}, began[:7])
		require.Len(t, began, 1003)
		turns.end()
		require.Equal(t, 1, turns.free)
		require.Empty(t, turns.lines)
		require.Empty(t, turns.order)
	})
}

func TestComputationsAreBounded(t *testing.T) {
	turns := newTurns(2)
	gone := errors.New("gone")
	var calls sync.WaitGroup
	var mu sync.Mutex
	running, most := 0, 0
	for i := range 1000 {
		calls.Go(func() {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if i%3 == 0 {
				go cancel(gone)
			}
			if err := turns.begin(ctx, string(rune('a'+i%5))); err != nil {
				require.ErrorIs(t, err, gone)
				return
			}
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			runtime.Gosched()
			mu.Lock()
			running--
			mu.Unlock()
			turns.end()
		})
	}
	calls.Wait()
	require.LessOrEqual(t, most, 2)
	require.Equal(t, 2, turns.free)
	require.Empty(t, turns.lines)
	require.Empty(t, turns.order)
}

// A caller may give up at the moment of its turn. Then the next computation begins.
func TestTurnOfACallerThatGaveUpIsFree(t *testing.T) {
	one := newTurns(1)
	require.NoError(t, one.begin(t.Context(), "user"))
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error)
	go func() { waited <- one.begin(ctx, "user") }()
	require.Eventually(t, func() bool {
		one.mu.Lock()
		defer one.mu.Unlock()
		return len(one.order) == 1
	}, 10*time.Second, time.Millisecond)
	one.mu.Lock()
	cancel()
	time.Sleep(50 * time.Millisecond) // the caller sees the end of its context, and waits for the lock
	one.next()
	one.mu.Unlock()
	require.ErrorIs(t, <-waited, context.Canceled)
	require.Equal(t, 1, one.free)
	require.Empty(t, one.order)
}
