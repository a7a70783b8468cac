// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestMutexExcludesAndIsFair(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const contenders = 50
		var inside, last int64
		var order []int
		var wg sync.WaitGroup
		for i := range contenders {
			s := session(t, c.Node(i%3))
			wg.Go(func() {
				m := coterie.NewMutex(s, "lock")
				time.Sleep(time.Duration(i) * time.Second / 10) // so that the order of the calls is known
				err := m.Do(t.Context(), func(ctx context.Context, token int64) error {
					inside++
					defer func() { inside-- }()
					if inside != 1 {
						return errors.New("two holders at once")
					}
					if token <= last {
						return fmt.Errorf("token %d after %d", token, last)
					}
					last = token
					order = append(order, i)
					time.Sleep(time.Second)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
			if i == contenders/2 {
				crashed := c.Index(c.Leader())
				c.Pause(crashed)
				c.Heal()
			}
		}
		wg.Wait()
		for i := range contenders {
			require.Equal(t, i, order[i])
		}
		require.Empty(t, get(t, c.Leader(), "lock", coterie.WithPrefix()).KVs)
	})
}

func TestMutexCalls(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		s := session(t, n)
		a, b := coterie.NewMutex(s, "lock"), coterie.NewMutex(s, "lock")
		require.Zero(t, a.Token())
		require.ErrorIs(t, a.Unlock(ctx), coterie.ErrNotOwner)
		require.NoError(t, a.TryLock(ctx))
		require.NotZero(t, a.Token())
		require.ErrorIs(t, b.TryLock(ctx), coterie.ErrLocked, "two mutexes of one session exclude each other")
		require.ErrorIs(t, a.Lock(ctx), coterie.ErrLocked)
		require.Len(t, get(t, n, "lock", coterie.WithPrefix()).KVs, 1, "TryLock leaves nothing behind")

		guarded := func(m *coterie.Mutex) bool {
			return commit(t, n.Txn(ctx).If(m.Guard()).Then(coterie.OpPut("k", "v"))).Succeeded
		}
		require.True(t, guarded(a))
		require.False(t, guarded(b))

		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		begin := time.Now()
		require.ErrorIs(t, b.Lock(short), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))
		time.Sleep(time.Second)
		require.Len(t, get(t, n, "lock", coterie.WithPrefix()).KVs, 1, "and neither does a Lock that was given up")

		first := a.Token()
		require.NoError(t, a.Unlock(ctx))
		require.False(t, guarded(a))
		require.ErrorIs(t, a.Unlock(ctx), coterie.ErrNotOwner)
		require.NoError(t, b.Lock(ctx))
		require.Greater(t, b.Token(), first)

		failed := errors.New("failed")
		require.NoError(t, b.Unlock(ctx))
		require.ErrorIs(t, b.Do(ctx, func(context.Context, int64) error { return failed }), failed)
		require.ErrorIs(t, b.Do(ctx, func(inner context.Context, _ int64) error {
			require.NoError(t, errOf(n.Revoke(ctx, s.Lease())))
			<-inner.Done()
			return nil
		}), coterie.ErrSessionExpired)
	})
}

// Cleanup needs a quorum, so it continues in the background. The caller does not wait for it.
func TestRecipesReturnWithTheirContext(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		ctx, cancel := context.WithCancel(t.Context())
		holding := make(chan struct{}, 2)
		ended := make(chan time.Time, 3)
		hold := func(ctx context.Context, _ int64) error {
			holding <- struct{}{}
			<-ctx.Done()
			return nil
		}
		run := func(call func() error) {
			if err := call(); !errors.Is(err, context.Canceled) && err != nil {
				t.Error(err)
			}
			ended <- time.Now()
		}
		s := session(t, n, coterie.WithTTL(time.Hour))
		m, waiter := coterie.NewMutex(s, "lock"), coterie.NewMutex(s, "lock")
		go run(func() error { return m.Do(ctx, hold) })
		go run(func() error { return coterie.RunAsLeader(ctx, n, "election", "a", hold, coterie.WithTTL(time.Hour)) })
		<-holding
		<-holding
		go run(func() error { return waiter.Lock(ctx) })
		time.Sleep(time.Minute)
		c.Pause(c.Index(n))
		time.Sleep(time.Minute)
		begin := time.Now()
		cancel()
		for range 3 {
			require.LessOrEqual(t, (<-ended).Sub(begin), 10*time.Millisecond)
		}
		c.Heal()
		for _, prefix := range []string{"lock", "election"} {
			for kvs := get(t, n, prefix, coterie.WithPrefix()).KVs; len(kvs) > 0; kvs = get(t, n, prefix, coterie.WithPrefix()).KVs {
				time.Sleep(time.Second) // the test ends in virtual time that is less than the lease's
			}
		}
		require.Less(t, time.Since(begin), time.Minute)
	})
}

// A waiter's key must not outlive its session, even if the lease lives on.
func TestOrphanLeavesNoWaiters(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		holder := coterie.NewMutex(session(t, n), "lock")
		require.NoError(t, holder.Lock(t.Context()))
		s := session(t, n, coterie.WithTTL(10*time.Second))
		waiting := make(chan error, 1)
		go func() { waiting <- coterie.NewMutex(s, "lock").Lock(t.Context()) }()
		time.Sleep(time.Second)
		s.Orphan()
		require.ErrorIs(t, <-waiting, coterie.ErrSessionExpired)
		session(t, n, coterie.WithExistingLease(s.Lease()))
		require.NoError(t, holder.Unlock(t.Context()))
		require.NoError(t, coterie.NewMutex(session(t, n), "lock").Lock(t.Context()))
	})
}

func TestMutexDoUnlocksOnlyItsOwnLock(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		m := coterie.NewMutex(session(t, n), "lock")
		locked := make(chan error, 1)
		require.NoError(t, m.Do(t.Context(), func(ctx context.Context, _ int64) error {
			require.NoError(t, m.Unlock(ctx))
			go func() { locked <- m.Lock(t.Context()) }()
			require.NoError(t, <-locked)
			return nil
		}))
		require.NotZero(t, m.Token())
		require.ErrorIs(t, coterie.NewMutex(session(t, n), "lock").TryLock(t.Context()), coterie.ErrLocked)
	})
}

func TestGuardFromContext(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		holds := func(ctx context.Context) bool {
			return commit(t, n.Txn(t.Context()).If(coterie.GuardFromContext(ctx)).Then(coterie.OpPut("k", "v"))).Succeeded
		}
		require.False(t, holds(t.Context()))
		var stale context.Context
		body := func(ctx context.Context, _ int64) error {
			stale = ctx
			require.True(t, holds(ctx))
			return nil
		}
		require.NoError(t, coterie.NewMutex(session(t, n), "lock").Do(t.Context(), body))
		require.False(t, holds(stale))
		require.NoError(t, coterie.RunAsLeader(t.Context(), n, "election", "a", body))
		require.False(t, holds(stale))
	})
}

func TestMutexKeyAndIsOwner(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		s := session(t, n)
		m := coterie.NewMutex(s, "lock")
		owns := func() bool { return commit(t, n.Txn(ctx).If(m.IsOwner())).Succeeded }
		require.Empty(t, m.Key())
		require.False(t, owns())

		require.NoError(t, m.Lock(ctx))
		require.True(t, owns())
		kvs := get(t, n, m.Key()).KVs
		require.Len(t, kvs, 1)
		require.Equal(t, m.Token(), kvs[0].CreateRevision)
		require.Equal(t, s.Lease(), kvs[0].Lease)

		other := coterie.NewMutex(s, "lock")
		locked := make(chan error, 1)
		go func() { locked <- other.Lock(ctx) }()
		synctest.Wait()
		require.Empty(t, other.Key(), "it waits")
		del(t, n, m.Key())
		require.NoError(t, <-locked)
		require.False(t, owns())
		require.NoError(t, other.Unlock(ctx))
		require.Empty(t, other.Key())
	})
}

func TestWorkContextOfLocksAndLeaders(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := session(t, n)
		m, e := coterie.NewMutex(s, "lock"), coterie.NewElection(s, "job")
		for name, of := range map[string]struct {
			work    func(context.Context) (context.Context, context.CancelFunc)
			acquire func(context.Context) error
		}{
			"Mutex":    {m.WorkContext, m.Lock},
			"Election": {e.WorkContext, func(ctx context.Context) error { return e.Campaign(ctx, "a") }},
		} {
			work, cancel := of.work(t.Context())
			cancel()
			require.ErrorIs(t, context.Cause(work), coterie.ErrNotOwner, name)

			require.NoError(t, of.acquire(t.Context()))
			work, cancel = of.work(t.Context())
			defer cancel()
			require.NoError(t, work.Err(), name)
			require.True(t, commit(t, n.Txn(work).If(coterie.GuardFromContext(work))).Succeeded, name)
			defer func() { require.ErrorIs(t, context.Cause(work), coterie.ErrSessionExpired, name) }()
		}
		require.NoError(t, s.Close())
		synctest.Wait()
	})
}

// Goroutines of two nodes share a Locker per node, and one runs at a time.
func TestLockerExcludes(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		lockers := []sync.Locker{}
		for _, n := range c.Nodes()[:2] {
			lockers = append(lockers, coterie.NewMutex(session(t, n, coterie.WithTTL(time.Hour)), "lock").Locker())
		}
		inside, sum := 0, 0
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				l := lockers[i%2]
				l.Lock()
				defer l.Unlock()
				if inside++; inside != 1 {
					t.Error("two holders at once")
				}
				time.Sleep(time.Second)
				sum++
				inside--
			})
		}
		time.Sleep(5 * time.Second)
		crashed := c.Index(c.Leader())
		c.Pause(crashed)
		time.Sleep(10 * time.Second)
		c.Heal()
		wg.Wait()
		require.Equal(t, 20, sum)
	})
}

func TestLockerPanicsWhenItCannotLock(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		panics := func(want error, call func()) {
			t.Helper()
			defer func() {
				err, _ := recover().(error)
				require.ErrorIs(t, err, want)
			}()
			call()
		}
		panics(coterie.ErrInvalidOption, coterie.NewMutex(session(t, n), "").Locker().Lock)

		s := session(t, n)
		m := coterie.NewMutex(s, "lock")
		l := m.Locker()
		panics(coterie.ErrNotOwner, l.Unlock)
		l.Lock()
		del(t, n, m.Key())
		panics(coterie.ErrNotOwner, l.Unlock)
		l.Lock()
		require.NoError(t, s.Close())
		panics(coterie.ErrSessionExpired, l.Unlock)
		panics(coterie.ErrSessionExpired, l.Lock)
		panics(coterie.ErrSessionExpired, m.Locker().Lock)
		require.NoError(t, coterie.NewMutex(session(t, n), "lock").TryLock(t.Context()))
	})
}

// K1: a holder that was suspended, and does not know that another holder has the lock, cannot write.
func TestK1_StaleHolderIsRejected(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx := t.Context()
		stale := c.Follower()
		a := coterie.NewMutex(session(t, stale), "lock")
		require.NoError(t, a.Lock(ctx))
		guard, token := a.Guard(), a.Token()
		c.Pause(c.Index(stale))
		b := coterie.NewMutex(session(t, c.Leader()), "lock")
		require.NoError(t, b.Lock(ctx))
		require.Greater(t, b.Token(), token)
		require.True(t, commit(t, c.Leader().Txn(ctx).If(b.Guard()).Then(coterie.OpPut("k", "new"))).Succeeded)
		c.Heal()
		require.False(t, commit(t, stale.Txn(ctx).If(guard).Then(coterie.OpPut("k", "stale"))).Succeeded)
		require.Equal(t, "new", get(t, stale, "k").KVs[0].Value)
		require.NoError(t, b.Unlock(ctx))
	})
}

// K2: bugs that etcd's recipes had.

func TestK2_StaleUnlockFreesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		s := session(t, n)
		a := coterie.NewMutex(s, "lock")
		require.NoError(t, a.Lock(ctx))
		require.NoError(t, errOf(n.Revoke(ctx, s.Lease())))
		b := coterie.NewMutex(session(t, n), "lock")
		require.NoError(t, b.Lock(ctx))
		require.ErrorIs(t, a.Unlock(ctx), coterie.ErrNotOwner)
		require.ErrorIs(t, coterie.NewMutex(session(t, n), "lock").TryLock(ctx), coterie.ErrLocked)
	})
}

func TestK2_WaiterEndsWithItsSession(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		require.NoError(t, coterie.NewMutex(session(t, n), "lock").Lock(ctx))
		s := session(t, n)
		waiting := make(chan error)
		go func() { waiting <- coterie.NewMutex(s, "lock").Lock(ctx) }()
		time.Sleep(time.Second)
		require.NoError(t, errOf(n.Revoke(ctx, s.Lease())))
		require.ErrorIs(t, <-waiting, coterie.ErrSessionExpired)
	})
}
