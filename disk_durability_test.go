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
	"github.com/coterie-kv/coterie/internal/vfs"
)

// local returns the value of a key in the node's own view.
func local(t *testing.T, n *coterie.Node, key string) string {
	t.Helper()
	r := get(t, n, key, coterie.WithSerializable())
	if len(r.KVs) == 0 {
		return ""
	}
	return r.KVs[0].Value
}

// A leader commits an entry that one follower has stored. If clients could read the entry before the leader's own
// disk has it, a crash of two nodes could undo a value that was read.
func TestOnlyDurableEntriesAreVisible(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, follower := c.Leader(), c.Follower()
		c.WaitRevision(put(t, leader, "k", "old").Revision)
		c.StallDisk(c.Index(leader), true)
		answered := make(chan error, 1)
		go func() { _, err := follower.Put(t.Context(), "k", "new"); answered <- err }()
		time.Sleep(3 * time.Second)
		for _, n := range c.Nodes() {
			require.Equal(t, "old", local(t, n, "k"))
		}
		require.Empty(t, answered)
		c.StallDisk(c.Index(leader), false)
		require.NoError(t, <-answered)
		require.Equal(t, leader, c.Leader())
	})
}

func TestFollowersAcknowledgeOnlyDurable(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader := c.Leader()
		c.WaitRevision(put(t, leader, "k", "old").Revision)
		term := leader.Status().Term
		for i, n := range c.Nodes() {
			c.StallDisk(i, n != leader)
		}
		answered := make(chan error, 1)
		go func() { _, err := leader.Put(t.Context(), "k", "new"); answered <- err }()
		time.Sleep(time.Minute)
		require.Empty(t, answered)
		require.Equal(t, "old", local(t, leader, "k"))
		require.Equal(t, term, leader.Status().Term, "heartbeats do not wait for disks")
		c.Heal()
		require.NoError(t, <-answered)
		sameState(t, c)
	})
}

// This is the acceptance test for hashicorp/raft#695. Heartbeats pass through raft's main loop. That costs no
// leadership, because the loop never waits for the disk.
func TestSlowFollowerDisksChangeNoTerm(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader := c.Leader()
		term := leader.Status().Term
		for i, n := range c.Nodes() {
			if n != leader {
				c.SlowDisk(i, 1500*time.Millisecond)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, err := c.Node(i%3).Put(ctx, fmt.Sprint(i), "v")
					if err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, term, leader.Status().Term)
		require.Greater(t, leader.Status().Revision, int64(8))
	})
}

func TestLeaderWithHungDiskHandsOver(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, follower := c.Leader(), c.Follower()
		put(t, leader, "k", "old")
		old := c.Index(leader)
		c.StallDisk(old, true)
		begin := time.Now()
		put(t, follower, "k", "new")
		require.Less(t, time.Since(begin), 10*time.Second)
		require.NotEqual(t, leader, c.Leader())
		time.Sleep(time.Minute)
		c.StallDisk(old, false)
		c.WaitRevision(put(t, follower, "k", "newer").Revision)
		require.Equal(t, "newer", local(t, leader, "k"), "the old leader catches up without help")
		sameState(t, c)
	})
}

func TestNodeRecoversFromFullDisk(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, other := c.Leader(), c.Follower()
		put(t, leader, "k", "v")
		big := string(make([]byte, 1<<20))
		c.FillDisk(c.Index(leader), true)
		for range 5 { // more than the space that the log has reserved
			put(t, other, "k", big)
		}
		require.NotEqual(t, leader, c.Leader(), "another node leads, and writes continue")
		time.Sleep(2 * time.Second)
		_, err := leader.Put(t.Context(), "k", "v")
		require.ErrorIs(t, err, coterie.ErrNoSpace, "the node itself accepts no writes, because it would not apply them")
		for i := range 3 {
			c.FillDisk(i, true)
		}
		for err = nil; !errors.Is(err, coterie.ErrNoSpace); {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err = other.Put(ctx, "k", big)
			cancel()
		}
		require.NotErrorIs(t, err, coterie.ErrMaybeApplied)
		require.Len(t, local(t, other, "k"), 1<<20, "reads continue")
		for i := range 3 {
			c.FillDisk(i, false)
		}
		begin := time.Now()
		for err != nil {
			_, err = other.Put(t.Context(), "k", "room")
			time.Sleep(100 * time.Millisecond)
		}
		require.Less(t, time.Since(begin), 5*time.Second)
		sameState(t, c)
	})
}

func TestFailedSyncStopsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewForgetful()
		n, err := coterie.Open(vfs.With(t.Context(), disk.Mount()), coterie.Config{InMemory: true})
		require.NoError(t, err)
		put(t, n, "k", "v")
		// A new node still writes its identity, as soon as it is on record. The sync of that write must not be the
		// one that fails: it would stop the node before the Put below is proposed.
		time.Sleep(time.Minute)
		broken := errors.New("broken")
		disk.FailSync(broken)
		_, err = n.Put(t.Context(), "k", "w")
		require.ErrorIs(t, err, coterie.ErrClosed)
		require.ErrorIs(t, err, coterie.ErrMaybeApplied)
		<-n.Done()
		require.ErrorIs(t, n.Err(), broken)
		n.Close()
		disk.FailSync(nil)
		disk.Crash(nil)
		n, err = coterie.Open(vfs.With(t.Context(), disk.Mount()), coterie.Config{InMemory: true})
		require.NoError(t, err)
		require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
		require.NoError(t, n.Close())
	})
}

func TestLoneRestartServesAppliedState(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Index(c.Follower())
		for j := range 100 {
			put(t, c.Node(i), "k", fmt.Sprint(j))
		}
		time.Sleep(time.Second) // an idle node writes down the index that it applied last
		for j := range 3 {
			c.Crash(j)
		}
		c.Restart(i)
		require.Equal(t, "99", local(t, c.Node(i), "k"))
		require.EqualValues(t, 101, c.Node(i).Status().Revision)
	})
}

// All nodes lose power together, repeatedly and at random times.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 4
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	few := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 20 })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		acknowledged := map[string]string{}
		for round := range rounds {
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			var writers sync.WaitGroup
			for w := range 6 {
				n := c.Node(w % 3)
				writers.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						key, val := fmt.Sprint("k", w), fmt.Sprintf("%d.%d", round, i)
						if _, err := n.Put(ctx, key, val); err != nil {
							return
						}
						mu.Lock()
						acknowledged[key] = val
						mu.Unlock()
						time.Sleep(time.Millisecond)
					}
				})
			}
			for i := range 3 {
				c.SlowDisk(i, time.Duration(random.IntN(20))*time.Millisecond)
			}
			time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
			for i := range 3 {
				c.Crash(i)
			}
			cancel()
			writers.Wait()
			for i := range 3 {
				c.SlowDisk(i, 0)
				c.Restart(i)
			}
			for key, val := range acknowledged {
				now := get(t, c.Leader(), key).KVs[0].Value
				require.True(t, now == val || later(now, val), "%s is %s, %s was acknowledged", key, now, val)
				acknowledged[key] = now
			}
			sameState(t, c)
		}
	}, few, coterietest.WithSeed(seed))
}

// later reports whether a writer wrote a value after another.
func later(a, b string) bool {
	var ra, ia, rb, ib int
	fmt.Sscanf(a, "%d.%d", &ra, &ia)
	fmt.Sscanf(b, "%d.%d", &rb, &ib)
	return ra > rb || ra == rb && ia > ib
}
