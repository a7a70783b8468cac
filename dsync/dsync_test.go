// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

func session(t testing.TB, n *coterie.Node, opts ...coterie.SessionOption) *coterie.Session {
	t.Helper()
	s, err := coterie.NewSession(t.Context(), n, opts...)
	require.NoError(t, err)
	t.Cleanup(s.Orphan)
	return s
}

// count returns how many keys are under a prefix.
func count(t testing.TB, n *coterie.Node, prefix string) int64 {
	t.Helper()
	r, err := n.Get(t.Context(), prefix, coterie.WithPrefix(), coterie.WithCountOnly())
	require.NoError(t, err)
	return r.Count
}

func revision(t testing.TB, n *coterie.Node) int64 {
	t.Helper()
	r, err := n.Get(t.Context(), "none")
	require.NoError(t, err)
	return r.Revision
}

// holds reports whether a guard does.
func holds(t testing.TB, n *coterie.Node, guard coterie.Comparison) bool {
	t.Helper()
	r, err := n.Txn(t.Context()).If(guard).Then(coterie.OpPut("guarded", "")).Commit()
	require.NoError(t, err)
	return r.Succeeded
}

// short returns a context that ends in a second.
func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// source returns random numbers of a seed that the log tells.
func source(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// trouble pauses and crashes one node after another, for as long as a session survives, until work
// is done, and leaves the cluster whole.
func trouble(c *coterietest.Cluster, random *rand.Rand, work *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		work.Wait()
		close(done)
	}()
	for {
		select {
		case <-done:
			c.Heal()
			return
		case <-time.After(2 * time.Second):
		}
		c.Pause(random.IntN(3))
		time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
		c.Heal()
	}
}

// A process that stops takes its holds with it, when its lease has ended and not before; and what
// it writes when it comes back is refused.
func TestAHolderThatIsGoneFreesOthers(t *testing.T) {
	for name, acquire := range map[string]func(context.Context, *coterie.Session) (*dsync.Hold, error){
		"writer": func(ctx context.Context, s *coterie.Session) (*dsync.Hold, error) {
			return dsync.NewRWMutex(s, "lock").Lock(ctx)
		},
		"reader": func(ctx context.Context, s *coterie.Session) (*dsync.Hold, error) {
			return dsync.NewRWMutex(s, "lock").RLock(ctx)
		},
		"semaphore": func(ctx context.Context, s *coterie.Session) (*dsync.Hold, error) {
			return dsync.NewSemaphore(s, "lock", 3).Acquire(ctx, 2)
		},
	} {
		next := acquire
		if name == "reader" {
			next = func(ctx context.Context, s *coterie.Session) (*dsync.Hold, error) {
				return dsync.NewRWMutex(s, "lock").Lock(ctx)
			}
		}
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				s := session(t, c.Follower())
				first, err := acquire(t.Context(), s)
				require.NoError(t, err)
				require.True(t, holds(t, s.Node(), first.Guard()))
				work, cancel := first.Bind(t.Context())
				defer cancel()
				c.Pause(c.Index(s.Node()))
				gone := time.Now()
				second, err := next(t.Context(), session(t, c.Leader()))
				require.NoError(t, err)
				require.Greater(t, time.Since(gone), 8*time.Second, "not before the lease has ended")
				require.ErrorIs(t, context.Cause(work), coterie.ErrSessionExpired, "the holder is told before")
				require.Greater(t, second.Token(), first.Token())
				c.Heal()
				require.False(t, holds(t, s.Node(), first.Guard()))
				require.True(t, holds(t, s.Node(), second.Guard()))
				require.ErrorIs(t, first.Release(t.Context()), coterie.ErrNotOwner)
				require.NoError(t, second.Release(t.Context()))
				require.ErrorIs(t, second.Release(t.Context()), coterie.ErrNotOwner)
			})
		})
	}
}

// Whoever gives up, or loses its session, leaves no place that others would wait for.
func TestAHoldOfASessionThatHasEndedBindsNothing(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		s := session(t, c.Node(0))
		h, err := dsync.NewRWMutex(s, "lock").Lock(t.Context())
		require.NoError(t, err)
		s.Orphan()
		ctx, cancel := h.Bind(t.Context())
		defer cancel()
		require.ErrorIs(t, context.Cause(ctx), coterie.ErrSessionExpired)
	})
}

// What is refused whatever is tried leaves nobody behind who tries to take it back for ever.
func TestARefusedPlaceLeavesNoGoroutine(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		m := dsync.NewRWMutex(session(t, c.Node(0)), strings.Repeat("x", 2<<20))
		before := runtime.NumGoroutine()
		for range 50 {
			_, err := m.Lock(t.Context())
			require.ErrorIs(t, err, coterie.ErrTooLarge)
		}
		synctest.Wait()
		require.Less(t, runtime.NumGoroutine(), before+25)
	})
}

func TestAWaiterThatGivesUpLeavesNothing(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		holder := session(t, c.Leader(), coterie.WithTTL(time.Hour))
		writer, err := dsync.NewRWMutex(holder, "lock").Lock(t.Context())
		require.NoError(t, err)
		permits, err := dsync.NewSemaphore(holder, "semaphore", 1).Acquire(t.Context(), 1)
		require.NoError(t, err)
		before := count(t, n, "lock") + count(t, n, "semaphore") + count(t, n, "double")

		s := session(t, n, coterie.WithTTL(time.Hour))
		calls := []func(context.Context) error{
			func(ctx context.Context) error { _, err := dsync.NewRWMutex(s, "lock").Lock(ctx); return err },
			func(ctx context.Context) error { _, err := dsync.NewRWMutex(s, "lock").RLock(ctx); return err },
			func(ctx context.Context) error {
				_, err := dsync.NewSemaphore(s, "semaphore", 1).Acquire(ctx, 1)
				return err
			},
			func(ctx context.Context) error {
				_, err := dsync.NewDoubleBarrier(s, "double", 2).Enter(ctx)
				return err
			},
		}
		for _, cut := range []bool{false, true} {
			ctx := short(t)
			var wg sync.WaitGroup
			if cut {
				c.Pause(c.Index(n)) // what they ask for arrives when they have given up
			}
			for _, call := range calls {
				wg.Go(func() {
					if err := call(ctx); err == nil {
						t.Error("entered")
					}
				})
			}
			wg.Wait()
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded)
			c.Heal()
			time.Sleep(10 * time.Second)
			require.Equal(t, before, count(t, n, "lock")+count(t, n, "semaphore")+count(t, n, "double"))
		}

		ended := make(chan error, len(calls))
		for _, call := range calls {
			go func() { ended <- call(t.Context()) }()
		}
		time.Sleep(time.Second)
		s.Orphan() // the lease lives on
		for range calls {
			require.ErrorIs(t, <-ended, coterie.ErrSessionExpired)
		}
		time.Sleep(time.Second)
		require.Equal(t, before, count(t, n, "lock")+count(t, n, "semaphore")+count(t, n, "double"))
		require.NoError(t, writer.Release(t.Context()))
		require.NoError(t, permits.Release(t.Context()))
	})
}
