// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestProgressIsAnsweredOnRequest(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		requests := make(chan struct{}, 1)
		watch := n.WatchChan(t.Context(), "k", coterie.WithProgressRequests(requests))
		put(t, n, "other", "v")
		silent(t, watch)
		requests <- struct{}{}
		require.Equal(t, "2: ", show(next(t, watch)))
		silent(t, watch)

		put(t, n, "k", "v")
		put(t, n, "other", "v")
		requests <- struct{}{}
		require.Equal(t, "3: PUT k=v", show(next(t, watch)), "events come before the answer")
		require.Equal(t, "4: ", show(next(t, watch)))

		requests <- struct{}{}
		require.Equal(t, "4: ", show(next(t, watch)), "each request has an answer")
		close(requests)
		time.Sleep(time.Hour)
		silent(t, watch)
		put(t, n, "k", "last")
		require.Equal(t, "5: PUT k=last", show(next(t, watch)))
	})
}

func TestProgressOfAFutureWatchWaits(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		requests := make(chan struct{}, 1)
		watch := n.WatchChan(t.Context(), "k", coterie.WithRevision(4), coterie.WithProgressRequests(requests))
		requests <- struct{}{}
		put(t, n, "k", "2")
		put(t, n, "other", "3")
		silent(t, watch)
		put(t, n, "other", "4")
		require.Equal(t, "4: ", show(next(t, watch)))
	})
}

func TestProgressSurvivesCompaction(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		requests := make(chan struct{}, 1)
		watch := n.WatchChan(t.Context(), "k", coterie.WithPrefix(), coterie.WithProgressRequests(requests))
		for range 100 {
			put(t, n, "other", "v")
		}
		require.NoError(t, errOf(n.Compact(t.Context(), n.Status().Revision)))
		requests <- struct{}{}
		require.Equal(t, "101: ", show(next(t, watch)), "it has missed nothing")
	})
}

// A watch that continues a read begins with the next revision. It answers although nobody writes.
func TestProgressOfAWatchFromTheNextRevision(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		rev := put(t, n, "k", "v").Revision
		requests := make(chan struct{}, 1)
		watch := n.WatchChan(t.Context(), "k", coterie.WithRevision(rev+1), coterie.WithProgressRequests(requests))
		requests <- struct{}{}
		synctest.Wait()
		require.Len(t, watch, 1)
		require.Equal(t, "2: ", show(next(t, watch)))
		put(t, n, "k", "v")
		require.Equal(t, "3: PUT k=v", show(next(t, watch)))
	})
}

func TestProgressOfAnEmptyStore(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		requests := make(chan struct{}, 1)
		watch := n.WatchChan(t.Context(), "k", coterie.WithProgressNotify(), coterie.WithProgressRequests(requests))
		requests <- struct{}{}
		synctest.Wait()
		require.Len(t, watch, 1)
		require.Equal(t, "1: ", show(next(t, watch)))
		time.Sleep(11 * time.Minute)
		require.Equal(t, "1: ", show(next(t, watch)))
	})
}

func TestEachProgressRequestHasAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		requests := make(chan struct{}, 3)
		watch := n.WatchChan(t.Context(), "k", coterie.WithRevision(4), coterie.WithProgressRequests(requests))
		for range 3 {
			requests <- struct{}{}
			silent(t, watch)
		}
		for range 3 {
			put(t, n, "other", "v")
		}
		for range 3 {
			synctest.Wait()
			require.Len(t, watch, 1)
			require.Equal(t, "4: ", show(next(t, watch)))
		}
		silent(t, watch)
	})
}

// The silence of a watch from a future revision begins before that revision is reached.
func TestProgressNotifyOfAFutureWatch(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		watch := n.WatchChan(t.Context(), "k", coterie.WithRevision(4), coterie.WithProgressNotify())
		time.Sleep(11 * time.Minute)
		for range 3 {
			silent(t, watch)
			put(t, n, "other", "v")
		}
		time.Sleep(11 * time.Minute)
		require.Len(t, watch, 1)
		require.Equal(t, "4: ", show(next(t, watch)))
	})
}

// No event up to the revision of an answer comes after the answer, and the answer covers everything that the node had
// applied at the time of the request. This holds on every node, during writes, compactions and changes of leader.
func TestProgressComesAfterEveryEvent(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for i, n := range c.Nodes() {
			work.Go(func() {
				for j := 0; ctx.Err() == nil; j++ {
					_, _ = n.Put(ctx, fmt.Sprint([]string{"k", "other"}[rand.IntN(2)], i), fmt.Sprint(j))
					time.Sleep(10 * time.Millisecond)
					if j%50 == 0 {
						_, _ = n.Compact(ctx, n.Status().Revision-20)
					}
				}
			})
			work.Go(func() {
				requests, asked := make(chan struct{}, 1), n.Status().Revision
				progress, answers := int64(0), 0
				for from := int64(1); ctx.Err() == nil; {
					select {
					case requests <- struct{}{}:
					default:
					}
					opts := []coterie.WatchOption{coterie.WithPrefix(), coterie.WithRevision(from), coterie.WithProgressRequests(requests)}
					for r, err := range n.Watch(ctx, "k", opts...) {
						if compacted := (*coterie.CompactedError)(nil); errors.As(err, &compacted) {
							from = compacted.Revision // the node was away, or the watch was slow
							break
						}
						if err != nil {
							require.ErrorIs(t, err, context.Canceled)
							break
						}
						if len(r.Events) > 0 {
							require.Greater(t, r.Revision, progress, "an event after the progress that covers it")
							continue
						}
						require.GreaterOrEqual(t, r.Revision, max(asked, progress))
						progress, answers = r.Revision, answers+1
						time.Sleep(15 * time.Millisecond)
						asked = n.Status().Revision
						requests <- struct{}{}
					}
				}
				require.Greater(t, answers, 100)
			})
		}
		for range 2 {
			time.Sleep(3 * time.Second)
			c.Pause(c.Index(c.Leader()))
			time.Sleep(10 * time.Second)
			c.Heal()
		}
		cancel()
		work.Wait()
		synctest.Wait()
	})
}
