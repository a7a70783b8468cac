// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// One name continues another, with parts that look like a lease in hex.
func TestLocksOfNestedNamesAreIndependent(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		s := session(t, n)
		lock := func(name string) *coterie.Mutex {
			m := coterie.NewMutex(s, name)
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			require.NoError(t, m.Lock(short), name)
			return m
		}
		const name = "locks/order/1"
		inner := []*coterie.Mutex{}
		for i := range 40 { // more than are read at first
			inner = append(inner, lock(fmt.Sprintf("%s/%d", name, i)))
		}
		put(t, n, name+"/note", "not a place")
		outer := lock(name)
		inner = append(inner, lock(name+"/2a"), lock(name+"/1-00000000"), lock(name+"/"))
		require.ErrorIs(t, coterie.NewMutex(s, name).TryLock(ctx), coterie.ErrLocked)

		// A waiter waits for the waiter before it, although keys of other names are in between.
		order := make(chan int, 3)
		for i := range 3 {
			m := coterie.NewMutex(s, name)
			go func() {
				require.NoError(t, m.Lock(ctx))
				order <- i
				require.NoError(t, m.Unlock(ctx))
			}()
			synctest.Wait()
			for k := range 20 {
				inner = append(inner, lock(fmt.Sprintf("%s/%d/%d", name, i, k)))
			}
		}
		require.Empty(t, order)
		require.NoError(t, outer.Unlock(ctx))
		require.Equal(t, []int{0, 1, 2}, []int{<-order, <-order, <-order})
		synctest.Wait()
		require.NoError(t, outer.TryLock(ctx))
		for _, m := range inner {
			require.NoError(t, m.Unlock(ctx))
		}
	})
}

// TryLock is right although other contenders come between its read and its write, and under other names.
func TestTryLockAmongOthers(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := session(t, n)
		ctx, cancel := context.WithCancel(t.Context())
		var others, tries sync.WaitGroup
		for range 4 {
			others.Go(func() {
				for inner := coterie.NewMutex(s, "lock/inner"); ctx.Err() == nil; {
					_ = inner.Do(ctx, func(context.Context, int64) error { return nil })
					time.Sleep(time.Millisecond / 4) // virtual time stands still while a goroutine runs
				}
			})
		}
		var inside, got atomic.Int32
		for range 8 {
			tries.Go(func() {
				for range 50 {
					m := coterie.NewMutex(s, "lock")
					err := m.TryLock(t.Context())
					if err == nil {
						require.EqualValues(t, 1, inside.Add(1))
						got.Add(1)
						time.Sleep(time.Millisecond)
						inside.Add(-1)
						err = m.Unlock(t.Context())
					} else if errors.Is(err, coterie.ErrLocked) {
						err = nil
						time.Sleep(time.Millisecond / 2)
					}
					require.NoError(t, err)
				}
			})
		}
		tries.Wait()
		require.Greater(t, got.Load(), int32(10))
		require.NoError(t, coterie.NewMutex(s, "lock").TryLock(t.Context()))
		cancel()
		others.Wait()
	})
}

func TestElectionsOfNestedNamesAreIndependent(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		s := session(t, n)
		for _, prefix := range []string{"job/1", "job", "job/1/2"} {
			e := coterie.NewElection(s, prefix)
			short, cancel := context.WithTimeout(ctx, time.Second)
			require.NoError(t, e.Campaign(short, prefix))
			cancel()
			info, err := e.Leader(ctx)
			require.NoError(t, err)
			require.Equal(t, prefix, info.Value)
		}
		for info, err := range coterie.ObserveElection(ctx, n, "job") {
			require.NoError(t, err)
			require.Equal(t, "job", info.Value)
			break
		}
	})
}

func TestEmptyNameIsRejected(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		s := session(t, n)
		m, e := coterie.NewMutex(s, ""), coterie.NewElection(s, "")
		body := func(context.Context, int64) error { return nil }
		_, leader := e.Leader(ctx)
		for name, err := range map[string]error{
			"lock": m.Lock(ctx), "try": m.TryLock(ctx), "do": m.Do(ctx, body), "campaign": e.Campaign(ctx, ""), "leader": leader,
			"run": coterie.RunAsLeader(ctx, n, "", "", body),
		} {
			require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
		}
		for _, err := range coterie.ObserveElection(ctx, n, "") {
			require.ErrorIs(t, err, coterie.ErrInvalidOption)
		}
	})
}

// A key of an earlier version excludes, whatever its value.
func TestPlaceOfAnEarlierVersionExcludes(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := session(t, n)
		key := fmt.Sprintf("lock/%v-%08x", s.Lease(), 7)
		put(t, n, key, "", coterie.WithLease(s.Lease()))
		require.ErrorIs(t, coterie.NewMutex(s, "lock").TryLock(t.Context()), coterie.ErrLocked)
		ended := make(chan error, 1)
		go func() { ended <- coterie.NewMutex(s, "lock").Lock(t.Context()) }()
		time.Sleep(time.Second)
		require.Empty(t, ended)
		del(t, n, key)
		require.NoError(t, <-ended)
	})
}

// From a follower with a slow network, a Lock and a Campaign take as long as a Put: they need no read. With a bound of
// one operation a transaction cannot count the places, and they work all the same. A follower can learn of a commit one
// round trip later, if the append was sent just before. So the least times of several calls are compared.
func TestFirstPlaceCostsOneWrite(t *testing.T) {
	for ops, most := range map[int]float64{0: 1.2, 1: 3} {
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			n := c.Follower()
			s := session(t, n)
			for i := range 3 {
				c.Delay(c.Index(n), i, 50*time.Millisecond)
			}
			m, e := coterie.NewMutex(s, "lock"), coterie.NewElection(s, "election")
			one, both := time.Hour, time.Hour
			for range 20 {
				begin := time.Now()
				put(t, n, "k", "v")
				one = min(one, time.Since(begin))
				begin = time.Now()
				require.NoError(t, m.Lock(t.Context()))
				require.NoError(t, e.Campaign(t.Context(), ""))
				both = min(both, time.Since(begin))
				require.NoError(t, m.Unlock(t.Context()))
				require.NoError(t, e.Resign(t.Context()))
			}
			require.Less(t, float64(both), 2*most*float64(one))
			require.NoError(t, m.Lock(t.Context()))
			require.ErrorIs(t, coterie.NewMutex(s, "lock").TryLock(t.Context()), coterie.ErrLocked)
			require.NoError(t, m.Unlock(t.Context()))
			require.NoError(t, m.TryLock(t.Context()))
		}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.MaxTxnOps = ops }))
	}
}
