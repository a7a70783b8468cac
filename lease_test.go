// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func grant(t testing.TB, n *coterie.Node, ttl time.Duration) coterie.LeaseID {
	t.Helper()
	l, err := n.Grant(t.Context(), ttl)
	require.NoError(t, err)
	return l.ID
}

func TestT15_ExpiryDeletesInOneRevisionInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		id := grant(t, n, time.Minute)
		for _, k := range []string{"c", "a", "b"} {
			put(t, n, k, "v", coterie.WithLease(id))
		}
		watch := n.WatchChan(t.Context(), "", coterie.WithPrefix())
		begin := time.Now()
		require.Equal(t, "5: DELETE a=, DELETE b=, DELETE c=", show(next(t, watch)))
		require.InDelta(t, time.Minute, time.Since(begin), float64(time.Second))
		_, err := n.TimeToLive(t.Context(), id)
		require.ErrorIs(t, err, coterie.ErrLeaseNotFound)
		id = grant(t, n, time.Minute)
		put(t, n, "z", "v", coterie.WithLease(id))
		put(t, n, "y", "v", coterie.WithLease(id))
		next(t, watch)
		next(t, watch)
		require.NoError(t, errOf(n.Revoke(t.Context(), id)))
		require.Equal(t, "8: DELETE y=, DELETE z=", show(next(t, watch)))
	})
}

func TestLeaseCalls(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		l, err := n.Grant(ctx, time.Minute, coterie.WithGrantID(-7))
		require.NoError(t, err)
		require.EqualValues(t, -7, l.ID)
		require.Equal(t, "fffffffffffffff9", l.ID.String(), "in hex, as etcdctl prints it")
		_, err = n.Grant(ctx, time.Minute, coterie.WithGrantID(-7))
		require.ErrorIs(t, err, coterie.ErrLeaseExists)
		other := grant(t, n, time.Hour)
		all, err := n.Leases(ctx)
		require.NoError(t, err)
		require.Equal(t, []coterie.LeaseID{-7, other}, all.Leases)
		require.Equal(t, 2, n.Status().Leases)

		written := put(t, n, "k", "v", coterie.WithLease(l.ID))
		time.Sleep(40 * time.Second)
		left, err := n.TimeToLive(ctx, l.ID)
		require.NoError(t, err)
		require.Equal(t, &coterie.TimeToLiveResponse{
			Header: written.Header, ID: -7, TTL: time.Minute, Remaining: 20 * time.Second, Keys: []string{"k"},
		}, left)
		renewed, err := n.KeepAliveOnce(ctx, l.ID)
		require.NoError(t, err)
		require.Equal(t, &coterie.KeepAliveResponse{Header: written.Header, ID: -7, TTL: time.Minute}, renewed)
		time.Sleep(59 * time.Second)
		require.Len(t, get(t, n, "k").KVs, 1)
		time.Sleep(2 * time.Second)
		require.Empty(t, get(t, n, "k").KVs)
		_, err = n.KeepAliveOnce(ctx, l.ID)
		require.ErrorIs(t, err, coterie.ErrLeaseNotFound, "T19")
		require.ErrorIs(t, errOf(n.Revoke(ctx, l.ID)), coterie.ErrLeaseNotFound)
	})
}

// Every node answers about lease 0, which does not exist, and about the leases that callers ask for at the same moment.
func TestLeaseZeroIsNotFound(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		id := grant(t, c.Leader(), time.Minute)
		for _, n := range c.Nodes() {
			asked := make(chan error, 2)
			for range cap(asked) {
				go func() {
					_, err := n.KeepAliveOnce(t.Context(), 0)
					asked <- err
				}()
			}
			_, err := n.KeepAliveOnce(t.Context(), id)
			require.NoError(t, err)
			for range cap(asked) {
				require.ErrorIs(t, <-asked, coterie.ErrLeaseNotFound)
			}
			_, err = n.TimeToLive(t.Context(), 0)
			require.ErrorIs(t, err, coterie.ErrLeaseNotFound)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		id := grant(t, n, 10*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- n.KeepAlive(ctx, id) }()
		time.Sleep(time.Hour)
		_, err := n.TimeToLive(ctx, id)
		require.NoError(t, err)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		time.Sleep(11 * time.Second)
		require.ErrorIs(t, n.KeepAlive(t.Context(), id), coterie.ErrLeaseNotFound)
	})
}

func TestT20_TTLOutOfRangeIsRejected(t *testing.T) {
	n := open(t)
	for _, ttl := range []time.Duration{0, -time.Second, 300, coterie.MinTTL - 1, coterie.MaxTTL + 1} {
		_, err := n.Grant(t.Context(), ttl)
		require.ErrorIs(t, err, coterie.ErrTTLRange)
	}
	for _, ttl := range []time.Duration{coterie.MinTTL, coterie.MaxTTL} {
		l, err := n.Grant(t.Context(), ttl)
		require.NoError(t, err)
		require.Equal(t, ttl, l.TTL)
	}
}

// T17: a key that was moved to another lease before a restart ends with that lease. Leases survive a
// restart and a snapshot.
func TestT17_LeasesSurviveARestart(t *testing.T) {
	small := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 5 })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Leader()
		a, b := grant(t, n, time.Minute), grant(t, n, 2*time.Minute)
		put(t, n, "moved", "v", coterie.WithLease(a))
		put(t, n, "moved", "v", coterie.WithLease(b))
		put(t, n, "stays", "v", coterie.WithLease(a))
		for i := range 20 {
			put(t, n, "other", strconv.Itoa(i))
		}
		for i := range 3 {
			c.Crash(i)
		}
		for i := range 3 {
			c.Restart(i)
		}
		n = c.Leader()
		l, err := n.TimeToLive(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, []string{"stays"}, l.Keys)
		time.Sleep(61 * time.Second)
		require.Empty(t, get(t, n, "stays").KVs)
		require.Len(t, get(t, n, "moved").KVs, 1)
		time.Sleep(60 * time.Second)
		require.Empty(t, get(t, n, "moved").KVs)
	}, small)
}

func TestLeaseOutlivesItsLeader(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		kept, dropped := grant(t, c.Leader(), 30*time.Second), grant(t, c.Leader(), 30*time.Second)
		put(t, c.Leader(), "kept", "v", coterie.WithLease(kept))
		put(t, c.Leader(), "dropped", "v", coterie.WithLease(dropped))
		owner := c.Follower()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- owner.KeepAlive(ctx, kept) }()
		lost := time.Now()
		for range 4 {
			time.Sleep(20 * time.Second)
			i := c.Index(c.Leader())
			if c.Node(i) == owner {
				i = (i + 1) % 3
			}
			c.Crash(i)
			c.Leader()
			c.Restart(i)
		}
		require.Len(t, get(t, c.Leader(), "kept").KVs, 1)
		// Each new leader counts the TTL again, but one of them lasts long enough.
		time.Sleep(31 * time.Second)
		require.Empty(t, get(t, c.Leader(), "dropped").KVs)
		t.Log("dropped after", time.Since(lost))
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

// T22: a leader that was cut off does not expire a lease that is renewed at its successor.
func TestT22_ACutOffLeaderExpiresNothing(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		old := c.Leader()
		id := grant(t, old, 10*time.Second)
		put(t, old, "k", "v", coterie.WithLease(id))
		c.Pause(c.Index(old))
		var owner *coterie.Node
		for _, n := range c.Nodes() {
			if n != old {
				owner = n
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- owner.KeepAlive(ctx, id) }()
		time.Sleep(time.Minute)
		c.Heal()
		time.Sleep(time.Minute)
		require.Len(t, get(t, c.Leader(), "k").KVs, 1)
		require.EqualValues(t, 1, get(t, old, "k").KVs[0].Version)
		cancel()
		<-ended
		sameState(t, c)
	})
}

// An acknowledged renewal is never followed by an expiry that was decided before it.
func TestT21_RenewalRacesExpiry(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		for i := range 200 {
			id := grant(t, n, time.Second)
			// Right around the deadline, by the leader's clock.
			time.Sleep(time.Second - 5*time.Microsecond + time.Duration(i%10)*time.Microsecond)
			sent := time.Now()
			if _, err := n.KeepAliveOnce(t.Context(), id); err != nil {
				require.ErrorIs(t, err, coterie.ErrLeaseNotFound)
				continue
			}
			time.Sleep(time.Until(sent.Add(time.Second)) - 10*time.Millisecond)
			_, err := n.TimeToLive(t.Context(), id)
			require.NoError(t, err, "round %d", i)
		}
	})
}
