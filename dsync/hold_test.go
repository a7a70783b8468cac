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

// count returns the number of keys that begin with a prefix.
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

// holds reports whether a guard holds.
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

// canceled returns a context that has ended.
func canceled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// source returns random numbers, and logs their seed.
func source(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// trouble pauses one node after another, each for less than the TTL of a session, until work is done. Then it
// heals the cluster.
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

// An object is a lock or a semaphore, whichever it is.
type object interface {
	Key() string
	Token() int64
	Guard() coterie.Comparison
	WorkContext(context.Context) (context.Context, context.CancelFunc)
}

// A contender is an object with the calls that acquire and release it.
type contender struct {
	object
	acquire, try, release func(context.Context) error
}

func writer(s *coterie.Session, name string) contender {
	m := dsync.NewRWMutex(s, name)
	return contender{m, m.Lock, m.TryLock, m.Unlock}
}

func reader(s *coterie.Session, name string) contender {
	m := dsync.NewRWMutex(s, name)
	return contender{m, m.RLock, m.TryRLock, m.RUnlock}
}

// permits returns a contender for n of size permits.
func permits(s *coterie.Session, name string, n, size int64) contender {
	m := dsync.NewSemaphore(s, name, size)
	with := func(call func(context.Context, int64) error) func(context.Context) error {
		return func(ctx context.Context) error { return call(ctx, n) }
	}
	return contender{m, with(m.Acquire), with(m.TryAcquire), m.Release}
}

// contenders are all kinds, each with another kind that it excludes.
var contenders = map[string]struct {
	first, second func(s *coterie.Session, name string) contender
}{
	"writer": {writer, writer},
	"reader": {reader, writer},
	"semaphore": {
		func(s *coterie.Session, name string) contender { return permits(s, name, 2, 3) },
		func(s *coterie.Session, name string) contender { return permits(s, name, 2, 3) },
	},
}

func eachContender(t *testing.T, nodes int, fn func(t *testing.T, c *coterietest.Cluster, first, second func(*coterie.Session) contender)) {
	for name, kind := range contenders {
		named := func(create func(*coterie.Session, string) contender) func(*coterie.Session) contender {
			return func(s *coterie.Session) contender { return create(s, "lock") }
		}
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, nodes, func(t *testing.T, c *coterietest.Cluster) {
				fn(t, c, named(kind.first), named(kind.second))
			})
		})
	}
}

// A lock of a process that stops is free when its lease has ended, and not earlier. When the process resumes,
// its writes are rejected.
func TestALostHolderFreesItsLock(t *testing.T) {
	eachContender(t, 3, func(t *testing.T, c *coterietest.Cluster, createFirst, createSecond func(*coterie.Session) contender) {
		s := session(t, c.Follower())
		first := createFirst(s)
		require.NoError(t, first.acquire(t.Context()))
		require.True(t, holds(t, s.Node(), first.Guard()))
		work, cancel := first.WorkContext(t.Context())
		defer cancel()
		require.True(t, holds(t, s.Node(), coterie.GuardFromContext(work)))
		c.Pause(c.Index(s.Node()))
		gone := time.Now()
		second := createSecond(session(t, c.Leader()))
		require.NoError(t, second.acquire(t.Context()))
		require.Greater(t, time.Since(gone), 8*time.Second, "not before the lease has ended")
		require.ErrorIs(t, context.Cause(work), coterie.ErrSessionExpired, "the holder is notified before")
		require.Greater(t, second.Token(), first.Token())
		c.Heal()
		require.False(t, holds(t, s.Node(), first.Guard()))
		require.False(t, holds(t, s.Node(), coterie.GuardFromContext(work)))
		require.True(t, holds(t, s.Node(), second.Guard()))
		require.ErrorIs(t, first.release(t.Context()), coterie.ErrNotOwner)
		require.NoError(t, second.release(t.Context()))
		require.ErrorIs(t, second.release(t.Context()), coterie.ErrNotOwner)
	})
}

// An object holds one lock at a time and makes one request at a time. A second request fails without a write.
func TestAnObjectHoldsOneLockAtATime(t *testing.T) {
	eachContender(t, 1, func(t *testing.T, c *coterietest.Cluster, createFirst, createSecond func(*coterie.Session) contender) {
		n := c.Node(0)
		first, second := createFirst(session(t, n)), createSecond(session(t, n))
		rejected := func(o contender) {
			t.Helper()
			before := revision(t, n)
			for _, acquire := range []func(context.Context) error{o.acquire, o.try} {
				err := acquire(t.Context())
				require.ErrorIs(t, err, coterie.ErrLocked)
				var held *coterie.HeldError
				require.NotErrorAs(t, err, &held)
			}
			require.Equal(t, before, revision(t, n))
		}
		require.NoError(t, first.acquire(t.Context()))
		rejected(first)
		waiting := make(chan error, 1)
		go func() { waiting <- second.acquire(t.Context()) }()
		time.Sleep(time.Second)
		rejected(second)
		require.Zero(t, second.Token())
		require.NoError(t, first.release(t.Context()))
		require.NoError(t, <-waiting)
		rejected(second)
		require.NoError(t, second.release(t.Context()))
		require.NoError(t, first.try(t.Context()), "it can be acquired again")
		require.NoError(t, first.release(t.Context()))
		require.ErrorIs(t, second.acquire(canceled(t)), context.Canceled)
		require.NoError(t, second.acquire(t.Context()), "a failed request does not count")

		require.ErrorIs(t, second.release(canceled(t)), context.Canceled)
		require.True(t, holds(t, n, second.Guard()), "a failed release can be repeated")
		rejected(second)
		_, err := n.Delete(t.Context(), second.Key())
		require.NoError(t, err)
		rejected(second)
		require.ErrorIs(t, second.release(t.Context()), coterie.ErrNotOwner)
		require.NoError(t, second.acquire(t.Context()), "after a lost lock was unlocked")
	})
}

func TestAnObjectThatHoldsNothing(t *testing.T) {
	eachContender(t, 1, func(t *testing.T, c *coterietest.Cluster, create, _ func(*coterie.Session) contender) {
		n := c.Node(0)
		s := session(t, n)
		o := create(s)
		nothing := func() {
			t.Helper()
			require.Empty(t, o.Key())
			require.Zero(t, o.Token())
			require.False(t, holds(t, n, o.Guard()))
			before := revision(t, n)
			require.ErrorIs(t, o.release(t.Context()), coterie.ErrNotOwner)
			require.Equal(t, before, revision(t, n))
			ctx, cancel := o.WorkContext(t.Context())
			defer cancel()
			require.ErrorIs(t, context.Cause(ctx), coterie.ErrNotOwner)
		}
		nothing()
		require.NoError(t, o.acquire(t.Context()))
		r, err := n.Get(t.Context(), o.Key())
		require.NoError(t, err)
		require.Len(t, r.KVs, 1)
		require.Equal(t, o.Token(), r.KVs[0].CreateRevision)
		require.Equal(t, s.Lease(), r.KVs[0].Lease)
		require.NoError(t, o.release(t.Context()))
		nothing()
	})
}

// The end of the session ends work at once. If the lease lives on, so does the key until it is released.
func TestAnObjectOfAnEndedSession(t *testing.T) {
	eachContender(t, 1, func(t *testing.T, c *coterietest.Cluster, create, _ func(*coterie.Session) contender) {
		n := c.Node(0)
		s := session(t, n)
		o := create(s)
		require.NoError(t, o.acquire(t.Context()))
		s.Orphan()
		ctx, cancel := o.WorkContext(t.Context())
		defer cancel()
		require.ErrorIs(t, context.Cause(ctx), coterie.ErrSessionExpired)
		require.ErrorIs(t, o.acquire(t.Context()), coterie.ErrSessionExpired)
		require.ErrorIs(t, o.try(t.Context()), coterie.ErrSessionExpired)
		require.True(t, holds(t, n, o.Guard()))
		require.NoError(t, o.release(t.Context()))
		require.Zero(t, count(t, n, "lock"))
		require.ErrorIs(t, o.release(t.Context()), coterie.ErrNotOwner)
	})
}

// A request that can never succeed leaves no goroutine behind that tries to undo it for ever.
func TestARejectedRequestLeavesNoGoroutine(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		m := dsync.NewRWMutex(session(t, c.Node(0)), strings.Repeat("x", 2<<20))
		before := runtime.NumGoroutine()
		for range 50 {
			require.ErrorIs(t, m.Lock(t.Context()), coterie.ErrTooLarge)
		}
		synctest.Wait()
		require.Less(t, runtime.NumGoroutine(), before+25)
	})
}

// If the context or the session of a waiter ends, it leaves no place behind that others would wait for.
func TestAWaiterThatGivesUpLeavesNothing(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		holder := session(t, c.Leader(), coterie.WithTTL(time.Hour))
		lock, permit := writer(holder, "lock"), permits(holder, "semaphore", 1, 1)
		require.NoError(t, lock.acquire(t.Context()))
		require.NoError(t, permit.acquire(t.Context()))
		before := count(t, n, "lock") + count(t, n, "semaphore") + count(t, n, "double")

		s := session(t, n, coterie.WithTTL(time.Hour))
		calls := []func(context.Context) error{
			writer(s, "lock").acquire,
			reader(s, "lock").acquire,
			permits(s, "semaphore", 1, 1).acquire,
			func(ctx context.Context) error {
				_, err := dsync.NewDoubleBarrier(s, "double", 2).Enter(ctx)
				return err
			},
		}
		for _, cut := range []bool{false, true} {
			ctx := short(t)
			var wg sync.WaitGroup
			if cut {
				c.Pause(c.Index(n)) // their requests arrive after they have given up
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
		require.NoError(t, lock.release(t.Context()))
		require.NoError(t, permit.release(t.Context()))
	})
}
