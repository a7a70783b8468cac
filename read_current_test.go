// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

var (
	currentRuns = flag.Int("current", 4, "how many clusters TestAnswersOfLeadersAreCurrent runs")
	currentSeed = flag.Uint64("current.seed", 0, "the seed of the first of them; 0: at random")
)

// A node that believes that it leads answers with an index that covers every revision that was known before the question.
// Members ask all such nodes, not only the one that they follow. So a question reaches a deposed leader more often than a
// read does.
func TestAnswersOfLeadersAreCurrent(t *testing.T) {
	first := *currentSeed
	if first == 0 {
		first = rand.Uint64()
	}
	var deposed, answers atomic.Int64
	for i := range *currentRuns {
		seed := first + uint64(i)
		if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			compared(t, []int{3, 2, 3, 4, 3, 5}[i%6], func(t *testing.T, nodes []*Node, network *memnet.Network) {
				c := &current{T: t, Rand: r, nodes: nodes, network: network}
				c.run()
				deposed.Add(c.deposed.Load())
				answers.Add(c.answers.Load())
			})
		}) {
			break
		}
	}
	require.Positive(t, answers.Load())
	t.Logf("%d answers; %d questions reached a deposed leader", answers.Load(), deposed.Load())
}

// A current asks the members of a cluster for their read points, while they write, and while faults happen.
type current struct {
	*testing.T
	*rand.Rand // of the faults
	nodes      []*Node
	network    *memnet.Network

	known            atomic.Int64 // the newest revision that a call has returned
	answers, deposed atomic.Int64
}

// run asks and writes for 15 s of a bubble of synctest.
func (c *current) run() {
	ctx, cancel := context.WithTimeout(c.Context(), 15*time.Second)
	defer cancel()
	var running sync.WaitGroup
	for _, n := range c.nodes {
		for _, act := range []func(context.Context, *Node, *rand.Rand){c.write, c.read, c.ask, c.ask} {
			r := rand.New(rand.NewPCG(c.Uint64(), 0))
			running.Go(func() {
				for ctx.Err() == nil {
					short, cancel := context.WithTimeout(ctx, 2*time.Second)
					act(short, n, r)
					cancel()
					time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
				}
			})
		}
	}
	for ctx.Err() == nil {
		c.fault()
		time.Sleep(time.Duration(c.IntN(600)) * time.Millisecond)
	}
	running.Wait()
	c.network.Heal()
	for _, n := range c.nodes {
		require.NoError(c, n.Err(), "no node has found that its log differs from that of a leader")
	}
}

// learn notes that a call has returned a revision.
func (c *current) learn(rev int64) {
	for known := c.known.Load(); known < rev && !c.known.CompareAndSwap(known, rev); known = c.known.Load() {
	}
}

func (c *current) write(ctx context.Context, n *Node, r *rand.Rand) {
	if w, err := n.Put(ctx, "k", fmt.Sprint(r.Uint64())); err == nil {
		c.learn(w.Revision)
	}
}

func (c *current) read(ctx context.Context, n *Node, _ *rand.Rand) {
	known := c.known.Load()
	if g, err := n.Get(ctx, "k"); err == nil {
		if g.Revision < known {
			c.Errorf("%s read revision %d after %d was known", n.cfg.Name, g.Revision, known)
		}
		c.learn(g.Revision)
	}
}

// ask asks another node for a read point, if that believes that it leads. No fault of the network holds up the question, while
// the messages that would depose the other node may be held up.
func (c *current) ask(ctx context.Context, n *Node, r *rand.Rand) {
	other := c.nodes[r.IntN(len(c.nodes))]
	lead := other.lead.Now()
	if n == other || !lead.Self {
		return
	}
	if slices.ContainsFunc(c.nodes, func(n *Node) bool { return n.raft().raft.CurrentTerm() > lead.Term }) {
		c.deposed.Add(1)
	}
	known := c.known.Load()
	asks := *n.reads
	asks.call = func(ctx context.Context, _ MemberID, _ byte, req []byte) ([]byte, error) {
		if err := other.peers.judge(n.transport.hello(), rpc.LaneRaft); err != nil {
			return nil, err
		}
		return other.reads.answerReadIndex(ctx, n.id, req)
	}
	p, err := asks.callReadIndex(ctx, other.id)
	if err != nil {
		return
	}
	c.answers.Add(1)
	if v, err := other.views.Await(ctx, p.reached); err == nil && v.Revision < known {
		c.Errorf("%s told %s revision %d after %d was known", other.cfg.Name, n.cfg.Name, v.Revision, known)
	}
}

// fault causes a fault, an election, or both.
func (c *current) fault() {
	i, j := c.IntN(len(c.nodes)), c.IntN(len(c.nodes))
	a, b := c.nodes[i], c.nodes[j]
	ctx, cancel := context.WithTimeout(c.Context(), time.Second)
	defer cancel()
	switch c.IntN(8) {
	case 0, 1, 2: // a leader alone, or with one other, and an election among the rest
		i = max(0, slices.IndexFunc(c.nodes, func(n *Node) bool { return n.lead.Now().Self }))
		for k := range c.nodes {
			if k == i || k == j {
				continue
			}
			for _, m := range []int{i, j} {
				if c.IntN(4) > 0 && !(m == j && c.IntN(2) == 0) {
					separate(c.network, c.nodes[m], c.nodes[k])
				}
			}
			if c.IntN(2) == 0 {
				c.nodes[k].raft().elect()
			}
		}
	case 3:
		c.network.Block(a.cfg.Name, b.cfg.Name)
		b.raft().elect()
	case 4:
		c.network.Delay(a.cfg.Name, b.cfg.Name, time.Duration(c.IntN(400))*time.Millisecond)
	case 5:
		_ = a.TransferLeadership(ctx, b.id)
	case 6: // raft begins again
		a.raft().astray.Store(true)
		a.raft().pokeObserver()
	default:
		c.network.Heal()
	}
}
