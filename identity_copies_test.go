// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A copyTrio is three founders whose directories are copied and put back.
type copyTrio struct {
	*testing.T
	net   *memnet.Network
	sites []*site
	nodes []*coterie.Node // nil for a node that is down
}

// inCopyTrio runs a test with three founders that are ready, each on a host of its own.
func inCopyTrio(t *testing.T, fn func(c *copyTrio)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &copyTrio{T: t, net: memnet.New(), sites: sites(3), nodes: make([]*coterie.Node, 3)}
		for _, s := range c.sites {
			s.Network, s.Logger = c.net.Host(s.Name), slog.New(slog.DiscardHandler)
		}
		t.Cleanup(func() {
			for _, n := range c.nodes {
				if n != nil {
					require.NoError(t, n.Close())
				}
			}
		})
		c.up(0, 1, 2)
		c.ready(0, 1, 2)
		fn(c)
	})
}

func (c *copyTrio) up(indexes ...int) {
	c.Helper()
	for _, i := range indexes {
		n, err := coterie.Open(on(c, c.sites[i].disk), c.sites[i].Config)
		require.NoError(c, err)
		c.nodes[i] = n
	}
}

func (c *copyTrio) down(indexes ...int) {
	c.Helper()
	for _, i := range indexes {
		require.NoError(c, c.nodes[i].Close())
		c.nodes[i] = nil
	}
}

// ready waits until nodes are ready, and all nodes that are up have their records.
func (c *copyTrio) ready(indexes ...int) {
	c.Helper()
	for _, i := range indexes {
		ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
		require.NoError(c, c.nodes[i].Ready(ctx), "node %d", i)
		cancel()
	}
	time.Sleep(10 * time.Second)
}

// lead makes a node the leader.
func (c *copyTrio) lead(i int) {
	c.Helper()
	require.NoError(c, c.nodes[i].TransferLeadership(c.Context(), c.nodes[i].ID()))
}

func (c *copyTrio) put100(i int) {
	c.Helper()
	for k := range 100 {
		put(c, c.nodes[i], fmt.Sprintf("k%02d", k), "v")
	}
}

// stopped waits until a node has stopped by itself.
func stopped(t testing.TB, n *coterie.Node, want error) {
	t.Helper()
	select {
	case <-n.Done():
	case <-time.After(time.Minute):
		require.FailNow(t, "the node still runs")
	}
	require.ErrorIs(t, n.Err(), want)
	require.ErrorIs(t, n.Err(), coterie.ErrClosed)
	require.NoError(t, n.Close())
}

// has100 requires that a node has the keys of put100.
func (c *copyTrio) has100(i int) {
	c.Helper()
	r, err := c.nodes[i].Get(c.Context(), "k", coterie.WithPrefix(), coterie.WithCountOnly())
	require.NoError(c, err)
	require.EqualValues(c, 100, r.Count)
}

func TestRolledBackNodeElectsNobody(t *testing.T) {
	inCopyTrio(t, func(c *copyTrio) {
		c.lead(0)
		c.down(1)
		old := c.sites[1].disk.Copy()
		c.up(1)
		c.ready(1)
		c.down(2)
		c.put100(0)
		c.down(1, 0)

		c.sites[1].disk = old
		c.up(1, 2)
		for range 12 { // restarts do not change that
			require.ErrorIs(c, notReady(c.T, c.nodes[1], 5*time.Second), coterie.ErrDirMismatch)
			require.Zero(c, c.nodes[2].Status().Leader)
			c.down(1)
			c.up(1)
		}
		c.up(0)
		c.ready(0, 2)
		c.has100(2)
		stopped(c, c.nodes[1], coterie.ErrDirMismatch)

		// With an empty directory it joins again.
		require.NoError(c, c.nodes[0].RemoveMember(c.Context(), c.nodes[1].ID()))
		c.sites[1].disk, c.sites[1].Join, c.sites[1].Founders = vfs.NewForgetful(), []string{c.sites[0].Addr}, nil
		c.up(1)
		c.ready(1)
		c.has100(1)
	})
}

// The candidate does not know the run that the voter has forgotten. Another member does, and the voter asks it
// before it votes.
func TestRollbackIsFoundThroughAnotherMember(t *testing.T) {
	inCopyTrio(t, func(c *copyTrio) {
		c.lead(0)
		c.down(1)
		old := c.sites[1].disk.Copy()
		c.down(2)
		c.up(1)
		c.ready(1) // node 2 does not learn of this run
		c.put100(0)
		c.down(1)
		c.sites[1].disk = old
		c.apart("r0", "r2")
		c.up(1, 2)
		require.ErrorIs(c, notReady(c.T, c.nodes[1], time.Minute), coterie.ErrDirMismatch)
		require.NotEqual(c, coterie.RoleLeader, c.nodes[2].Status().Role)
		require.NotEqual(c, coterie.RoleLeader, c.nodes[1].Status().Role)
		c.net.Heal()
		c.ready(0, 2)
		c.has100(2)
		stopped(c, c.nodes[1], coterie.ErrDirMismatch)
	})
}

// rollBack puts back the directory of node 1 from a copy of the same run that lacks 100 acknowledged writes. The
// leader, node 0, rejects it. Node 2 is down.
func (c *copyTrio) rollBack() {
	c.Helper()
	c.lead(0)
	old := c.sites[1].disk.Copy()
	c.down(2)
	c.put100(0)
	c.down(1)
	c.sites[1].disk = old
	c.up(1)
	require.ErrorIs(c, notReady(c.T, c.nodes[1], time.Minute), coterie.ErrDirMismatch)
}

// A copy of the same run knows the number on record. But the leader knows which entries the node acknowledged.
func TestLeaderRemembersAcknowledgements(t *testing.T) {
	inCopyTrio(t, func(c *copyTrio) {
		c.rollBack()
		c.up(2) // with the others it could elect a leader that lacks the writes
		c.ready(2)
		c.has100(2)
		stopped(c, c.nodes[1], coterie.ErrDirMismatch)

		// By now all members know of the loss.
		c.down(0)
		c.up(0)
		c.ready(0, 2)
		c.up(1)
		stopped(c, c.nodes[1], coterie.ErrDirMismatch)
	})
}

// A node that has learned of its data loss remembers it when it is started again while it can reach no member
// that knows.
func TestDataLossIsRememberedAcrossRestarts(t *testing.T) {
	inCopyTrio(t, func(c *copyTrio) {
		c.rollBack()
		c.down(0, 1)
		c.up(1, 2)
		time.Sleep(time.Minute)
		require.Zero(c, c.nodes[1].Status().Leader)
		require.Zero(c, c.nodes[2].Status().Leader)
		c.up(0) // a majority without node 1 has all that was written
		c.ready(0, 2)
		c.has100(2)
		ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
		defer cancel()
		if err := c.nodes[1].Ready(ctx); err != nil {
			require.ErrorIs(c, err, coterie.ErrDirMismatch)
			return // node 0 had put on record that the run is over
		}
		c.has100(1) // node 0 forgot the loss when it was closed
		c.down(1)
		c.up(1)
		c.ready(1)
	})
}

// clone opens a node on a copy of a node's directory, on a host of its own.
func (c *copyTrio) clone(i int, copied *vfs.Memory) *coterie.Node {
	c.Helper()
	s := *c.sites[i]
	s.disk, s.Addr, s.Advertise, s.Network = copied, "r9:1", "r9:1", c.net.Host("r9")
	n, err := coterie.Open(on(c, s.disk), s.Config)
	require.NoError(c, err)
	c.Cleanup(func() { require.NoError(c, n.Close()) })
	return n
}

// apart cuts two hosts off from each other.
func (c *copyTrio) apart(a, b string) {
	c.net.Block(a, b)
	c.net.Block(b, a)
}

func TestCopyBesideTheOriginalStops(t *testing.T) {
	for name, test := range map[string]struct {
		leader int
		apart  bool // the copy cannot reach the original
	}{
		"of a follower":                 {1, false},
		"of the leader":                 {0, false},
		"of a follower, through others": {1, true},
	} {
		t.Run(name, func(t *testing.T) {
			inCopyTrio(t, func(c *copyTrio) {
				c.lead(test.leader)
				if test.apart {
					c.apart("r9", "r0")
				}
				n := c.clone(0, c.sites[0].disk.Copy())
				stopped(c, n, coterie.ErrDuplicateNode)
				c.put100(test.leader)
				c.ready(0, 1, 2)
				c.has100(0)
			})
		})
	}
}

func TestCopyBesideTheOriginalElectsNobody(t *testing.T) {
	inCopyTrio(t, func(c *copyTrio) {
		c.lead(1)
		old := c.sites[0].disk.Copy()
		c.down(2)
		c.put100(1)
		c.down(1)
		c.apart("r0", "r2") // node 2 reaches the copy alone
		n := c.clone(0, old)
		c.up(2)
		stopped(c, n, coterie.ErrDuplicateNode)
		time.Sleep(time.Minute)
		require.Zero(c, c.nodes[2].Status().Leader)
		c.net.Heal()
		c.ready(0, 2)
		c.has100(2)
	})
}

// A copy that is opened while the original is down replaces it.
func TestOriginalIsRejectedOnceItsCopyRan(t *testing.T) {
	inCopyTrio(t, func(c *copyTrio) {
		c.down(0)
		n := c.clone(0, c.sites[0].disk.Copy())
		require.NoError(c, n.Ready(c.Context()))
		time.Sleep(10 * time.Second)
		c.up(0)
		stopped(c, c.nodes[0], coterie.ErrDuplicateNode)
		require.NoError(c, n.Err())
		require.NoError(c, n.Close())
		c.up(0)
		stopped(c, c.nodes[0], coterie.ErrDirMismatch)
	})
}

func TestRestartsAreNotTakenForARollback(t *testing.T) {
	inCopyTrio(t, func(c *copyTrio) {
		c.down(1, 2)
		for range 12 { // without a leader that could put its runs on record
			c.down(0)
			c.up(0)
		}
		c.up(1, 2)
		c.ready(0, 1, 2)
		for range 12 { // all at once
			c.down(2, 0, 1)
			c.up(1, 2, 0)
		}
		c.ready(0, 1, 2)
		for i := range 9 { // killed one after the other, some on a full disk
			c.sites[i%3].disk.Kill()
			c.nodes[i%3].Close() // it returns an error of its disk
			c.sites[i%3].disk.Fill(i%2 > 0)
			c.up(i % 3)
			c.sites[i%3].disk.Fill(false)
			put(c, c.nodes[i%3], "k", "v")
		}
		c.ready(0, 1, 2)
		for i, n := range c.nodes {
			require.NoError(c, n.Err(), "node %d", i)
		}
	})
}
