// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
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

// source returns random numbers of a seed that the log tells.
func source(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestItemsComeInOrder(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		var qs []*queue.Queue
		for i := range 3 {
			qs = append(qs, queue.New(session(t, c.Node(i)), "jobs"))
		}
		for i := range 30 {
			enqueue(t, qs[i%3], fmt.Sprint(i)) // one after another, on any node
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
				require.Equal(t, val, again.Value, "at its old place")
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

// Hundreds of takers, some of which give up, fail or crash, while leaders are lost: every item is
// had by one at a time, and what is written with its acknowledgement is written once.
func TestEveryItemIsDoneByOne(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const items = 200
		random := source(t)
		var mu sync.Mutex
		acked := map[string]int{}
		has := map[string]int64{} // tokens of the takers that have an item
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
						t.Errorf("%s is had by two, %d and %d", item.Value, other, item.Token())
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
		time.Sleep(time.Minute) // sessions end, and what was given up is given back
		require.Equal(t, [2]int64{0, 0}, size(t, producer))
		r, err := c.Leader().Get(t.Context(), "done/", coterie.WithPrefix())
		require.NoError(t, err)
		require.Len(t, r.KVs, items)
		for _, kv := range r.KVs {
			require.EqualValues(t, 1, kv.Version, kv.Key)
		}
	})
}

// An item of a taker that is gone is at its old place again, and the taker cannot acknowledge it.
func TestAnItemOfATakerThatIsGoneComesBack(t *testing.T) {
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
		c.Pause(c.Index(n))
		gone := time.Now()
		again := dequeue(t, q) // it waits until the lease has ended
		require.ErrorIs(t, context.Cause(work), coterie.ErrSessionExpired, "the taker is told before")
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

// Who gives up while its claim is under way has nothing, also when that arrives later.
func TestATakerThatGivesUpHasNothing(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		q := queue.New(session(t, n, coterie.WithTTL(time.Hour)), "jobs")
		_, err := q.Dequeue(short(t))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		enqueue(t, q, "first")
		ctx := short(t)
		taken := make(chan error, 1)
		leader := c.Index(c.Leader())
		c.Delay(leader, c.Index(n), 300*time.Millisecond) // it looks, claims, and does not hear of it
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

// What a taker has seen wait, and others have taken before its claim came, stays theirs when it gives up.
func TestATakerThatGivesUpTakesNothingFromOthers(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		slow, leader := c.Follower(), c.Leader()
		q, other := queue.New(session(t, slow), "jobs"), queue.New(session(t, leader), "jobs")
		enqueue(t, other, "1")
		enqueue(t, other, "2")
		ctx := short(t)
		c.Delay(c.Index(leader), c.Index(slow), 300*time.Millisecond) // it looks, claims, and does not hear of it
		c.Delay(c.Index(slow), c.Index(leader), 300*time.Millisecond)
		taken := make(chan error, 1)
		go func() {
			_, err := q.Dequeue(ctx)
			taken <- err
		}()
		time.Sleep(750 * time.Millisecond) // it has looked, and its claim is under way
		items := []*queue.Item{dequeue(t, other), dequeue(t, other)}
		require.ErrorIs(t, <-taken, context.DeadlineExceeded)
		c.Heal()
		time.Sleep(5 * time.Second)
		for _, item := range items {
			require.NoError(t, item.Ack(t.Context()))
		}
	})
}

// A counter counts the calls that wrote to the log, those included that changed nothing.
type counter struct{ writes atomic.Int64 }

func (c *counter) Add(m coterie.Metric, delta float64) {
	if m == coterie.MetricProposalsApplied {
		c.writes.Add(int64(delta))
	}
}
func (*counter) Set(coterie.Metric, float64)     {}
func (*counter) Observe(coterie.Metric, float64) {}

// Hundreds who look at the same line at the same moment do not all try for the first item; and of
// those of a process who wait, one looks when an item comes.
func TestTakersDoNotMakeAHerd(t *testing.T) {
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
		t.Log(count.writes.Load(), "writes for takers that know nothing of each other")
		require.Less(t, count.writes.Load(), int64(takers*takers/10))

		wait := take(shared)
		time.Sleep(time.Minute)
		count.writes.Store(0)
		for i := range takers {
			enqueue(t, own[0], fmt.Sprint(i))
		}
		wait()
		t.Log(count.writes.Load(), "writes for takers that share a Queue in each process, with the items'")
		require.LessOrEqual(t, count.writes.Load(), int64(takers+3*takers))
	}, metered)
}

func TestANamedItemIsThereOnce(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		q := queue.New(session(t, c.Node(0)), "jobs")
		const name = "a/b c/"
		enqueue(t, q, "1", queue.WithName(name))
		require.ErrorIs(t, q.Enqueue(t.Context(), "2", queue.WithName(name)), queue.ErrExists)
		item := dequeue(t, q)
		require.Equal(t, name, item.Name)
		require.ErrorIs(t, q.Enqueue(t.Context(), "2", queue.WithName(name)), queue.ErrExists, "it is taken only")
		require.NoError(t, item.Ack(t.Context()))
		enqueue(t, q, "2", queue.WithName(name))
		require.Equal(t, "2", dequeue(t, q).Value)
	})
}

func TestALongNameIsRefused(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		q := queue.New(session(t, c.Node(0)), "jobs")
		long := strings.Repeat("n", 1<<10)
		enqueue(t, q, "job", queue.WithName(long))
		require.ErrorIs(t, q.Enqueue(t.Context(), "job", queue.WithName(long+"n")), coterie.ErrInvalidOption)
		require.Equal(t, long, dequeue(t, q).Name)
	})
}

// A taker that is gone leaves hundreds of items; whoever comes next has them in their order.
func TestAllItemsOfATakerThatIsGoneComeBack(t *testing.T) {
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

// Everybody sees that a taker is gone, and each item is put back once: who waits would wake for nothing.
func TestItemsOfATakerThatIsGoneArePutBackOnce(t *testing.T) {
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

// Where transactions must be small, a claim names fewer items; what is given up is given back.
func TestAQueueKeepsToSmallTransactions(t *testing.T) {
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

// What somebody deletes by hand is not had by anybody, and holds nobody up.
func TestAnItemThatIsDeletedByHandIsSkipped(t *testing.T) {
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

// Each way to open a gate, for takers on all nodes, and those who come later.
func TestAGateOpensForAll(t *testing.T) {
	for name, way := range map[string]struct {
		when queue.Condition
		open func(context.Context, *queue.Queue, *queue.Gate) error
	}{
		"count": {queue.WhenCount(12), func(ctx context.Context, q *queue.Queue, _ *queue.Gate) error {
			return errors.Join(q.Enqueue(ctx, "11"), q.Enqueue(ctx, "12"))
		}},
		"named": {queue.WhenNamed("go"), func(ctx context.Context, q *queue.Queue, _ *queue.Gate) error {
			return errors.Join(q.Enqueue(ctx, "11", queue.WithName("ready")), q.Enqueue(ctx, "12", queue.WithName("go")))
		}},
		"signal": {queue.WhenOpened(), func(ctx context.Context, q *queue.Queue, g *queue.Gate) error {
			return errors.Join(q.Enqueue(ctx, "11"), q.Enqueue(ctx, "12"), g.Open(ctx))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				q := queue.New(session(t, c.Node(0), coterie.WithTTL(time.Hour)), "jobs")
				taken := make(chan *queue.Item, 20)
				for i := range 12 {
					g := queue.NewGate(queue.New(session(t, c.Node(i%3), coterie.WithTTL(time.Hour)), "jobs"), way.when)
					go func() {
						item, err := g.Dequeue(t.Context())
						if err != nil {
							t.Error(err)
						}
						taken <- item
					}()
				}
				for range 10 {
					enqueue(t, q, "job")
					time.Sleep(time.Second)
				}
				c.Pause(c.Index(c.Leader()))
				time.Sleep(time.Minute)
				c.Heal()
				time.Sleep(time.Minute)
				require.Empty(t, taken)
				require.NoError(t, way.open(t.Context(), q, queue.NewGate(q, way.when)))
				for range 12 {
					require.NoError(t, (<-taken).Ack(t.Context()))
				}
				g := queue.NewGate(q, way.when)
				require.NoError(t, g.Wait(t.Context()), "it stays open")
				require.NoError(t, g.Close(t.Context()))
				if name != "named" {
					require.ErrorIs(t, g.Wait(short(t)), context.DeadlineExceeded)
				}
				require.NoError(t, g.Open(t.Context()), "whatever its condition")
				require.NoError(t, g.Wait(t.Context()))
			})
		})
	}
}

// The name of one queue continues that of another, with a word that is in the other's keys.
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

func TestAnEmptyNameIsRefused(t *testing.T) {
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

// Whoever gets nothing learns whether all is taken, and by which process; a claim is readable.
func TestAWaitThatEndsTellsWhy(t *testing.T) {
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

		c.Partition() // each alone
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = q.Dequeue(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, coterie.ErrNoLeader)
		c.Heal()
		require.NoError(t, item.Ack(t.Context()))
	})
}
