// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/queue"
)

// An item of a lost consumer returns to its old place, and that consumer cannot acknowledge it.
func TestAnItemOfALostConsumerReturns(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		lost := queue.New(session(t, n), "jobs")
		q := queue.New(session(t, c.Leader()), "jobs")
		enqueue(t, q, "first")
		enqueue(t, q, "second")
		item := dequeue(t, lost)
		require.Equal(t, "first", item.Value)
		require.Equal(t, [2]int64{1, 1}, size(t, q))
		second := dequeue(t, q)
		require.Equal(t, "second", second.Value)
		work, cancel := item.WorkContext(t.Context())
		defer cancel()
		require.Equal(t, item.Guard(), coterie.GuardFromContext(work))
		c.Pause(c.Index(n))
		gone := time.Now()
		again := dequeue(t, q) // it waits until the lease has ended
		require.ErrorIs(t, context.Cause(work), coterie.ErrSessionExpired, "the consumer is notified before")
		require.Equal(t, "first", again.Value)
		require.Greater(t, time.Since(gone), 8*time.Second)
		require.Greater(t, again.Token(), item.Token())
		c.Heal()
		require.ErrorIs(t, item.Ack(t.Context(), coterie.OpPut("stale", "")), coterie.ErrNotOwner)
		r, err := n.Get(t.Context(), "stale")
		require.NoError(t, err)
		require.Empty(t, r.KVs)
		_, err = lost.Dequeue(t.Context())
		require.ErrorIs(t, err, coterie.ErrSessionExpired)
		require.NoError(t, again.Ack(t.Context()))
		require.NoError(t, second.Ack(t.Context()))
	})
}

// A consumer that gives up during its claim has no item, even if the claim is applied later.
func TestAConsumerThatGivesUpHasNoItem(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		q := queue.New(session(t, n, coterie.WithTTL(time.Hour)), "jobs")
		_, err := q.Dequeue(short(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		enqueue(t, q, "first")
		ctx := short(t)
		taken := make(chan error, 1)
		leader := c.Index(c.Leader())
		c.Delay(leader, c.Index(n), 300*time.Millisecond) // it reads, claims, and gets no answer
		c.Delay(c.Index(n), leader, 300*time.Millisecond)
		go func() {
			_, err := q.Dequeue(ctx)
			taken <- err
		}()
		require.ErrorIs(t, <-taken, context.DeadlineExceeded)
		c.Heal()
		time.Sleep(10 * time.Second)
		require.Equal(t, [2]int64{1, 0}, size(t, q))
		require.Equal(t, "first", dequeue(t, q).Value)
	})
}

// A consumer gives up while its claim is in flight. If others take the items before the claim is applied, they keep
// them.
func TestGivingUpTakesNothingFromOthers(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		slow, leader := c.Follower(), c.Leader()
		q, other := queue.New(session(t, slow), "jobs"), queue.New(session(t, leader), "jobs")
		enqueue(t, other, "1")
		enqueue(t, other, "2")
		ctx := short(t)
		c.Delay(c.Index(leader), c.Index(slow), 300*time.Millisecond) // it reads, claims, and gets no answer
		c.Delay(c.Index(slow), c.Index(leader), 300*time.Millisecond)
		taken := make(chan error, 1)
		go func() {
			_, err := q.Dequeue(ctx)
			taken <- err
		}()
		time.Sleep(750 * time.Millisecond) // it has read, and its claim is in flight
		items := []*queue.Item{dequeue(t, other), dequeue(t, other)}
		require.ErrorIs(t, <-taken, context.DeadlineExceeded)
		c.Heal()
		time.Sleep(5 * time.Second)
		for _, item := range items {
			require.NoError(t, item.Ack(t.Context()))
		}
	})
}

// A counter counts the calls that wrote to the log, including those that changed nothing.
type counter struct{ writes atomic.Int64 }

func (c *counter) Add(m coterie.Metric, delta float64) {
	if m == coterie.MetricProposalsApplied {
		c.writes.Add(int64(delta))
	}
}

func (*counter) Set(coterie.Metric, float64) {}

func (*counter) Observe(coterie.Metric, float64) {}

// Hundreds of consumers that read the same line at the same moment do not all claim the first item. Of the waiting
// consumers of a process, one reads when an item arrives.
func TestConsumersClaimDifferentItems(t *testing.T) {
	const takers = 200
	var count counter
	metered := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Metrics = &count })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		take := func(queues []*queue.Queue) func() {
			var wg sync.WaitGroup
			for i := range takers {
				wg.Go(func() {
					if _, err := queues[i%len(queues)].Dequeue(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			return wg.Wait
		}
		var shared, own []*queue.Queue
		for i := range takers {
			own = append(own, queue.New(session(t, c.Node(i%3), coterie.WithTTL(time.Hour)), "jobs"))
		}
		for i := range 3 {
			shared = append(shared, queue.New(session(t, c.Node(i), coterie.WithTTL(time.Hour)), "jobs"))
		}
		for i := range takers {
			enqueue(t, own[0], fmt.Sprint(i))
		}
		count.writes.Store(0)
		take(own)()
		t.Log(count.writes.Load(), "writes for consumers with a Queue each")
		require.Less(t, count.writes.Load(), int64(takers*takers/10))

		wait := take(shared)
		time.Sleep(time.Minute)
		count.writes.Store(0)
		for i := range takers {
			enqueue(t, own[0], fmt.Sprint(i))
		}
		wait()
		t.Log(count.writes.Load(), "writes for consumers that share a Queue in each process, including those of the items")
		require.LessOrEqual(t, count.writes.Load(), int64(takers+3*takers))
	}, metered)
}

// A lost consumer leaves hundreds of items. The next consumer takes them in order.
func TestAllItemsOfALostConsumerReturn(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const items = 300
		s := session(t, c.Node(0))
		lost, q := queue.New(s, "jobs"), queue.New(session(t, c.Node(1)), "jobs")
		for i := range items {
			enqueue(t, q, fmt.Sprint(i))
		}
		for range items - 1 {
			dequeue(t, lost)
		}
		require.NoError(t, s.Close())
		first, err := q.Peek(t.Context())
		require.NoError(t, err)
		require.Equal(t, "0", first)
		require.Equal(t, [2]int64{items, 0}, size(t, q))
		for i := range items {
			item := dequeue(t, q)
			require.Equal(t, fmt.Sprint(i), item.Value)
			require.NoError(t, item.Ack(t.Context()))
		}
	})
}

// All consumers notice that one is lost, but each item is returned once, so that waiters do not wake without an item.
func TestLostItemsArePutBackOnce(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		s := session(t, c.Node(0))
		lost := queue.New(s, "jobs")
		for range 20 {
			enqueue(t, lost, "job")
			dequeue(t, lost)
		}
		require.NoError(t, s.Close())
		var wg sync.WaitGroup
		for i := range 30 {
			q := queue.New(session(t, c.Node(i%3)), "jobs")
			wg.Go(func() {
				if _, err := q.Peek(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		line, err := c.Leader().Get(t.Context(), "jobs/line/", coterie.WithPrefix())
		require.NoError(t, err)
		require.Len(t, line.KVs, 20)
		for _, kv := range line.KVs {
			require.EqualValues(t, 1, kv.Version)
		}
	})
}

// If transactions must be small, a claim names fewer items. An abandoned claim is given back.
func TestAQueueFitsSmallTransactions(t *testing.T) {
	small := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.MaxTxnOps = 4 })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		s := session(t, n)
		q := queue.New(s, "jobs")
		for i := range 10 {
			enqueue(t, q, fmt.Sprint(i), queue.WithName(fmt.Sprint(i)))
		}
		require.NoError(t, dequeue(t, q).Ack(t.Context()))
		require.NoError(t, dequeue(t, q).Nack(t.Context()))
		ctx := short(t)
		for _, i := range []int{0, 1, 2} {
			c.Delay(i, c.Index(n), 400*time.Millisecond)
		}
		_, err := q.Dequeue(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		c.Heal()
		time.Sleep(10 * time.Second)
		require.Equal(t, [2]int64{9, 0}, size(t, q))
		for range 5 {
			dequeue(t, q)
		}
		require.NoError(t, s.Close())
		q = queue.New(session(t, n), "jobs")
		require.Equal(t, "1", dequeue(t, q).Value)
		require.Equal(t, [2]int64{8, 1}, size(t, q))
	}, small)
}
