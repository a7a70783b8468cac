// SPDX-License-Identifier: Apache-2.0

// Package coterietest runs clusters for tests, in the manner of net/http/httptest: in one process,
// on a network in memory that can be cut, delayed and broken, on disks in memory that outlive a
// crash, and, within Run, in virtual time: a test that waits for a lease of an hour takes
// milliseconds.
//
//	func TestFailover(t *testing.T) {
//		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
//			c.Crash(c.Index(c.Leader()))
//			_, err := c.Leader().Put(t.Context(), "k", "v")
//			…
//		})
//	}
//
// The node with index 0 is named "node1", the next one "node2", as those of [coterie.OpenCluster] are.
//
// At the end of a test every node is checked and closed, and the test fails if a goroutine of the
// cluster is left.
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

// A Cluster is a cluster under test: founding nodes, and those that join later. Its methods belong to the test's goroutine,
// unless said otherwise. They fail the test when they cannot do what they promise.
type Cluster struct {
	t     testing.TB
	net   *memnet.Network // nil over TCP
	label string          // that every goroutine of the cluster has
	rand  *rand.Rand      // of the seed
	nodes []*member
	hosts []string // by node: its name, which is its host in the network
	opts  options
}

// A member is a node's place: what outlives it.
type member struct {
	node   *coterie.Node // nil while it is down
	disk   *vfs.Memory   // nil with a directory
	cfg    coterie.Config
	paused bool
}

type options struct {
	seed   uint64
	limit  time.Duration // of virtual time
	tcp    bool
	config []func(i int, cfg *coterie.Config)
}

// An Option changes what NewCluster makes.
type Option func(*options)

// WithSeed sets the seed of random faults. Without it one is drawn and logged.
func WithSeed(seed uint64) Option { return func(o *options) { o.seed = seed } }

// WithConfig changes the configuration of the node with index i before it is opened. With a Dir the
// node has a real directory. Without a Logger it logs nothing.
func WithConfig(change func(i int, cfg *coterie.Config)) Option {
	return func(o *options) { o.config = append(o.config, change) }
}

// WithTCP has the nodes talk over TCP on loopback. It cannot be had in virtual time, and without
// most faults.
func WithTCP() Option { return func(o *options) { o.tcp = true } }

// WithTimeLimit sets how much virtual time a test of Run may take. Defaults to 12 hours. A test of
// NewCluster alone has no limit.
func WithTimeLimit(limit time.Duration) Option { return func(o *options) { o.limit = limit } }

const defaultTimeLimit = 12 * time.Hour

var clusters atomic.Uint64 // made so far, to tell their goroutines apart

// Run runs a test of a cluster of n nodes in virtual time: fn and all of the cluster are in a
// testing/synctest bubble. There t.Run panics; make each subtest call Run instead.
//
// A test that waits for what cannot happen would let virtual time pass until go test kills it. When the
// limit of [WithTimeLimit] is reached, the test fails with the stacks of what waits in it, and all nodes
// are closed, so that calls return coterie.ErrClosed. A test that still waits an hour later panics.
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

// explainSubtest says what to do in the panic of a t.Run that is called inside Run.
func explainSubtest() {
	r := recover()
	if text, ok := r.(string); ok && strings.Contains(text, "t.Run called inside synctest bubble") {
		r = "coterietest: t.Run called inside coterietest.Run, whose bubble has no subtests: " +
			"call t.Run outside, and coterietest.Run in each subtest"
	}
	if r != nil {
		panic(r)
	}
}

// NewCluster opens a cluster of n nodes and returns when all of them are ready. The end of the test
// checks and closes it.
func NewCluster(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, label: fmt.Sprintf("cluster-%d", clusters.Add(1))}
	for _, opt := range opts {
		opt(&c.opts)
	}
	if c.opts.seed == 0 {
		c.opts.seed = rand.Uint64() // not the clock: in a bubble it always begins at the same time
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

// add opens a node in a new place.
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

// Join opens a node that joins the cluster, once it reaches a node that is up now, and returns its
// index. change may be nil; it finds the network of the cluster in cfg, and may wrap it.
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
		cfg.Network = nil // add has that of its name, which may be another by now
	}
	c.hosts = append(c.hosts, cfg.Name)
	c.add(i, cfg)
	return i
}

// open opens a member's node, in goroutines that bear the cluster's label.
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

// finish checks and closes what runs, and looks for goroutines that are left.
func (c *Cluster) finish() {
	c.Heal()
	for _, m := range c.nodes {
		if m.node == nil {
			continue
		}
		// Who was removed from the cluster has stopped, and only that.
		if err := m.node.Check(context.Background()); err != nil && !errors.Is(err, coterie.ErrMemberNotFound) {
			c.t.Errorf("coterietest: %s: %v", m.cfg.Name, err)
		}
	}
	// The leader last: it would hand over to a node that cannot win without those that are closed.
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

// goroutines returns the stacks of the goroutines that bear the cluster's label. One that is about
// to end has a moment to do so.
func (c *Cluster) goroutines() string {
	for wait := time.Millisecond; ; wait *= 2 {
		var profile strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&profile, 1) // a Builder takes everything
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

// Node returns the node with index i, from 0. The test fails if the node is down: see [Cluster.Up].
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

// Up reports whether the node with index i runs: it was not crashed, wiped or stopped since it was
// opened last.
func (c *Cluster) Up(i int) bool { return c.nodes[i].node != nil }

// Nodes returns the nodes that are up, and have not stopped by themselves.
func (c *Cluster) Nodes() []*coterie.Node {
	var up []*coterie.Node
	for _, m := range c.nodes {
		if m.node != nil && m.node.Err() == nil {
			up = append(up, m.node)
		}
	}
	return up
}

// Index returns the index of a node that is up.
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

// patience is how long the cluster is waited for before the test fails.
const patience = time.Minute

// Leader waits for a leader that a majority follows, and returns it.
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

// WaitRevision waits until every node that is up has applied a revision.
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
