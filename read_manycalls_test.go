// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/memnet"
)

// dialCounting counts the connections that a node makes.
type dialCounting struct {
	coterie.Network
	dials *atomic.Int32
}

func (c dialCounting) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c.dials.Add(1)
	return c.Network.Dial(ctx, addr)
}

// If a follower's clients make many calls at once, the follower makes few calls to its leader.
func TestManyCallsShareConnections(t *testing.T) {
	const many = 500
	network := memnet.New()
	var dials atomic.Int32
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for _, from := range []string{"node1", "node2", "node3"} {
			for _, to := range []string{"node1", "node2", "node3"} {
				network.Delay(from, to, time.Millisecond)
			}
		}
		n := c.Follower()
		term := n.Status().Term
		leases := make([]coterie.LeaseID, many)
		s, err := coterie.NewSession(t.Context(), n)
		require.NoError(t, err)
		defer s.Close()
		waiting, cancel := context.WithCancel(t.Context())
		first := coterie.NewMutex(s, "lock")
		require.NoError(t, first.Lock(t.Context()))
		var waiters sync.WaitGroup
		for name, call := range map[string]func(i int) error{
			"Grant": func(i int) error {
				l, err := n.Grant(t.Context(), time.Hour)
				leases[i] = l.ID
				return err
			},
			"Put": func(i int) error {
				_, err := n.Put(t.Context(), fmt.Sprint("k", i), "v")
				return err
			},
			"Get": func(i int) error {
				_, err := n.Get(t.Context(), fmt.Sprint("k", i))
				return err
			},
			"KeepAliveOnce": func(i int) error {
				_, err := n.KeepAliveOnce(t.Context(), s.Lease())
				return err
			},
			"Lock": func(int) error {
				waiters.Go(func() { _ = coterie.NewMutex(s, "lock").Lock(waiting) })
				return nil
			},
		} {
			allAtOnce(t, many, name, call)
		}
		allAtOnce(t, many, "KeepAliveOnce", func(i int) error {
			l, err := n.KeepAliveOnce(t.Context(), leases[i])
			if err == nil && l.TTL != time.Hour {
				err = fmt.Errorf("a TTL of %v", l.TTL)
			}
			return err
		})
		allAtOnce(t, many, "TimeToLive", func(i int) error {
			l, err := n.TimeToLive(t.Context(), leases[i])
			if err == nil && l.TTL != time.Hour {
				err = fmt.Errorf("a TTL of %v", l.TTL)
			}
			return err
		})
		time.Sleep(time.Minute)
		require.Len(t, get(t, n, "lock/", coterie.WithPrefix()).KVs, many+1, "all callers wait for the lock")
		cancel()
		waiters.Wait()
		require.NoError(t, s.Err())
		require.Equal(t, term, c.Leader().Status().Term)
		require.LessOrEqual(t, dials.Load(), int32(60), "connections in all, of three nodes")
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Network = dialCounting{network.Host(cfg.Name), &dials} }))
}

// allAtOnce makes many calls concurrently.
func allAtOnce(t *testing.T, many int, name string, call func(i int) error) {
	t.Helper()
	var calls sync.WaitGroup
	var failed atomic.Pointer[error]
	for i := range many {
		calls.Go(func() {
			if err := call(i); err != nil {
				failed.Store(&err)
			}
		})
	}
	calls.Wait()
	if err := failed.Load(); err != nil {
		t.Fatalf("%s: %v", name, *err)
	}
}
