// SPDX-License-Identifier: Apache-2.0

package coterietest

import (
	"net"
	"slices"
	"testing"
	"time"
)

// freeAddr returns an address on loopback that was free a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (c *Cluster) host(i int) string { return c.peers[i].Name }

// faulty fails a test that asks for faults of a network that has none.
func (c *Cluster) faulty() {
	c.t.Helper()
	if c.net == nil {
		c.t.Fatal("coterietest: no faults over TCP")
	}
}

// Partition cuts the network into groups of indexes: nodes of different groups do not reach each
// other, and a node that is in none is alone. As with TCP, what was sent is held back until the cut
// is healed.
func (c *Cluster) Partition(groups ...[]int) {
	c.t.Helper()
	c.faulty()
	group := func(i int) int {
		return slices.IndexFunc(groups, func(g []int) bool { return slices.Contains(g, i) })
	}
	for i := range c.nodes {
		for j := range c.nodes {
			if i != j && (group(i) != group(j) || group(i) < 0) {
				c.Block(i, j)
			}
		}
	}
}

// Block cuts one direction: what from sends does not reach to.
func (c *Cluster) Block(from, to int) {
	c.t.Helper()
	c.faulty()
	c.net.Block(c.host(from), c.host(to))
}

// Delay makes what from sends to to arrive later.
func (c *Cluster) Delay(from, to int, d time.Duration) {
	c.t.Helper()
	c.faulty()
	c.net.Delay(c.host(from), c.host(to), d)
}

// Drop breaks connections: each write of from to to with probability p. TCP hides the loss of
// packets otherwise.
func (c *Cluster) Drop(from, to int, p float64) {
	c.t.Helper()
	c.faulty()
	c.net.Drop(c.host(from), c.host(to), p)
}

// Heal ends every partition, block, delay, drop and pause. It does not restart a node.
func (c *Cluster) Heal() {
	if c.net != nil {
		c.net.Heal()
	}
}

// Pause makes a node look like a stopped process: nothing that it sends leaves it and nothing
// reaches it, until Resume or Heal. Its own goroutines go on, so unlike a process it notices that
// it hears nothing; a test of real pauses needs real processes.
func (c *Cluster) Pause(i int) {
	c.t.Helper()
	c.faulty()
	for j := range c.nodes {
		if j != i {
			c.Block(i, j)
			c.Block(j, i)
		}
	}
}

// Resume ends a Pause, and other blocks of the node.
func (c *Cluster) Resume(i int) {
	c.t.Helper()
	c.faulty()
	for j := range c.nodes {
		if j != i {
			c.net.Unblock(c.host(i), c.host(j))
			c.net.Unblock(c.host(j), c.host(i))
		}
	}
}

// Crash ends a node as a crash of its machine does: its connections break, nothing more leaves it,
// and its disk keeps what was written. It hands nothing over.
func (c *Cluster) Crash(i int) {
	c.t.Helper()
	c.faulty()
	c.net.Cut(c.host(i))
	c.Stop(i)
}

// Stop closes a node, which hands its leadership over. Nothing happens to one that is down.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	m := c.nodes[i]
	if m.node == nil {
		return
	}
	if err := m.node.Close(); err != nil {
		c.t.Errorf("coterietest: closing %s: %v", m.cfg.Name, err)
	}
	m.node = nil
}

// Restart opens a node again, from its disk, after ending it if it is up.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	c.Stop(i)
	if c.net != nil {
		c.net.Revive(c.host(i))
	}
	c.open(c.nodes[i])
}
