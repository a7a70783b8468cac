// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// next returns the next response of a watch.
func next(t testing.TB, watch <-chan coterie.WatchResult) coterie.WatchResponse {
	t.Helper()
	r, ok := <-watch
	require.True(t, ok)
	require.NoError(t, r.Err)
	return r.WatchResponse
}

// show formats events in a short form of etcdctl's output.
func show(r coterie.WatchResponse) string {
	var out []string
	for _, e := range r.Events {
		out = append(out, fmt.Sprintf("%v %s=%s", e.Type, e.KV.Key, e.KV.Value))
	}
	return fmt.Sprintf("%d: %s", r.Revision, strings.Join(out, ", "))
}

// bubble runs a test with a node alone in virtual time.
func bubble(t *testing.T, fn func(t *testing.T, n *coterie.Node), change ...func(*coterie.Config)) {
	synctest.Test(t, func(t *testing.T) { fn(t, open(t, change...)) })
}

// silent requires that a watch yields nothing.
func silent(t testing.TB, watch <-chan coterie.WatchResult) {
	t.Helper()
	synctest.Wait()
	select {
	case r := <-watch:
		require.Fail(t, "unexpected", "%v %v", show(r.WatchResponse), r.Err)
	default:
	}
}

func TestT14_EventsOfDeletions(t *testing.T) {
	n := open(t)
	l, err := n.Grant(t.Context(), time.Minute)
	require.NoError(t, err)
	watch := n.WatchChan(t.Context(), "k", coterie.WithPrevKV())
	put(t, n, "k", "1", coterie.WithLease(l.ID))
	put(t, n, "k", "2")
	del(t, n, "k")
	e := next(t, watch).Events[0]
	require.True(t, e.IsCreate())
	e = next(t, watch).Events[0]
	require.True(t, e.IsModify())
	e = next(t, watch).Events[0]
	require.Equal(t, coterie.EventDelete, e.Type)
	require.Equal(t, coterie.KeyValue{Key: "k", ModRevision: 4}, e.KV)
}

func TestT41_PrevKVIsOfTheRevisionBefore(t *testing.T) {
	n := open(t)
	l, err := n.Grant(t.Context(), time.Minute)
	require.NoError(t, err)
	put(t, n, "k", "1", coterie.WithLease(l.ID))
	put(t, n, "k", "2")
	del(t, n, "k")
	put(t, n, "k", "3")
	watch := n.WatchChan(t.Context(), "k", coterie.WithRevision(2), coterie.WithPrevKV())
	require.Nil(t, next(t, watch).Events[0].PrevKV, "no previous value for a create")
	require.Equal(t, &coterie.KeyValue{Key: "k", Value: "1", CreateRevision: 2, ModRevision: 2, Version: 1, Lease: l.ID},
		next(t, watch).Events[0].PrevKV)
	require.Equal(t, "2", next(t, watch).Events[0].PrevKV.Value, "a deletion has a previous value")
	require.Nil(t, next(t, watch).Events[0].PrevKV, "no previous value for a key that was deleted and created again")

	require.NoError(t, errOf(n.Compact(t.Context(), 3)))
	watch = n.WatchChan(t.Context(), "k", coterie.WithRevision(3), coterie.WithPrevKV())
	require.Nil(t, next(t, watch).Events[0].PrevKV, "no previous value if the previous revision is compacted")
	require.Equal(t, "2", next(t, watch).Events[0].PrevKV.Value)
}

// Unlike in etcd, a watch that catches up yields each revision separately. As in etcd, a watch from the
// revision after the last one continues without a gap or a repetition.
func TestT40_WatchResumesAfterTheLastRevision(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		for i := range 3000 {
			put(t, n, "k", fmt.Sprint(i))
		}
		seen := int64(1)
		for seen < 3001 {
			for r, err := range n.Watch(t.Context(), "k", coterie.WithRevision(seen+1)) {
				require.NoError(t, err)
				require.Equal(t, seen+1, r.Revision)
				require.Len(t, r.Events, 1)
				if seen = r.Revision; seen%700 == 0 || seen == 3001 {
					break
				}
			}
		}
		watch := n.WatchChan(t.Context(), "k", coterie.WithProgressNotify())
		put(t, n, "other", "v")
		progress := next(t, watch)
		require.Empty(t, progress.Events)
		put(t, n, "k", "after")
		resumed := n.WatchChan(t.Context(), "k", coterie.WithRevision(progress.Revision+1))
		require.Equal(t, "3003: PUT k=after", show(next(t, resumed)))
	})
}

func TestT33_AWatchIsPinnedWhenItIsMade(t *testing.T) {
	n := open(t)
	put(t, n, "k", "before")
	seq := n.Watch(t.Context(), "k", coterie.WithCreatedNotify())
	put(t, n, "k", "after the call, before the loop")
	put(t, n, "k", "last")
	var seen []string
	for r, err := range seq {
		require.NoError(t, err)
		seen = append(seen, show(r))
		require.Equal(t, len(seen) == 1, r.Created, "the created notice comes first")
		if len(seen) == 3 {
			break
		}
	}
	require.Equal(t, []string{"2: ", "3: PUT k=after the call, before the loop", "4: PUT k=last"}, seen)
}

func TestWatchFromThePast(t *testing.T) {
	n := open(t)
	for i := range 5 {
		put(t, n, fmt.Sprint("k", i%2), fmt.Sprint(i))
	}
	watch := n.WatchChan(t.Context(), "k", coterie.WithPrefix(), coterie.WithRevision(3))
	for _, want := range []string{"3: PUT k1=1", "4: PUT k0=2", "5: PUT k1=3", "6: PUT k0=4"} {
		require.Equal(t, want, show(next(t, watch)))
	}
	one := n.WatchChan(t.Context(), "k1", coterie.WithRevision(1))
	require.Equal(t, "3: PUT k1=1", show(next(t, one)))
	require.Equal(t, "5: PUT k1=3", show(next(t, one)))
	put(t, n, "k1", "new")
	require.Equal(t, "7: PUT k1=new", show(next(t, one)))
}

func TestT10_T35_WatchAtTheCompaction(t *testing.T) {
	n := open(t)
	put(t, n, "k", "1")
	del(t, n, "k")      // revision 3
	put(t, n, "x", "1") // revision 4
	require.NoError(t, errOf(n.Compact(t.Context(), 3)))
	watch := n.WatchChan(t.Context(), "k", coterie.WithRevision(3))
	require.Equal(t, "3: DELETE k=", show(next(t, watch)), "a deletion at the compact revision is seen")
	for _, opt := range []coterie.WatchOption{coterie.WithRevision(2), coterie.WithRevision(1)} {
		for _, err := range n.Watch(t.Context(), "", opt, coterie.WithPrefix()) {
			var compacted *coterie.CompactedError
			require.ErrorAs(t, err, &compacted)
			require.EqualValues(t, 3, compacted.Revision)
		}
	}
}

func TestT36_AFutureWatchIsSilentUntilThen(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		watch := n.WatchChan(t.Context(), "k", coterie.WithRevision(5), coterie.WithProgressNotify())
		put(t, n, "k", "2")
		put(t, n, "k", "3")
		put(t, n, "k", "4")
		time.Sleep(time.Hour)
		silent(t, watch)
		put(t, n, "k", "5")
		require.Equal(t, "5: PUT k=5", show(next(t, watch)))
		time.Sleep(11 * time.Minute)
		require.Equal(t, "5: ", show(next(t, watch)), "progress, then")
	})
}

func TestT37_Progress(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		watch := n.WatchChan(t.Context(), "k", coterie.WithProgressNotify())
		put(t, n, "other", "v")
		time.Sleep(9 * time.Minute)
		silent(t, watch)
		time.Sleep(2 * time.Minute)
		require.Equal(t, "2: ", show(next(t, watch)))
		put(t, n, "k", "v")
		require.Equal(t, "3: PUT k=v", show(next(t, watch)))
		time.Sleep(9 * time.Minute)
		silent(t, watch)
	})
}

func TestT38_SlowWatchLosesNothingUncompacted(t *testing.T) {
	n := open(t)
	for _, key := range []struct {
		name string
		opts []coterie.WatchOption
	}{{"k", nil}, {"", []coterie.WatchOption{coterie.WithPrefix()}}} {
		base := n.Status().Revision
		watch := n.WatchChan(t.Context(), key.name, key.opts...)
		for i := range 2000 {
			put(t, n, "k", fmt.Sprint(i))
		}
		for i := range 1000 {
			require.EqualValues(t, base+int64(i)+1, next(t, watch).Revision)
		}
		require.NoError(t, errOf(n.Compact(t.Context(), n.Status().Revision)))
		var err error
		for r := range watch {
			if err = r.Err; err == nil {
				require.Less(t, r.Revision, n.Status().Revision)
			}
		}
		var compacted *coterie.CompactedError
		require.ErrorAs(t, err, &compacted)
		require.Equal(t, n.Status().Revision, compacted.Revision)
	}
}

func TestCompactionSparesACurrentWatch(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		watch := n.WatchChan(t.Context(), "k")
		put(t, n, "k", "1")
		require.Equal(t, "2: PUT k=1", show(next(t, watch)))
		for range 100 {
			put(t, n, "other", "v")
		}
		require.NoError(t, errOf(n.Compact(t.Context(), n.Status().Revision)))
		silent(t, watch)
		put(t, n, "k", "2")
		require.Equal(t, "103: PUT k=2", show(next(t, watch)))
	})
}

func TestT39_ARevisionIsWhole(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxTxnOps = 1000 })
	watch := n.WatchChan(t.Context(), "k", coterie.WithPrefix())
	var ops []coterie.Op
	for i := range 1000 {
		ops = append(ops, coterie.OpPut(fmt.Sprint("k", i), ""))
	}
	commit(t, n.Txn(t.Context()).Then(ops...))
	require.Len(t, next(t, watch).Events, 1000)
	del(t, n, "k", coterie.WithPrefix())
	require.Len(t, next(t, watch).Events, 1000)
}

func TestT43_AnEmptyRangeCannotBeWatched(t *testing.T) {
	n := open(t)
	for _, end := range []string{"k", "a"} {
		for _, err := range n.Watch(t.Context(), "k", coterie.WithRange(end)) {
			require.ErrorIs(t, err, coterie.ErrInvalidOption)
		}
	}
	for _, err := range n.Watch(t.Context(), "") {
		require.ErrorIs(t, err, coterie.ErrEmptyKey)
	}
}

func TestT44_Filters(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		puts := n.WatchChan(t.Context(), "k", coterie.WithFilterDelete())
		deletes := n.WatchChan(t.Context(), "k", coterie.WithFilterPut())
		put(t, n, "k", "1")
		del(t, n, "k")
		put(t, n, "k", "2")
		require.Equal(t, "2: PUT k=1", show(next(t, puts)))
		require.Equal(t, "4: PUT k=2", show(next(t, puts)))
		require.Equal(t, "3: DELETE k=", show(next(t, deletes)))
		silent(t, puts)
		silent(t, deletes)
	})
}

func TestWatchEndsWithItsReason(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	mine, yours := n.WatchChan(ctx, "k"), n.WatchChan(t.Context(), "k")
	cancel()
	require.ErrorIs(t, (<-mine).Err, context.Canceled)
	_, more := <-mine
	require.False(t, more)
	require.NoError(t, n.Close())
	require.ErrorIs(t, (<-yours).Err, coterie.ErrClosed)
	for _, err := range n.Watch(t.Context(), "k") {
		require.ErrorIs(t, err, coterie.ErrClosed)
	}
}

func TestUnreadWatchLeavesNoGoroutine(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx, cancel := context.WithCancel(t.Context())
		n.WatchChan(ctx, "k")
		for range 10 {
			put(t, n, "k", "v")
		}
		cancel() // the bubble fails if the goroutine stays
	})
}

func TestRequireLeader(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		needs := n.WatchChan(t.Context(), "k", coterie.WithRequireLeader())
		doesNot := n.WatchChan(t.Context(), "k")
		c.Pause(c.Index(n))
		begin := time.Now()
		require.ErrorIs(t, (<-needs).Err, coterie.ErrNoLeader)
		require.Greater(t, time.Since(begin), 3*time.Second, "three election timeouts")
		require.Less(t, time.Since(begin), 6*time.Second)
		for _, err := range n.Watch(t.Context(), "k", coterie.WithRequireLeader()) {
			require.ErrorIs(t, err, coterie.ErrNoLeader)
		}
		c.Heal()
		put(t, n, "k", "v")
		require.Equal(t, "2: PUT k=v", show(next(t, doesNot)))
	})
}
