// SPDX-License-Identifier: Apache-2.0

package coterietest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Cluster is a cluster under test: founding nodes, and nodes that join later. Call its methods from the
// goroutine of the test. A method that cannot do its work fails the test.
type Cluster struct {
	t     testing.TB
	net   *memnet.Network // nil over TCP
	label string          // of every goroutine of the cluster
	rand  *rand.Rand      // seeded with opts.seed
	nodes []*member
	hosts []string // by index: the name of a node, which is its host in the network
	opts  options
}

// A member is the part of a node that outlives a restart.
type member struct {
	node   *coterie.Node // nil while it is down
	disk   *vfs.Memory   // nil with a real directory
	cfg    coterie.Config
	paused bool
}

type options struct {
	seed   uint64
	limit  time.Duration // of virtual time; 0 is the default
	tcp    bool
	config []func(i int, cfg *coterie.Config)
}

// An Option is an option of [Run] and [NewCluster].
type Option func(*options)

// WithSeed sets the seed of random faults. By default a test draws a seed and logs it.
func WithSeed(seed uint64) Option { return func(o *options) { o.seed = seed } }

// WithConfig calls change with the configuration of each node before it is opened, and with the node's index.
// A node with a Dir has a real directory instead of a disk in memory. A node without a Logger logs nothing.
func WithConfig(change func(i int, cfg *coterie.Config)) Option {
	return func(o *options) { o.config = append(o.config, change) }
}

// WithTCP makes the nodes communicate over TCP on loopback. It needs real time, so it works with NewCluster and
// not with Run. The methods that cause faults of the network, and Crash, Wipe and Pause, then fail the test.
func WithTCP() Option { return func(o *options) { o.tcp = true } }

// WithTimeLimit sets how much virtual time a test with Run may take. The default is 12 hours. A test that uses
// NewCluster without Run has no limit.
func WithTimeLimit(limit time.Duration) Option { return func(o *options) { o.limit = limit } }

const defaultTimeLimit = 12 * time.Hour

var clusters atomic.Uint64 // counts clusters, so that each labels its goroutines differently

// Run runs fn with a cluster of n nodes in virtual time: fn and the cluster are in a testing/synctest bubble.
// In a bubble t.Run panics; call Run in each subtest instead.
//
// If a test waits for something that never happens, virtual time would pass until go test ends the process.
// So after the limit of [WithTimeLimit] the test fails with the stacks of the goroutines that wait in it, and
// all nodes are closed, which makes calls return coterie.ErrClosed. If the test still waits an hour of virtual
// time later, it panics.
func Run(t *testing.T, n int, fn func(t *testing.T, c *Cluster), opts ...Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := NewCluster(t, n, opts...)
		limit := c.bound()
		defer limit.Stop()
		defer explainSubtest()
		fn(t, c)
	})
}

// explainSubtest replaces the panic of a t.Run inside Run by one that says how to write subtests.
func explainSubtest() {
	r := recover()
	if text, ok := r.(string); ok && strings.Contains(text, "t.Run called inside synctest bubble") {
		r = "coterietest: t.Run called inside coterietest.Run, which has no subtests: " +
			"call t.Run outside, and coterietest.Run in each subtest"
	}
	if r != nil {
		panic(r)
	}
}

// NewCluster opens a cluster of n nodes and returns when all of them are ready. At the end of the test it is
// checked and closed.
func NewCluster(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, label: fmt.Sprintf("cluster-%d", clusters.Add(1))}
	for _, opt := range opts {
		opt(&c.opts)
	}
	if c.opts.seed == 0 {
		c.opts.seed = rand.Uint64() // not from the clock, which begins at the same time in every bubble
	}
	t.Logf("coterietest: seed %d", c.opts.seed)
	c.rand = rand.New(rand.NewPCG(c.opts.seed, 0))
	if !c.opts.tcp {
		c.net = memnet.New()
		c.net.Seed(c.opts.seed)
	}
	var founders []coterie.Founder
	for i := range n {
		name := nodeName(i)
		addr := name + ":1"
		if c.opts.tcp {
			addr = freeAddr(t)
		}
		c.hosts = append(c.hosts, name)
		founders = append(founders, coterie.Founder{Name: name, Addr: addr})
	}
	t.Cleanup(c.finish)
	for i, p := range founders {
		c.add(i, coterie.Config{Name: p.Name, Addr: p.Addr, Advertise: p.Addr, Founders: slices.Clone(founders)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, m := range c.nodes {
		if err := m.node.Ready(ctx); err != nil {
			t.Fatalf("coterietest: %s is not ready: %v", m.cfg.Name, err)
		}
	}
	return c
}

// add opens a node with the next index.
func (c *Cluster) add(i int, cfg coterie.Config) {
	c.t.Helper()
	m := &member{cfg: cfg}
	if c.net != nil && cfg.Network == nil {
		m.cfg.Network = c.net.Host(cfg.Name)
	}
	for _, change := range c.opts.config {
		change(i, &m.cfg)
	}
	if m.cfg.Logger == nil {
		m.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if m.cfg.Dir == "" && !m.cfg.InMemory {
		m.cfg.Dir = "/" + cfg.Name
		m.disk = vfs.NewForgetful()
	}
	c.nodes = append(c.nodes, m)
	c.open(m)
}

// Join opens a node that joins the cluster, and returns its index. The node joins once it reaches one of the
// nodes that are up at the time of the call. change may be nil; otherwise it may change the configuration,
// and may wrap the cluster's network, which is in cfg.
func (c *Cluster) Join(change func(cfg *coterie.Config)) int {
	c.t.Helper()
	i := len(c.nodes)
	cfg := coterie.Config{Name: nodeName(i)}
	cfg.Addr = cfg.Name + ":1"
	if c.opts.tcp {
		cfg.Addr = freeAddr(c.t)
	}
	cfg.Advertise = cfg.Addr
	for _, n := range c.Nodes() {
		cfg.Join = append(cfg.Join, n.Status().Addr)
	}
	if c.net != nil {
		cfg.Network = c.net.Host(cfg.Name)
	}
	own := cfg.Network
	if change != nil {
		change(&cfg)
	}
	if cfg.Network == own {
		cfg.Network = nil // add uses the network of the node's name, which change may have changed
	}
	c.hosts = append(c.hosts, cfg.Name)
	c.add(i, cfg)
	return i
}

// open opens a member's node. The goroutines of the node inherit the cluster's label.
func (c *Cluster) open(m *member) {
	c.t.Helper()
	var err error
	pprof.Do(context.Background(), pprof.Labels("coterietest", c.label), func(ctx context.Context) {
		if m.disk != nil {
			ctx = vfs.With(ctx, m.disk.Mount())
		}
		m.node, err = coterie.Open(ctx, m.cfg)
	})
	if err != nil {
		c.t.Fatalf("coterietest: opening %s: %v", m.cfg.Name, err)
	}
}

// finish checks and closes the nodes that are up, and fails the test if a goroutine is left.
func (c *Cluster) finish() {
	c.Heal()
	for _, m := range c.nodes {
		if m.node == nil {
			continue
		}
		// A node that was removed from the cluster has stopped by itself, which is no failure.
		if err := m.node.Check(context.Background()); err != nil && !errors.Is(err, coterie.ErrMemberNotFound) {
			c.t.Errorf("coterietest: %s: %v", m.cfg.Name, err)
		}
	}
	// The leader is closed last. A node that it hands over to could not win once the others are closed.
	leads := func(m *member) bool { return m.node != nil && m.node.Status().Role == coterie.RoleLeader }
	for _, last := range []bool{false, true} {
		for i, m := range c.nodes {
			if last || !leads(m) {
				c.Stop(i)
			}
		}
	}
	if left := c.goroutines(); left != "" {
		c.t.Errorf("coterietest: goroutines left:\n%s", left)
	}
}

// goroutines returns the stacks of the goroutines with the cluster's label. It waits for up to two seconds
// for goroutines that are about to end.
func (c *Cluster) goroutines() string {
	for wait := time.Millisecond; ; wait *= 2 {
		var profile strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&profile, 1) // a Builder never fails
		var left []string
		for stack := range strings.SplitSeq(profile.String(), "\n\n") {
			if strings.Contains(stack, `"coterietest":"`+c.label+`"`) {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || wait > time.Second {
			return strings.Join(left, "\n\n")
		}
		time.Sleep(wait)
	}
}

// nodeName returns the name of the node with index i.
func nodeName(i int) string { return fmt.Sprint("node", i+1) }

// Node returns the node with index i, from 0. If the node is down, the test fails: see [Cluster.Up].
func (c *Cluster) Node(i int) *coterie.Node {
	c.t.Helper()
	if i < 0 || i >= len(c.nodes) {
		c.t.Fatalf("coterietest: there is no node %d among %d", i, len(c.nodes))
	}
	m := c.nodes[i]
	if m.node == nil {
		c.t.Fatalf("coterietest: %s is down: call Restart(%d) before Node(%d)", m.cfg.Name, i, i)
	}
	return m.node
}

// Up reports whether the node with index i is up: since it was last opened, the test has not crashed, wiped or
// stopped it.
func (c *Cluster) Up(i int) bool { return c.nodes[i].node != nil }

// Nodes returns the nodes that are up and have not stopped by themselves.
func (c *Cluster) Nodes() []*coterie.Node {
	var up []*coterie.Node
	for _, m := range c.nodes {
		if m.node != nil && m.node.Err() == nil {
			up = append(up, m.node)
		}
	}
	return up
}

// Index returns the index of a node. If the node is not one of those that are up, the test fails.
func (c *Cluster) Index(n *coterie.Node) int {
	c.t.Helper()
	for i, m := range c.nodes {
		if m.node == n {
			return i
		}
	}
	c.t.Fatal("coterietest: not a node of this cluster, or down")
	return -1
}

// patience is how long the methods of a Cluster wait for the cluster before they fail the test.
const patience = time.Minute

// Leader waits for a leader that a majority follows, and returns its node.
func (c *Cluster) Leader() *coterie.Node {
	c.t.Helper()
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(5 * time.Millisecond) {
		for _, n := range c.Nodes() {
			if n.Status().Role != coterie.RoleLeader {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := n.Ready(ctx)
			cancel()
			if err == nil && n.Status().Role == coterie.RoleLeader {
				return n
			}
		}
	}
	c.t.Fatalf("coterietest: no leader within %v", patience)
	return nil
}

// Follower waits for a leader, and returns another node that is up.
func (c *Cluster) Follower() *coterie.Node {
	c.t.Helper()
	leader := c.Leader()
	for _, n := range c.Nodes() {
		if n != leader {
			return n
		}
	}
	c.t.Fatal("coterietest: no follower is up")
	return nil
}

// WaitRevision waits until every node that is up has applied the revision.
func (c *Cluster) WaitRevision(rev int64) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, n := range c.Nodes() {
		if _, err := n.Get(ctx, "k", coterie.WithCountOnly(), coterie.WithWaitRevision(rev)); err != nil {
			c.t.Fatalf("coterietest: waiting for revision %d of %s: %v", rev, n.Status().Name, err)
		}
	}
}
