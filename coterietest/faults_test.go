// SPDX-License-Identifier: Apache-2.0

package coterietest_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func put(t testing.TB, n *coterie.Node, key, val string) int64 {
	t.Helper()
	r, err := n.Put(t.Context(), key, val)
	require.NoError(t, err)
	return r.Revision
}

// value reads a key, anywhere, and returns "" if it is missing.
func value(t testing.TB, n *coterie.Node, key string, opts ...coterie.GetOption) string {
	t.Helper()
	r, err := n.Get(t.Context(), key, opts...)
	require.NoError(t, err)
	if len(r.KVs) == 0 {
		return ""
	}
	return r.KVs[0].Value
}

// within runs a call with so much time, and returns its error.
func within(t testing.TB, d time.Duration, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return call(ctx)
}

func putOn(n *coterie.Node, key, val string) func(ctx context.Context) error {
	return func(ctx context.Context) error { _, err := n.Put(ctx, key, val); return err }
}

// What a follower says to its leader arrives, though it hears nothing of it; and the reverse.
func TestBlockIsOneWay(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		from, to := c.Index(leader), c.Index(n)
		put(t, n, "k", "v")
		synctest.Wait() // its connection to the leader is free: no other would come to be
		c.Block(from, to)
		require.ErrorIs(t, within(t, 200*time.Millisecond, putOn(n, "deaf", "v")), coterie.ErrMaybeApplied)
		require.Equal(t, "v", value(t, leader, "deaf"), "it came, but the answer did not come back")
		require.Empty(t, value(t, n, "deaf", coterie.WithSerializable()))
		c.Heal()
		require.Equal(t, "v", value(t, n, "deaf"))
		time.Sleep(10 * time.Second) // nothing waits for an answer any more

		c.Block(to, from)
		before := n.Status().Durable
		put(t, leader, "heard", "v")
		synctest.Wait()
		require.Greater(t, n.Status().Durable, before, "the other way is open")
		require.ErrorIs(t, within(t, 200*time.Millisecond, putOn(n, "mute", "v")), coterie.ErrMaybeApplied)
		require.Empty(t, value(t, leader, "mute"), "it did not come")
		c.Heal()
		time.Sleep(10 * time.Second)
		require.Equal(t, "v", value(t, leader, "mute"), "it was held back, not lost")
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
		require.Less(t, there, time.Second, "a few ways at most")
		c.Delay(leader, c.Index(n), 50*time.Millisecond)
		require.GreaterOrEqual(t, took(), 150*time.Millisecond, "both ways")
		c.Heal()
		time.Sleep(time.Second)
		require.Less(t, took(), 5*time.Millisecond)
	})
}

// With every write breaking its connection nothing comes through; with a few, everything does.
func TestDropBreaksConnections(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		i, leader := c.Index(n), c.Index(c.Leader())
		put(t, n, "k", "v")
		c.BreakConnections(i, leader, 1)
		require.Error(t, within(t, 500*time.Millisecond, putOn(n, "dropped", "v")))
		require.Empty(t, value(t, c.Node(leader), "dropped"))
		require.NoError(t, within(t, 10*time.Second, putOn(c.Node(leader), "others", "v")), "the others go on")
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

func TestPartitionServesOnTheSideOfTheMajority(t *testing.T) {
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
			require.ErrorIs(t, err, coterie.ErrNoLeader, "the old leader knows by now that it leads no more")
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

		c.Partition(many) // those in no group are alone
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
		require.Error(t, within(t, time.Minute, putOn(leader, "k", "alone")), "the third is paused still")
		c.Resume(third)
		require.NoError(t, within(t, time.Minute, putOn(leader, "k", "3")))
		c.Heal()
		c.Pause(i)
		c.Pause(third)
		c.Resume(third)
		require.NoError(t, within(t, time.Minute, putOn(next, "k", "3")), "Heal has ended the other pauses")
		c.Resume(i)
		require.Equal(t, "3", value(t, c.Node(third), "k"))
	})
}

// A crash hands nothing over, and leaves the disk: in memory, or a directory.
func TestCrashAndRestartKeepTheData(t *testing.T) {
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
				require.Greater(t, time.Since(begin), 500*time.Millisecond, "the others have to notice")
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
				c.Restart(0) // it is up: that ends it first
				require.Equal(t, "w", value(t, c.Node(0), "k"))
			}, opt)
		})
	}
}

func TestWaitRevisionWaitsForEveryNode(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		i, leader := c.Index(n), c.Index(c.Leader())
		c.Delay(leader, i, 300*time.Millisecond)
		rev := put(t, c.Leader(), "k", "v")
		require.Less(t, n.Status().Revision, rev)
		begin := time.Now()
		c.WaitRevision(rev)
		require.Positive(t, time.Since(begin))
		for _, n := range c.Nodes() {
			require.GreaterOrEqual(t, n.Status().Revision, rev)
		}
	})
}

// A countingNetwork counts what is dialled.
type countingNetwork struct {
	coterie.Network
	dialled atomic.Int64
}

func (n *countingNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.dialled.Add(1)
	return n.Network.Dial(ctx, addr)
}

// A network that a test gives to a node is the node's, whether it founds or joins.
func TestANodeHasTheNetworkThatItIsGiven(t *testing.T) {
	var given [2]countingNetwork
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Join(func(cfg *coterie.Config) {
			given[1].Network = cfg.Network
			cfg.Network = &given[1]
		})
		require.NoError(t, c.Node(i).Ready(t.Context()))
		for i := range given {
			require.NotZero(t, given[i].dialled.Load(), i)
		}
		c.Pause(i)
		require.Error(t, within(t, time.Second, putOn(c.Node(i), "k", "v")), "it can still be cut")
		c.Heal()
	}, coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		if i == 0 {
			given[0].Network = cfg.Network
			cfg.Network = &given[0]
		}
	}))
}

// A recorder is a test that may fail, to look at how.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	text     strings.Builder
	failed   bool
	cleanups []func()
}

func (r *recorder) Helper() {}

func (r *recorder) note(text string, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.WriteString(text + "\n")
	r.failed = r.failed || failed
}

func (r *recorder) Logf(format string, args ...any)   { r.note(fmt.Sprintf(format, args...), false) }
func (r *recorder) Errorf(format string, args ...any) { r.note(fmt.Sprintf(format, args...), true) }
func (r *recorder) Cleanup(fn func())                 { r.cleanups = append(r.cleanups, fn) }

func (r *recorder) Fatal(args ...any) {
	r.note(fmt.Sprint(args...), true)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) { r.Fatal(fmt.Sprintf(format, args...)) }

// run runs fn as a test is run: it may end its goroutine, and what was to be cleaned up is.
func (r *recorder) run(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(r.cleanups) - 1; i >= 0; i-- {
				r.cleanups[i]()
			}
		}()
		fn()
	}()
	<-done
}

// A node that is wrong at the end of a test fails it.
func TestAFailedCheckFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := &recorder{TB: t}
		good.run(func() { coterietest.NewCluster(good, 1) })
		require.False(t, good.failed, good.text.String())

		bad := &recorder{TB: t}
		bad.run(func() {
			c := coterietest.NewCluster(bad, 1)
			// Who closes a node without telling the cluster has it checked when it is closed.
			require.NoError(t, c.Node(0).Close())
		})
		require.True(t, bad.failed)
		require.Contains(t, bad.text.String(), coterie.ErrClosed.Error())
	})
}

func TestWhatTheClusterCannotDoFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, fn := range map[string]func(c *coterietest.Cluster){
			"no leader": func(c *coterietest.Cluster) {
				c.Partition()
				time.Sleep(time.Minute)
				c.Leader()
			},
			"no follower is up": func(c *coterietest.Cluster) {
				for _, n := range c.Nodes()[1:] {
					c.Stop(c.Index(n))
				}
				c.Follower()
			},
			"not a node of this cluster": func(c *coterietest.Cluster) { c.Index(nil) },
			"waiting for revision 99":    func(c *coterietest.Cluster) { c.WaitRevision(99) },
		} {
			size := 3
			if want == "no follower is up" {
				size = 1
			}
			r := &recorder{TB: t}
			r.run(func() {
				fn(coterietest.NewCluster(r, size))
				t.Errorf("%s: it went on", want)
			})
			require.True(t, r.failed, want)
			require.Contains(t, r.text.String(), want)
		}
	})
}

// struck tells which of so many writes break their connection, of a node to itself: nobody else
// draws from the seed then.
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

// A test that failed can be run again with the seed that it has logged.
func TestTheSeedGivenIsTheSeedUsed(t *testing.T) {
	r := &recorder{TB: t}
	r.run(func() { coterietest.NewCluster(r, 1, coterietest.WithSeed(42)) })
	require.Contains(t, r.text.String(), "seed 42\n")
	first := struck(t, 64, coterietest.WithSeed(42))
	require.Equal(t, first, struck(t, 64, coterietest.WithSeed(42)))
	require.NotEqual(t, first, struck(t, 64, coterietest.WithSeed(43)))
	require.NotEqual(t, struck(t, 64), struck(t, 64), "another is drawn each time")
}

func TestAClusterOverTCP(t *testing.T) {
	c := coterietest.NewCluster(t, 3, coterietest.WithTCP())
	for i, n := range c.Nodes() {
		key := fmt.Sprint("k", i)
		rev := put(t, n, key, "v")
		c.WaitRevision(rev)
		for _, other := range c.Nodes() {
			require.Equal(t, "v", value(t, other, key))
			require.True(t, strings.HasPrefix(other.Status().Addr, "127.0.0.1:"))
		}
	}
	leader := c.Index(c.Leader())
	c.Stop(leader)
	put(t, c.Leader(), "k", "v")
	c.Restart(leader)
	require.Equal(t, "v", value(t, c.Node(leader), "k"))

	r := &recorder{TB: t}
	r.run(func() {
		coterietest.NewCluster(r, 1, coterietest.WithTCP()).Pause(0)
	})
	require.True(t, r.failed)
	require.Contains(t, r.text.String(), "no faults over TCP")
}
