// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// sameState waits until all nodes have applied the newest revision, and requires that they agree on
// it.
func sameState(t *testing.T, c *coterietest.Cluster) {
	t.Helper()
	rev := get(t, c.Leader(), "any").Revision
	c.WaitRevision(rev)
	var first *coterie.HashResponse
	for i, n := range c.Nodes() {
		h, err := n.Hash(t.Context(), rev)
		require.NoError(t, err)
		if i == 0 {
			first = h
		}
		require.Equal(t, first.Hash, h.Hash, "hash of %s at revision %d", n.Status().Name, rev)
	}
}

func forEachSize(t *testing.T, fn func(t *testing.T, c *coterietest.Cluster)) {
	for _, n := range []int{1, 3, 5} {
		t.Run(strconv.Itoa(n), func(t *testing.T) { coterietest.Run(t, n, fn) })
	}
}

func TestEveryNodeWritesAndReads(t *testing.T) {
	forEachSize(t, func(t *testing.T, c *coterietest.Cluster) {
		for i, n := range c.Nodes() {
			key := fmt.Sprint("k", i)
			r := put(t, n, key, "v")
			require.Equal(t, n.ID(), r.MemberID)
			for _, other := range c.Nodes() {
				require.Equal(t, "v", get(t, other, key).KVs[0].Value, "a linearizable read, anywhere")
				local := get(t, other, key, coterie.WithWaitRevision(r.Revision))
				require.Equal(t, "v", local.KVs[0].Value)
			}
			require.Equal(t, "v", get(t, n, key, coterie.WithSerializable()).KVs[0].Value, "its own write, at once")
		}
		sameState(t, c)
	})
}

func TestFirstPutNeedsNoTimeout(t *testing.T) {
	for _, size := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			c, err := coterie.OpenCluster(t.Context(), size, coterie.Config{InMemory: true})
			require.NoError(t, err)
			defer c.Close()
			put(t, c.Node(0), "k", "v")
			require.Less(t, time.Since(begin), 200*time.Millisecond, "with the election timeout of a second")
		})
	}
}

func TestFollowersHearOfACommitAtOnce(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v") // every connection is open
		for range 10 {
			time.Sleep(time.Second)
			begin := time.Now()
			c.WaitRevision(put(t, c.Leader(), "k", "v").Revision)
			require.Less(t, time.Since(begin), 5*time.Millisecond, "without waiting for the next heartbeat, in virtual time")
		}
	})
}

func TestFailover(t *testing.T) {
	for _, size := range []int{3, 5} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			coterietest.Run(t, size, func(t *testing.T, c *coterietest.Cluster) {
				put(t, c.Leader(), "k", "before")
				old := c.Index(c.Leader())
				c.Crash(old)
				leader := c.Leader()
				require.Equal(t, "before", get(t, leader, "k").KVs[0].Value)
				put(t, leader, "k", "after")
				c.Restart(old)
				require.Equal(t, "after", get(t, c.Node(old), "k").KVs[0].Value)
				sameState(t, c)
			})
		})
	}
}

// Raft alone would back off from a node that was away, and wait up to ten seconds after the node is back.
func TestRestartedFollowerIsHeardAtOnce(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for _, away := range []time.Duration{time.Second, 12 * time.Second, 10 * time.Minute} {
			i := c.Index(c.Follower())
			c.Crash(i)
			put(t, c.Leader(), "k", "v")
			time.Sleep(away)
			begin := time.Now()
			c.Restart(i)
			require.NoError(t, c.Node(i).Ready(t.Context()))
			c.WaitRevision(get(t, c.Leader(), "k").Revision)
			require.Less(t, time.Since(begin), time.Second, "after %v", away)
		}
	})
}

func TestCloseOfTheLeaderHandsOver(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		begin := time.Now()
		c.Stop(c.Index(c.Leader()))
		put(t, c.Leader(), "k", "w")
		require.Less(t, time.Since(begin), 100*time.Millisecond, "no election timeout has passed")
	})
}

func TestPartitionAndHeal(t *testing.T) {
	coterietest.Run(t, 5, func(t *testing.T, c *coterietest.Cluster) {
		old := c.Leader()
		put(t, old, "k", "1")
		minority := []int{c.Index(old), (c.Index(old) + 1) % 5}
		c.Partition(minority)
		majority := []int{}
		for i := range 5 {
			if i != minority[0] && i != minority[1] {
				majority = append(majority, i)
			}
		}
		c.Heal()
		c.Partition(minority, majority)

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := old.Put(ctx, "k", "lost?")
		require.ErrorIs(t, err, coterie.ErrMaybeApplied)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = old.Get(ctx, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded, "a leader without a majority does not serve linearizable reads")
		require.Equal(t, "1", get(t, old, "k", coterie.WithSerializable()).KVs[0].Value, "it does serve serializable reads")

		_, err = c.Node(majority[0]).Put(t.Context(), "k", "2")
		require.NoError(t, err)
		c.Heal()
		require.Contains(t, []string{"2", "lost?"}, get(t, old, "k").KVs[0].Value)
		sameState(t, c)
	})
}

func TestNoLeaderWithoutQuorum(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		c.WaitRevision(put(t, c.Leader(), "k", "v").Revision)
		alone := c.Follower()
		i := c.Index(alone)
		c.Crash((i + 1) % 3)
		c.Crash((i + 2) % 3)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := alone.Get(ctx, "k")
		require.ErrorIs(t, err, coterie.ErrNoLeader)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(begin), time.Second+10*time.Millisecond)
		_, err = alone.Put(ctx, "k", "w")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, coterie.ErrMaybeApplied, "it never left the node")
		require.Equal(t, "v", get(t, alone, "k", coterie.WithSerializable()).KVs[0].Value)
		local, other := coterie.OpGet("k", coterie.WithSerializable()), coterie.OpGet("k")
		commit := func(then, els []coterie.Op) (*coterie.TxnResponse, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return alone.Txn(ctx).Then(then...).Else(els...).Commit()
		}
		r, err := commit([]coterie.Op{local}, []coterie.Op{local})
		require.NoError(t, err)
		require.Equal(t, "v", r.Responses[0].Get.KVs[0].Value)
		for _, branches := range [][2][]coterie.Op{{}, {{other}}, {{local, other}}, {{local}, {other}}} {
			_, err := commit(branches[0], branches[1])
			require.ErrorIs(t, err, context.DeadlineExceeded, "a transaction is serializable only if each of its operations is")
		}
		s := alone.Status()
		require.NotEqual(t, coterie.RoleLeader, s.Role)
		require.Positive(t, s.LastContact)
		begin = time.Now()
		require.NoError(t, alone.Close())
		require.Less(t, time.Since(begin), 5*time.Second)
		c.Stop(i)
	})
}

func TestWatchContinuesAcrossLeaders(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		follower := c.Follower()
		watch := follower.WatchChan(t.Context(), "k", coterie.WithPrefix())
		want := 0
		for round := range 3 {
			leader := c.Leader()
			if leader == follower {
				break
			}
			for range 5 {
				want++
				put(t, leader, "k"+strconv.Itoa(want), "v")
			}
			crashed := c.Index(leader)
			c.Crash(crashed)
			c.Leader()
			c.Restart(crashed)
			t.Log("round", round)
		}
		for i := 1; i <= want; i++ {
			r := <-watch
			require.NoError(t, r.Err)
			require.Len(t, r.Events, 1)
			require.Equal(t, "k"+strconv.Itoa(i), r.Events[0].KV.Key, "each event once, in order")
		}
	})
}

func TestAllNodesRestartFromDisk(t *testing.T) {
	dirs := make([]string, 3)
	for i := range dirs {
		dirs[i] = t.TempDir()
	}
	onDisk := coterietest.WithConfig(func(i int, cfg *coterie.Config) { cfg.Dir, cfg.SnapshotEntries = dirs[i], 50 })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for i := range 200 {
			put(t, c.Node(i%3), "k"+strconv.Itoa(i%40), strconv.Itoa(i))
		}
		l, err := c.Node(0).Grant(t.Context(), time.Minute)
		require.NoError(t, err)
		put(t, c.Node(1), "leased", "v", coterie.WithLease(l.ID))
		require.NoError(t, errOf(c.Node(0).Compact(t.Context(), 100)))
		before := get(t, c.Leader(), "", coterie.WithPrefix())
		for i := range 3 {
			c.Stop(i)
		}
		for i := range 3 {
			c.Restart(i)
		}
		after := get(t, c.Leader(), "", coterie.WithPrefix())
		require.Equal(t, before.KVs, after.KVs)
		require.Equal(t, before.Revision, after.Revision)
		_, err = c.Node(0).Get(t.Context(), "k0", coterie.WithRevision(99))
		require.ErrorIs(t, err, coterie.ErrCompacted)
		ttl, err := c.Node(2).TimeToLive(t.Context(), l.ID)
		require.NoError(t, err)
		require.Equal(t, []string{"leased"}, ttl.Keys)
		sameState(t, c)
	}, onDisk)
}

func TestT42_WatchSeesEventsOnceAcrossASnapshot(t *testing.T) {
	few := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 20 })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		behind := c.Index(c.Follower())
		seen := 0
		watch := c.Node(behind).WatchChan(t.Context(), "k", coterie.WithPrefix())
		put(t, c.Leader(), "k", "0")
		c.Pause(behind)
		big := string(make([]byte, 1<<20))
		for i := range 100 { // more entries than a snapshot leaves in the log
			put(t, c.Leader(), "k", big+strconv.Itoa(i))
		}
		c.Resume(behind)
		c.WaitRevision(get(t, c.Leader(), "k").Revision)
		for ; seen < 101; seen++ {
			r := <-watch
			require.NoError(t, r.Err)
			require.EqualValues(t, seen+2, r.Revision, "no event is lost or repeated")
		}
		require.EqualValues(t, 102, put(t, c.Node(behind), "k", "last").Revision-1)
		sameState(t, c)
	}, few)
}

// A write is applied once, although it is sent again after each loss of the leader. In the end every key exists, and no
// write has found its own key.
func TestWritesAreAppliedOnce(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const writers, rounds = 10, 30
		seed := rand.Uint64()
		t.Log("seed", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range rounds {
					n := c.Node((w + i) % 3)
					// If the transaction is applied twice, the key exists the second time.
					key := fmt.Sprintf("w%d-%d", w, i)
					r, err := n.Txn(t.Context()).If(coterie.Compare(coterie.Version(key), "=", 0)).
						Then(coterie.OpPut(key, "")).Else(coterie.OpPut("twice-"+key, "")).Commit()
					if err != nil {
						t.Errorf("%s: %v", key, err)
						return
					}
					if !r.Succeeded {
						t.Errorf("%s was applied twice", key)
					}
					time.Sleep(200 * time.Millisecond)
				}
			})
		}
		stop := make(chan struct{})
		var faults sync.WaitGroup
		faults.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(500+random.IntN(1500)) * time.Millisecond):
				}
				i := random.IntN(3)
				c.Pause(i)
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
				c.Resume(i)
			}
		})
		wg.Wait()
		close(stop)
		faults.Wait()
		require.EqualValues(t, writers*rounds, get(t, c.Leader(), "w", coterie.WithPrefix(), coterie.WithCountOnly()).Count)
		require.Empty(t, get(t, c.Leader(), "twice-", coterie.WithPrefix()).KVs)
		sameState(t, c)
	})
}

func TestContextEndsACallAtOnce(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		c.Pause(c.Index(n))
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("enough")
		for name, call := range map[string]func() error{
			"put":       func() error { _, err := n.Put(ctx, "k", "v"); return err },
			"get":       func() error { _, err := n.Get(ctx, "k"); return err },
			"min":       func() error { _, err := n.Get(ctx, "k", coterie.WithWaitRevision(99)); return err },
			"txn":       func() error { _, err := n.Txn(ctx).Then(coterie.OpPut("k", "v")).Commit(); return err },
			"grant":     func() error { _, err := n.Grant(ctx, time.Minute); return err },
			"keepalive": func() error { return n.KeepAlive(ctx, 1) },
			"ttl":       func() error { _, err := n.TimeToLive(ctx, 1); return err },
			"leases":    func() error { _, err := n.Leases(ctx); return err },
			"compact":   func() error { return errOf(n.Compact(ctx, 1)) },
			"ready":     func() error { return n.Ready(ctx) },
			"watch": func() error {
				for _, err := range n.Watch(ctx, "k") {
					return err
				}
				return nil
			},
		} {
			go func() {
				err := call()
				if !errors.Is(err, reason) {
					t.Errorf("%s: %v", name, err)
				}
			}()
		}
		time.Sleep(30 * time.Second)
		begin := time.Now()
		cancel(reason)
		time.Sleep(time.Nanosecond)
		require.LessOrEqual(t, time.Since(begin), time.Nanosecond)
	})
}
