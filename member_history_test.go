// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// Nodes in memory are restarted one after the other, with network faults. Acknowledged writes stay, although
// in the end every copy has been lost once.
func TestHistoriesOfNodesInMemory(t *testing.T) {
	histories(t, 10, func(t *testing.T, c *coterietest.Cluster, random *rand.Rand) func() {
		size := len(c.Nodes())
		return func() {
			if random.IntN(3) > 0 {
				networkFault(c, random, size)
				return
			}
			i := random.IntN(size)
			c.Crash(i)
			time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
			c.Restart(i)
			// The next node may restart when this one is back.
			for begin := time.Now(); ; c.Heal() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				err := c.Node(i).Ready(ctx)
				cancel()
				if err == nil {
					return
				}
				require.Less(t, time.Since(begin), time.Minute, "%v", err)
			}
		}
	}, func(cfg *coterie.Config) { cfg.InMemory, cfg.SnapshotEntries = true, 50 })
}

// Nodes join, leave, are removed, and lose their directories, with clients at work and network faults.
func TestHistoriesWhileMembersChange(t *testing.T) {
	histories(t, 10, func(t *testing.T, c *coterietest.Cluster, random *rand.Rand) func() {
		return (&churn{t: t, c: c, Rand: random, places: len(c.Nodes())}).step
	}, func(cfg *coterie.Config) { cfg.SnapshotEntries = 50 })
}

// A churn changes the members of a cluster at random.
type churn struct {
	t *testing.T
	c *coterietest.Cluster
	*rand.Rand
	places  int // nodes so far
	changes int // changes made so far
}

// step makes a change, or a fault. It gives up a change that takes too long.
func (ch *churn) step() {
	nodes := ch.c.Nodes()
	n, other := nodes[ch.IntN(len(nodes))], nodes[ch.IntN(len(nodes))]
	ctx, cancel := context.WithTimeout(ch.t.Context(), 3*time.Second)
	defer cancel()
	var err error
	switch ch.IntN(8) {
	case 0, 1:
		if len(nodes) < 7 {
			ch.c.Join(func(cfg *coterie.Config) { cfg.NonVoter = ch.IntN(4) == 0 })
			ch.places++
		}
	case 2:
		if len(nodes) > 3 {
			err = other.RemoveMember(ctx, n.ID())
		}
	case 3:
		if len(nodes) > 3 {
			if err = n.Leave(ctx); err == nil {
				ch.c.Stop(ch.c.Index(n)) // the node has stopped by itself
			}
		}
	case 4:
		err = other.TransferLeadership(ctx, n.ID())
	case 5:
		ch.replace(n)
	default:
		networkFault(ch.c, ch.Rand, ch.places)
		return
	}
	if err == nil {
		ch.changes++
	}
}

// replace makes a node lose its directory and join again. Acknowledged writes then need a majority of the
// others, so there is no other fault meanwhile.
func (ch *churn) replace(n *coterie.Node) {
	ch.c.Heal()
	if leader := ch.c.Leader(); leader == n || leader.Status().Voters < 3 {
		return // a write that two have acknowledged may be on one of them only
	}
	i := ch.c.Index(n)
	ch.c.Wipe(i)
	ch.c.Reconfigure(i, func(cfg *coterie.Config) { // the members that it knew may be gone
		cfg.Founders, cfg.Join = nil, nil
		for _, other := range ch.c.Nodes() {
			cfg.Join = append(cfg.Join, other.Status().Addr)
		}
	})
	ch.c.Restart(i)
	for begin := time.Now(); ; {
		ctx, cancel := context.WithTimeout(ch.t.Context(), 3*time.Second)
		err := ch.c.Node(i).Ready(ctx)
		cancel()
		if err == nil {
			return
		}
		require.Less(ch.t, time.Since(begin), time.Minute, "%v", err)
		if errors.Is(err, coterie.ErrDirMismatch) { // not if it had just joined, and had no data yet
			ctx, cancel := context.WithTimeout(ch.t.Context(), 3*time.Second)
			_ = ch.c.Leader().RemoveMember(ctx, n.ID()) // the loop repeats it
			cancel()
		}
	}
}

// Hundreds of changes under faults. Each is made completely or not at all.
func TestHundredsOfMemberChanges(t *testing.T) {
	steps, seed := 400, rand.Uint64()
	if testing.Short() {
		steps = 40
	}
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ch := &churn{t: t, c: c, Rand: rand.New(rand.NewPCG(seed, 1)), places: 3}
		acknowledged := 0
		for i := range steps {
			ch.step()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			if _, err := c.Nodes()[0].Put(ctx, fmt.Sprint("k", i), "v"); err == nil {
				acknowledged++
				last := c.Nodes()[len(c.Nodes())-1]
				if _, err := last.Get(ctx, "any"); err == nil {
					r, err := last.Get(ctx, fmt.Sprint("k", i), coterie.WithSerializable())
					if !errors.Is(err, coterie.ErrClosed) { // it may have learned of its removal in between
						require.NoError(t, err)
						require.NotEmpty(t, r.KVs)
					}
				}
			}
			cancel()
		}
		settle(t, c)
		t.Logf("%d changes, %d writes acknowledged, %d places", ch.changes, acknowledged, ch.places)
		require.NotZero(t, ch.changes)
		require.NotZero(t, acknowledged)
		require.GreaterOrEqual(t, get(t, c.Leader(), "k", coterie.WithPrefix(), coterie.WithCountOnly()).Count, int64(acknowledged))
		sameState(t, c)
	}, coterietest.WithSeed(seed), coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 50 }))
}
