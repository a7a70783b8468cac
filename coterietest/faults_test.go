// SPDX-License-Identifier: Apache-2.0

package coterietest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A follower that cannot receive can still send to its leader, and the reverse.
func TestBlockIsOneWay(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		from, to := c.Index(leader), c.Index(n)
		put(t, n, "k", "v")
		synctest.Wait() // its connection to the leader is idle; a new one could not be made
		c.Block(from, to)
		require.ErrorIs(t, within(t, 200*time.Millisecond, putOn(n, "deaf", "v")), coterie.ErrMaybeApplied)
		require.Equal(t, "v", value(t, leader, "deaf"), "the write arrived, but the answer did not come back")
		require.Empty(t, value(t, n, "deaf", coterie.WithSerializable()))
		c.Heal()
		require.Equal(t, "v", value(t, n, "deaf"))
		time.Sleep(10 * time.Second) // until nothing waits for an answer any more

		c.Block(to, from)
		before := n.Status().Durable
		put(t, leader, "heard", "v")
		synctest.Wait()
		require.Greater(t, n.Status().Durable, before, "the other way is open")
		require.ErrorIs(t, within(t, 200*time.Millisecond, putOn(n, "mute", "v")), coterie.ErrMaybeApplied)
		require.Empty(t, value(t, leader, "mute"), "the write did not arrive")
		c.Heal()
		time.Sleep(10 * time.Second)
		require.Equal(t, "v", value(t, leader, "mute"), "the write was held back, not lost")
	})
}

func TestDelayDelays(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		leader := c.Index(c.Leader())
		took := func() time.Duration {
			begin := time.Now()
			put(t, n, "k", "v")
			return time.Since(begin)
		}
		took() // every connection is open
		require.Less(t, took(), 5*time.Millisecond)
		c.Delay(c.Index(n), leader, 100*time.Millisecond)
		there := took()
		require.GreaterOrEqual(t, there, 100*time.Millisecond)
		require.Less(t, there, time.Second, "a few round trips at most")
		c.Delay(leader, c.Index(n), 50*time.Millisecond)
		require.GreaterOrEqual(t, took(), 150*time.Millisecond, "both directions")
		c.Heal()
		time.Sleep(time.Second)
		require.Less(t, took(), 5*time.Millisecond)
	})
}

// If every write breaks its connection, nothing arrives. If some do, everything arrives.
func TestBreakConnections(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		i, leader := c.Index(n), c.Index(c.Leader())
		put(t, n, "k", "v")
		c.BreakConnections(i, leader, 1)
		require.Error(t, within(t, 500*time.Millisecond, putOn(n, "dropped", "v")))
		require.Empty(t, value(t, c.Node(leader), "dropped"))
		require.NoError(t, within(t, 10*time.Second, putOn(c.Node(leader), "others", "v")), "the other nodes continue")
		c.Heal()
		require.NoError(t, within(t, 10*time.Second, putOn(n, "healed", "v")))

		for from := range 3 {
			for to := range 3 {
				c.BreakConnections(from, to, 0.05)
			}
		}
		for j := range 100 {
			key := fmt.Sprint("k", j)
			require.NoError(t, within(t, time.Minute, putOn(c.Node(j%3), key, "v")))
			time.Sleep(50 * time.Millisecond)
		}
		c.Heal()
		for j := range 100 {
			require.Equal(t, "v", value(t, n, fmt.Sprint("k", j)))
		}
	})
}

func TestPartitionServesTheMajority(t *testing.T) {
	coterietest.Run(t, 5, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "before")
		old := c.Index(c.Leader())
		few := []int{old, (old + 1) % 5}
		many := []int{(old + 2) % 5, (old + 3) % 5, (old + 4) % 5}
		c.Partition(few, many)
		time.Sleep(10 * time.Second)
		for _, i := range many {
			require.NoError(t, within(t, time.Second, putOn(c.Node(i), fmt.Sprint("k", i), "v")))
		}
		for _, i := range few {
			err := within(t, time.Second, putOn(c.Node(i), "lost", "v"))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, coterie.ErrNoLeader, "the old leader knows by now that it has lost leadership")
			require.Equal(t, "before", value(t, c.Node(i), "k", coterie.WithSerializable()))
		}
		require.Contains(t, many, c.Index(c.Leader()))
		c.Heal()
		for i := range 5 {
			for _, j := range many {
				require.Equal(t, "v", value(t, c.Node(i), fmt.Sprint("k", j)))
			}
			require.Empty(t, value(t, c.Node(i), "lost"))
		}

		c.Partition(many) // nodes in no group are alone
		require.NoError(t, within(t, time.Minute, putOn(c.Node(many[0]), "k", "after")))
		require.Error(t, within(t, 10*time.Second, putOn(c.Node(few[1]), "k", "lost")))
	})
}

func TestPauseAndResume(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader := c.Leader()
		i := c.Index(leader)
		put(t, leader, "k", "1")
		c.Pause(i)
		time.Sleep(10 * time.Second)
		next := c.Leader()
		require.NotSame(t, leader, next)
		put(t, next, "k", "2")
		require.Equal(t, "1", value(t, leader, "k", coterie.WithSerializable()))
		require.True(t, c.Up(i))

		third := 3 - i - c.Index(next)
		c.Pause(third)
		require.Error(t, within(t, 5*time.Second, putOn(next, "k", "alone")))
		c.Resume(i)
		require.NoError(t, within(t, time.Minute, putOn(leader, "k", "3")))
		c.Pause(c.Index(next))
		require.Error(t, within(t, time.Minute, putOn(leader, "k", "alone")), "the third node is still paused")
		c.Resume(third)
		require.NoError(t, within(t, time.Minute, putOn(leader, "k", "3")))
		c.Heal()
		c.Pause(i)
		c.Pause(third)
		c.Resume(third)
		require.NoError(t, within(t, time.Minute, putOn(next, "k", "3")), "Heal ended the other pauses")
		c.Resume(i)
		require.Equal(t, "3", value(t, c.Node(third), "k"))
	})
}

// A crash hands nothing over and leaves the disk, in memory or in a directory.
func TestCrashAndRestartKeepData(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	for name, opt := range map[string]coterietest.Option{
		"in memory": coterietest.WithConfig(func(int, *coterie.Config) {}),
		"on disk":   coterietest.WithConfig(func(i int, cfg *coterie.Config) { cfg.Dir = dirs[i] }),
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				rev := put(t, c.Leader(), "k", "v")
				c.WaitRevision(rev)
				leader := c.Index(c.Leader())
				begin := time.Now()
				c.Crash(leader)
				require.False(t, c.Up(leader))
				require.Len(t, c.Nodes(), 2)
				c.Leader()
				require.Greater(t, time.Since(begin), 500*time.Millisecond, "the other nodes have to notice")
				for i := range 3 {
					if i != leader {
						c.Crash(i)
					}
				}
				require.Empty(t, c.Nodes())
				for i := range 3 {
					c.Restart(i)
				}
				require.Equal(t, "v", value(t, c.Leader(), "k"))
				require.Equal(t, rev+1, put(t, c.Follower(), "k", "w"))
				c.Restart(0) // which is up, so Restart stops it first
				require.Equal(t, "w", value(t, c.Node(0), "k"))
			}, opt)
		})
	}
}

// struck returns which of a number of writes break their connection, as text. The writes are from a node to
// itself, because then nothing else draws from the seed.
func struck(t *testing.T, writes int, opts ...coterietest.Option) (pattern string) {
	t.Helper()
	var network coterie.Network
	opts = append(opts, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { network = cfg.Network }))
	c := coterietest.NewCluster(t, 1, opts...)
	l, err := network.Listen("node1:2")
	require.NoError(t, err)
	defer l.Close()
	c.BreakConnections(0, 0, 0.5)
	for range writes {
		conn, err := network.Dial(t.Context(), "node1:2")
		require.NoError(t, err)
		_, err = conn.Write([]byte("x"))
		pattern += fmt.Sprint(err != nil, " ")
		conn.Close()
	}
	return pattern
}

// A failed test can be repeated with the seed that it logged.
func TestSeedRepeatsFaults(t *testing.T) {
	r := &recorder{TB: t}
	r.run(func() { coterietest.NewCluster(r, 1, coterietest.WithSeed(42)) })
	require.Contains(t, r.text.String(), "seed 42\n")
	first := struck(t, 64, coterietest.WithSeed(42))
	require.Equal(t, first, struck(t, 64, coterietest.WithSeed(42)))
	require.NotEqual(t, first, struck(t, 64, coterietest.WithSeed(43)))
	require.NotEqual(t, struck(t, 64), struck(t, 64), "each cluster draws another seed")
}
