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

// value reads a key and returns "" if it is missing.
func value(t testing.TB, n *coterie.Node, key string, opts ...coterie.GetOption) string {
	t.Helper()
	r, err := n.Get(t.Context(), key, opts...)
	require.NoError(t, err)
	if len(r.KVs) == 0 {
		return ""
	}
	return r.KVs[0].Value
}

// within runs a call with a ctx that ends after d, and returns its error.
func within(t testing.TB, d time.Duration, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return call(ctx)
}

func putOn(n *coterie.Node, key, val string) func(ctx context.Context) error {
	return func(ctx context.Context) error { _, err := n.Put(ctx, key, val); return err }
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

// A countingNetwork counts calls of Dial.
type countingNetwork struct {
	coterie.Network
	dialled atomic.Int64
}

func (n *countingNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.dialled.Add(1)
	return n.Network.Dial(ctx, addr)
}

// A founder and a joining node use the network that the test configures.
func TestConfiguredNetworkIsUsed(t *testing.T) {
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

// A recorder is a testing.TB that records failures instead of failing the test.
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

// run runs fn as package testing does: fn may end its goroutine, and cleanups run afterwards.
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

// A node that fails its check at the end of a test fails the test.
func TestFailedCheckFailsTheTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := &recorder{TB: t}
		good.run(func() { coterietest.NewCluster(good, 1) })
		require.False(t, good.failed, good.text.String())

		bad := &recorder{TB: t}
		bad.run(func() {
			c := coterietest.NewCluster(bad, 1)
			// The cluster does not know that the node is closed, and checks it.
			require.NoError(t, c.Node(0).Close())
		})
		require.True(t, bad.failed)
		require.Contains(t, bad.text.String(), coterie.ErrClosed.Error())
	})
}

func TestClusterFailuresFailTheTest(t *testing.T) {
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
				t.Errorf("%s: fn continued", want)
			})
			require.True(t, r.failed, want)
			require.Contains(t, r.text.String(), want)
		}
	})
}

func TestClusterOverTCP(t *testing.T) {
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

// The last nodes of a cluster cannot hand over, and do not try.
func TestAllNodesCloseQuickly(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		coterietest.Run(t, n, func(t *testing.T, c *coterietest.Cluster) {
			leader := c.Index(c.Leader())
			begin := time.Now()
			for i := range n {
				if i != leader {
					c.Stop(i)
				}
			}
			c.Stop(leader)
			require.Less(t, time.Since(begin), 100*time.Millisecond, "%d nodes", n)
		})
	}
}
