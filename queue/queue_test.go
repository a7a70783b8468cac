// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/queue"
)

func session(t testing.TB, n *coterie.Node, opts ...coterie.SessionOption) *coterie.Session {
	t.Helper()
	s, err := coterie.NewSession(t.Context(), n, opts...)
	require.NoError(t, err)
	t.Cleanup(s.Orphan)
	return s
}

func enqueue(t testing.TB, q *queue.Queue, val string, opts ...queue.EnqueueOption) {
	t.Helper()
	require.NoError(t, q.Enqueue(t.Context(), val, opts...))
}

func dequeue(t testing.TB, q *queue.Queue) *queue.Item {
	t.Helper()
	item, err := q.Dequeue(t.Context())
	require.NoError(t, err)
	return item
}

func size(t testing.TB, q *queue.Queue) [2]int64 {
	t.Helper()
	waiting, taken, err := q.Len(t.Context())
	require.NoError(t, err)
	return [2]int64{waiting, taken}
}

func revision(t testing.TB, n *coterie.Node) int64 {
	t.Helper()
	r, err := n.Get(t.Context(), "none")
	require.NoError(t, err)
	return r.Revision
}

// short returns a context that ends in a second.
func short(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// source returns random numbers, and logs their seed.
func source(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestItemsAreTakenInOrder(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		var qs []*queue.Queue
		for i := range 3 {
			qs = append(qs, queue.New(session(t, c.Node(i)), "jobs"))
		}
		for i := range 30 {
			enqueue(t, qs[i%3], fmt.Sprint(i)) // one after the other, on different nodes
		}
		enqueue(t, qs[0], "low", queue.WithPriority(-32768))
		enqueue(t, qs[1], "high", queue.WithPriority(1))
		enqueue(t, qs[2], "highest", queue.WithPriority(32767))
		enqueue(t, qs[0], "high, later", queue.WithPriority(1))
		want := []string{"highest", "high", "high, later"}
		for i := range 30 {
			want = append(want, fmt.Sprint(i))
		}
		for i, val := range append(want, "low") {
			first, err := qs[i%3].Peek(t.Context())
			require.NoError(t, err)
			require.Equal(t, val, first)
			item := dequeue(t, qs[(i+1)%3])
			require.Equal(t, val, item.Value)
			if i%2 == 0 {
				require.NoError(t, item.Nack(t.Context()))
				require.ErrorIs(t, item.Ack(t.Context()), coterie.ErrNotOwner)
				again := dequeue(t, qs[i%3])
				require.Equal(t, val, again.Value, "it returned to its old place")
				require.Greater(t, again.Token(), item.Token())
				item = again
			}
			require.NoError(t, item.Ack(t.Context()))
			require.ErrorIs(t, item.Ack(t.Context()), coterie.ErrNotOwner)
			require.ErrorIs(t, item.Nack(t.Context()), coterie.ErrNotOwner)
		}
		_, err := qs[0].Peek(t.Context())
		require.ErrorIs(t, err, queue.ErrEmpty)
		_, err = qs[0].TryDequeue(t.Context())
		require.ErrorIs(t, err, queue.ErrEmpty)
		r, err := c.Leader().Get(t.Context(), "jobs", coterie.WithPrefix())
		require.NoError(t, err)
		require.Empty(t, r.KVs)
	})
}

// Over a hundred consumers, some of which give up, fail or crash, while leaders are lost: one consumer has an item at a
// time, and the operations of its acknowledgement are executed once.
func TestEachItemIsDoneByOneConsumer(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const items = 200
		random := source(t)
		var mu sync.Mutex
		acked := map[string]int{}
		has := map[string]int64{} // tokens of the consumers, by item
		ctx, done := context.WithCancel(t.Context())
		defer done()
		var wg sync.WaitGroup
		for i := range 120 {
			n := c.Node(i % 3)
			seed := random.Uint64()
			share := queue.New(session(t, n, coterie.WithTTL(time.Hour)), "jobs")
			wg.Go(func() {
				random := rand.New(rand.NewPCG(seed, 1))
				for ctx.Err() == nil {
					time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
					q := share
					crash := random.IntN(20) == 0
					if crash {
						s, err := coterie.NewSession(ctx, n, coterie.WithTTL(10*time.Second))
						if err != nil {
							continue
						}
						defer s.Orphan()
						q = queue.New(s, "jobs")
						time.AfterFunc(time.Duration(random.IntN(1000))*time.Millisecond, s.Orphan)
					}
					patience, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(3000))*time.Millisecond)
					take := q.Dequeue
					if random.IntN(4) == 0 {
						take = q.TryDequeue
					}
					item, err := take(patience)
					cancel()
					if err != nil {
						continue
					}
					mu.Lock()
					if other := has[item.Value]; !crash && other != 0 {
						t.Errorf("two consumers have %s, %d and %d", item.Value, other, item.Token())
					}
					if !crash {
						has[item.Value] = item.Token()
					}
					mu.Unlock()
					time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
					if crash {
						continue
					}
					mu.Lock()
					delete(has, item.Value)
					mu.Unlock()
					if random.IntN(5) == 0 {
						if err := item.Nack(t.Context()); err != nil {
							t.Error(err)
						}
						continue
					}
					if err := item.Ack(t.Context(), coterie.OpPut("done/"+item.Value, "")); err != nil {
						t.Error(err)
						continue
					}
					mu.Lock()
					acked[item.Value]++
					if len(acked) == items {
						done()
					}
					mu.Unlock()
				}
			})
		}
		producer := queue.New(session(t, c.Node(0), coterie.WithTTL(time.Hour)), "jobs")
		wg.Go(func() {
			for i := range items {
				if err := producer.Enqueue(t.Context(), fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
		for ctx.Err() == nil {
			time.Sleep(2 * time.Second)
			c.Pause(random.IntN(3))
			time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			c.Heal()
		}
		wg.Wait()
		require.Len(t, acked, items)
		for val, times := range acked {
			require.Equal(t, 1, times, val)
		}
		time.Sleep(time.Minute) // sessions end, and abandoned claims are given back
		require.Equal(t, [2]int64{0, 0}, size(t, producer))
		r, err := c.Leader().Get(t.Context(), "done/", coterie.WithPrefix())
		require.NoError(t, err)
		require.Len(t, r.KVs, items)
		for _, kv := range r.KVs {
			require.EqualValues(t, 1, kv.Version, kv.Key)
		}
	})
}

func TestAQueueHasANameOnce(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		q := queue.New(session(t, c.Node(0)), "jobs")
		const name = "a/b c/"
		enqueue(t, q, "1", queue.WithName(name))
		require.ErrorIs(t, q.Enqueue(t.Context(), "2", queue.WithName(name)), queue.ErrExists)
		item := dequeue(t, q)
		require.Equal(t, name, item.Name)
		require.ErrorIs(t, q.Enqueue(t.Context(), "2", queue.WithName(name)), queue.ErrExists, "it is taken but not acknowledged")
		require.NoError(t, item.Ack(t.Context()))
		enqueue(t, q, "2", queue.WithName(name))
		require.Equal(t, "2", dequeue(t, q).Value)
	})
}

func TestALongNameIsRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		q := queue.New(session(t, c.Node(0)), "jobs")
		long := strings.Repeat("n", 1<<10)
		enqueue(t, q, "job", queue.WithName(long))
		require.ErrorIs(t, q.Enqueue(t.Context(), "job", queue.WithName(long+"n")), coterie.ErrInvalidOption)
		require.Equal(t, long, dequeue(t, q).Name)
	})
}

// An item that is deleted by hand is not taken, and does not block the queue.
func TestADeletedItemIsSkipped(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		q := queue.New(session(t, n), "jobs")
		for i := range 30 {
			enqueue(t, q, fmt.Sprint(i))
		}
		kept, err := n.Get(t.Context(), "jobs/item/", coterie.WithPrefix(), coterie.WithSort(coterie.SortByKey, coterie.SortDescend), coterie.WithLimit(1))
		require.NoError(t, err)
		_, err = n.Delete(t.Context(), "jobs/item/", coterie.WithRange(kept.KVs[0].Key))
		require.NoError(t, err)
		require.Equal(t, "29", dequeue(t, q).Value)
		_, err = q.TryDequeue(t.Context())
		require.ErrorIs(t, err, queue.ErrEmpty)
		require.Equal(t, [2]int64{0, 1}, size(t, q))

		enqueue(t, q, "deleted")
		enqueue(t, q, "next", queue.WithPriority(-1))
		first, err := n.Get(t.Context(), "jobs/line/", coterie.WithPrefix(), coterie.WithLimit(1))
		require.NoError(t, err)
		_, err = n.Delete(t.Context(), strings.Replace(first.KVs[0].Key, "/line/", "/item/", 1))
		require.NoError(t, err)
		val, err := q.Peek(short(t))
		require.NoError(t, err)
		require.Equal(t, "next", val)
	})
}

func TestAnItemCostsThreeWrites(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		q := queue.New(session(t, n), "jobs")
		before := revision(t, n)
		for range 10 {
			enqueue(t, q, "job")
			require.NoError(t, dequeue(t, q).Ack(t.Context()))
		}
		require.Equal(t, before+30, revision(t, n))
	})
}

// The name of one queue may continue the name of another with a word of the other's keys.
func TestQueuesOfNestedNamesAreIndependent(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		s := session(t, c.Node(0))
		var queues []*queue.Queue
		for _, name := range []string{"q/item", "q", "q/line", "q/claim", "q/name", "q/1", "q/item/line"} {
			q := queue.New(s, name)
			enqueue(t, q, name+" first")
			enqueue(t, q, name+" second", queue.WithName("second"))
			require.Equal(t, name+" first", dequeue(t, q).Value)
			queues = append(queues, q)
		}
		for _, q := range queues {
			require.Equal(t, [2]int64{1, 1}, size(t, q))
			item := dequeue(t, q)
			require.Contains(t, item.Value, " second")
			require.NoError(t, item.Ack(t.Context()))
			_, err := q.TryDequeue(t.Context())
			require.ErrorIs(t, err, queue.ErrEmpty)
		}
	})
}

func TestAnEmptyNameIsRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		ctx := t.Context()
		q := queue.New(session(t, c.Node(0)), "")
		g := queue.NewGate(q, queue.WhenOpened())
		_, dequeue := q.Dequeue(ctx)
		_, try := q.TryDequeue(ctx)
		_, peek := q.Peek(ctx)
		_, _, size := q.Len(ctx)
		_, gated := g.Dequeue(ctx)
		for name, err := range map[string]error{
			"enqueue": q.Enqueue(ctx, "v"), "dequeue": dequeue, "try": try, "peek": peek, "len": size, "gated": gated,
			"open": g.Open(ctx), "close": g.Close(ctx), "wait": g.Wait(ctx),
		} {
			require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
		}
	})
}

// The error of a consumer that gives up says how many items are taken, and by which process. A claim names its
// consumer.
func TestAnErrorNamesTheConsumer(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		taker := queue.New(session(t, n, coterie.WithTTL(time.Hour)), "q")
		enqueue(t, taker, "v")
		item := dequeue(t, taker)
		r, err := n.Get(t.Context(), "q/claim/", coterie.WithPrefix())
		require.NoError(t, err)
		h, ok := coterie.ParseHolder(r.KVs[0].Value)
		require.True(t, ok)
		require.Equal(t, n.Status().Name, h.Node)

		q := queue.New(session(t, c.Leader(), coterie.WithTTL(time.Hour)), "q")
		gate := queue.NewGate(q, queue.WhenOpened())
		_, err = q.Dequeue(short(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `0 items wait in "q", and 1 are taken, the first by `+h.String())
		_, err = gate.Dequeue(short(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `the gate of "q" is closed`)
		require.NotErrorIs(t, err, coterie.ErrNoLeader)
		require.NoError(t, item.Nack(t.Context()))
		item = dequeue(t, q)

		c.Partition() // no node reaches another
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = q.Dequeue(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, coterie.ErrNoLeader)
		c.Heal()
		require.NoError(t, item.Ack(t.Context()))
	})
}
