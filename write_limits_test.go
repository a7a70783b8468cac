// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestInvalidLimitsAreRejected(t *testing.T) {
	_, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, QuotaBytes: -1, MaxPendingCalls: -1, MaxPendingBytes: 1})
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
	for _, field := range []string{"QuotaBytes", "MaxPendingCalls", "MaxPendingBytes"} {
		require.ErrorContains(t, err, "Config."+field)
	}
}

func quota(bytes int64) coterietest.Option {
	return coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.QuotaBytes = bytes })
}

// fill puts keys until the quota rejects one. It returns the number of keys, and the error of the rejected put.
func fill(t *testing.T, n *coterie.Node) (keys int, err error) {
	t.Helper()
	for ; err == nil; keys++ {
		_, err = n.Put(t.Context(), fmt.Sprintf("fill/%04d", keys), strings.Repeat("x", 1000))
	}
	require.ErrorIs(t, err, coterie.ErrNoSpace)
	require.NotErrorIs(t, err, coterie.ErrMaybeApplied)
	return keys - 1, err
}

func TestQuotaRejectsGrowingWrites(t *testing.T) {
	const most = 200_000
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		ctx := t.Context()
		put(t, n, "k", "v")
		id, short := grant(t, n, time.Hour), grant(t, n, 5*time.Second)
		put(t, n, "leased", "v", coterie.WithLease(id))
		put(t, n, "brief", "v", coterie.WithLease(short))
		count, err := fill(t, n)
		require.Greater(t, count, 150)
		c.WaitRevision(n.Status().Revision)

		var limit *coterie.LimitError
		require.True(t, errors.As(err, &limit))
		require.EqualValues(t, most, limit.Limit)
		require.Equal(t, n.Status().Bytes, limit.Actual)
		require.Equal(t, limit.Limit, n.Status().QuotaBytes)
		require.Less(t, limit.Actual, int64(most+2000))
		require.ErrorContains(t, err, fmt.Sprintf("no space: %d bytes held, the limit is %d (Config.QuotaBytes)", limit.Actual, most))

		rev := n.Status().Revision
		for _, n := range c.Nodes() {
			_, err = n.Put(ctx, "k", "w")
			require.ErrorIs(t, err, coterie.ErrNoSpace)
			_, err = n.Grant(ctx, time.Minute)
			require.ErrorIs(t, err, coterie.ErrNoSpace)
			nested := coterie.OpTxn(nil, nil, []coterie.Op{coterie.OpPut("k", "w")})
			_, err = n.Txn(ctx).Then(coterie.OpDelete("k")).Else(nested).Commit()
			require.ErrorIs(t, err, coterie.ErrNoSpace, "a put in any branch")
		}
		require.Equal(t, rev, n.Status().Revision)

		// Reads, renewals, and writes that free memory still work.
		_, err = n.KeepAliveOnce(ctx, id)
		require.NoError(t, err)
		require.Len(t, get(t, n, "k").KVs, 1)
		require.NoError(t, errOf(n.Revoke(ctx, id)))
		time.Sleep(10 * time.Second)
		require.Empty(t, get(t, n, "brief").KVs, "leases expire")
		_, err = n.Txn(ctx).Then(coterie.OpDelete("k")).Commit()
		require.NoError(t, err)
	}, quota(most))
}

// A deletion adds to the history, and frees memory only when the leader compacts.
func TestDeletingFreesQuota(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		for range 5 {
			count, _ := fill(t, n)
			for i := range count / 20 {
				del(t, n, fmt.Sprintf("fill/%04d", i))
			}
			synctest.Wait()
			put(t, n, "again", "v")
			s := n.Status()
			require.Positive(t, s.CompactRevision)
			require.Less(t, s.Bytes, s.QuotaBytes)
			del(t, n, "fill/", coterie.WithPrefix())
			synctest.Wait()
			require.Less(t, n.Status().Bytes, s.QuotaBytes)
		}
		sameState(t, c)
	}, quota(200_000))
}

func TestCompactingFreesQuota(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		rev := put(t, n, "k", strings.Repeat("x", 90_000)).Revision
		_, err := n.Put(t.Context(), "k", strings.Repeat("y", 90_000))
		require.NoError(t, err)
		_, _ = n.Compact(t.Context(), rev+1) // fails if the leader has compacted already
		synctest.Wait()
		put(t, n, "k", "w")
	}, func(c *coterie.Config) { c.QuotaBytes, c.Retention.Bytes = 150_000, -1 })
}

// If a service overwrites a few keys, nearly all of the store is history.
func TestOverwritingStaysWithinQuota(t *testing.T) {
	for _, bytes := range []int64{0, -1} {
		bubble(t, func(t *testing.T, n *coterie.Node) {
			for i := range 5000 {
				put(t, n, fmt.Sprint(i%10), strings.Repeat("x", 1000))
				if i%50 == 0 {
					synctest.Wait() // a tenth of the quota is for writes until a compaction is applied
				}
			}
			require.Less(t, n.Status().Bytes, int64(2_000_000))
			require.Greater(t, n.Status().Bytes, int64(1_500_000), "history is kept within the quota")
		}, func(c *coterie.Config) { c.QuotaBytes, c.Retention.Bytes = 2_000_000, bytes })
	}
}

// Calls that were sent twice wait until their outcome is known. Other calls do not wait for them.
func TestFullDiskRejectsWritesAtOnce(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		put(t, n, "k", "v")
		c.FillDisk(c.Index(n), true)
		ctx, cancel := context.WithCancel(t.Context())
		big := strings.Repeat("x", 1<<20)
		var waiting sync.WaitGroup
		var mu sync.Mutex
		var rejected int
		for range 100 {
			waiting.Go(func() {
				_, err := n.Put(ctx, "k", big)
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, coterie.ErrNoSpace) && !errors.Is(err, coterie.ErrMaybeApplied) {
					rejected++
				}
			})
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		require.Greater(t, rejected, 80, "all but the calls in flight")
		mu.Unlock()
		begin := time.Now()
		_, err := n.Put(t.Context(), "k", "w")
		require.ErrorIs(t, err, coterie.ErrNoSpace)
		require.ErrorContains(t, err, n.Status().Name+" cannot write its log: ")
		_, err = n.Delete(t.Context(), "k")
		require.ErrorIs(t, err, coterie.ErrNoSpace, "the node would not apply a deletion either")
		require.Zero(t, time.Since(begin), "at once")
		c.FillDisk(c.Index(n), false)
		time.Sleep(time.Second)
		put(t, n, "k", "w")
		cancel()
		waiting.Wait()
		sameState(t, c)
	})
}

// A node that has never written registers before its first write. While it cannot, its calls fail at once.
func TestFullDiskFoundBeforeFirstWrite(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		c.FillDisk(0, true)
		n := c.Node(0)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 100 { // until the space that the log has reserved is used up
			go n.Put(ctx, "k", strings.Repeat("x", 1<<20))
		}
		time.Sleep(10 * time.Second)
		_, err := n.Put(t.Context(), "k", "v")
		require.ErrorIs(t, err, coterie.ErrNoSpace)
		c.FillDisk(0, false)
		time.Sleep(time.Second)
		put(t, n, "k", "v")
		cancel()
		synctest.Wait()
	})
}

func TestOverloadIsBoundedAndImmediate(t *testing.T) {
	for name, limits := range map[string]func(_ int, cfg *coterie.Config){
		"calls": func(_ int, cfg *coterie.Config) { cfg.MaxPendingCalls = 160 },
		"bytes": func(_ int, cfg *coterie.Config) { cfg.MaxPendingBytes = 160 * (64<<10 + 40) },
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				n := c.Follower()
				id := grant(t, n, time.Hour)
				for i := range 3 {
					c.StallDisk(i, true)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				value := strings.Repeat("x", 64<<10)
				answers := make(chan error, 1000)
				for range 1000 {
					go func() { _, err := n.Put(ctx, "k", value); answers <- err }()
				}
				begin := time.Now()
				for range 840 {
					err := <-answers
					require.ErrorIs(t, err, coterie.ErrOverloaded)
					require.NotErrorIs(t, err, coterie.ErrMaybeApplied)
					var limit *coterie.LimitError
					require.True(t, errors.As(err, &limit))
					require.Greater(t, limit.Actual, limit.Limit)
					require.ErrorContains(t, err, "Config.MaxPending")
				}
				require.Zero(t, time.Since(begin), "at once")
				synctest.Wait()
				require.Empty(t, answers, "the other calls wait")

				// Writes that free memory have places of their own. Renewals and reads need no place.
				freed := make(chan error, 1)
				go func() { _, err := n.Delete(t.Context(), "other"); freed <- err }()
				synctest.Wait()
				require.Empty(t, freed)
				_, err := n.KeepAliveOnce(t.Context(), id)
				require.NoError(t, err)
				get(t, n, "k")

				c.Heal()
				for range 160 {
					require.NoError(t, <-answers)
				}
				require.NoError(t, <-freed)
				put(t, n, "k", "v")
				sameState(t, c)
			}, coterietest.WithConfig(limits), coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.DiskTimeout = time.Hour }))
		})
	}
}

// While there is no quorum, callers give up and call again. The abandoned calls use no memory beyond
// that of the calls that wait.
func TestAbandonedCallsLeaveNothing(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		put(t, n, "k", "v")
		c.Partition([]int{0}, []int{1}, []int{2})
		before := heapInUse()
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var callers sync.WaitGroup
			for range 100 {
				callers.Go(func() { n.Put(ctx, "k", string(make([]byte, 128<<10))) })
			}
			callers.Wait()
			cancel()
		}
		require.Less(t, heapInUse(), before+128<<20, "of more than a gigabyte")
		c.Heal()
		put(t, c.Leader(), "k", "v")
		put(t, n, "k", "v")
	})
}

// A caller gives up its place in a lock's queue while the node accepts no writes. The place is freed later. Otherwise
// all callers behind it would wait as long as the session lives.
func TestRejectedCallFreesItsPlace(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		s := session(t, n, coterie.WithTTL(time.Hour))
		holder, second := coterie.NewMutex(s, "lock"), coterie.NewMutex(s, "lock")
		require.NoError(t, holder.Lock(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- second.Lock(ctx) }()
		synctest.Wait()
		c.FillDisk(0, true)
		var err error
		for range 10 {
			writing, stop := context.WithTimeout(t.Context(), time.Second)
			_, err = n.Put(writing, "k", strings.Repeat("x", 1<<20))
			stop()
		}
		require.ErrorIs(t, err, coterie.ErrNoSpace)
		cancel()
		require.ErrorIs(t, <-gaveUp, context.Canceled)
		time.Sleep(time.Minute)
		c.FillDisk(0, false)
		time.Sleep(time.Second)
		require.NoError(t, holder.Unlock(t.Context()))
		require.NoError(t, coterie.NewMutex(s, "lock").TryLock(t.Context()))

		c.FillDisk(0, true)
		for err = nil; !errors.Is(err, coterie.ErrNoSpace); {
			writing, stop := context.WithTimeout(t.Context(), time.Second)
			_, err = n.Put(writing, "k", strings.Repeat("x", 1<<20))
			stop()
		}
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		time.Sleep(time.Minute)
		require.Empty(t, closed)
		c.FillDisk(0, false)
		require.NoError(t, <-closed)
		require.ErrorIs(t, errOf(n.Revoke(t.Context(), s.Lease())), coterie.ErrLeaseNotFound)
	})
}
