// SPDX-License-Identifier: Apache-2.0

package coterietest

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/vfs"
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

func (c *Cluster) host(i int) string { return c.hosts[i] }

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
func (c *Cluster) BreakConnections(from, to int, p float64) {
	c.t.Helper()
	c.faulty()
	c.net.Drop(c.host(from), c.host(to), p)
}

// Heal ends every fault of the network and of the disks. It does not restart a node.
func (c *Cluster) Heal() {
	if c.net != nil {
		c.net.Heal()
	}
	for _, m := range c.nodes {
		m.paused = false
		if m.disk != nil {
			m.disk.Stall(false)
			m.disk.Fill(false)
			m.disk.Delay(0)
			m.disk.Shortage(0, nil)
		}
	}
}

// disk returns a node's disk in memory.
func (c *Cluster) disk(i int) *vfs.Memory {
	c.t.Helper()
	if c.nodes[i].disk == nil {
		c.t.Fatal("coterietest: no faults of a disk with a real directory")
	}
	return c.nodes[i].disk
}

// StallDisk has everything that a node writes wait, as long as it is on.
func (c *Cluster) StallDisk(i int, on bool) {
	c.t.Helper()
	c.disk(i).Stall(on)
}

// SlowDisk has everything that a node writes take so long; 0 ends that.
func (c *Cluster) SlowDisk(i int, d time.Duration) {
	c.t.Helper()
	c.disk(i).Delay(d)
}

// FillDisk has a node's disk have no room left, as long as it is on. The log's file is allocated in
// advance, so small writes go on until that is full: to see [coterie.ErrNoSpace], write some megabytes.
func (c *Cluster) FillDisk(i int, on bool) {
	c.t.Helper()
	c.disk(i).Fill(on)
}

// RefuseDisk has the system refuse everything that a node asks of its disk, until it is called with
// nil: err is what it says for lack of something, as [syscall.EMFILE]. Syncs alone succeed.
func (c *Cluster) RefuseDisk(i int, err error) {
	c.t.Helper()
	c.disk(i).Shortage(0, err)
}

// Silence makes all present connections between two nodes swallow what is written to them, for good and
// in both directions: neither node hears of it. New connections work.
func (c *Cluster) Silence(i, j int) {
	c.t.Helper()
	c.faulty()
	c.net.Silence(c.host(i), c.host(j))
}

// Pause makes a node look like a stopped process: nothing that it sends leaves it and nothing
// reaches it, until Resume or Heal. Its own goroutines go on, so unlike a process it notices that
// it hears nothing; a test of real pauses needs real processes.
func (c *Cluster) Pause(i int) {
	c.t.Helper()
	c.faulty()
	c.nodes[i].paused = true
	for j := range c.nodes {
		if j != i {
			c.Block(i, j)
			c.Block(j, i)
		}
	}
}

// Resume ends a Pause, and other blocks of the node but those of nodes that are paused still.
func (c *Cluster) Resume(i int) {
	c.t.Helper()
	c.faulty()
	c.nodes[i].paused = false
	for j, other := range c.nodes {
		if j != i && !other.paused {
			c.net.Unblock(c.host(i), c.host(j))
			c.net.Unblock(c.host(j), c.host(i))
		}
	}
}

// Crash ends a node as a crash of its machine does: its connections break, nothing more leaves it, and
// its disk keeps what was synced; of the rest, what the seed decides. A real directory keeps what was
// written. It hands nothing over.
func (c *Cluster) Crash(i int) {
	c.t.Helper()
	c.faulty()
	m := c.nodes[i]
	c.net.Cut(c.host(i))
	if m.disk != nil {
		m.disk.Crash(c.rand)
	}
	if m.node != nil {
		err := m.node.Close() // with a disk that is gone, it has something to say
		if err != nil && m.disk == nil {
			c.t.Errorf("coterietest: closing %s: %v", m.cfg.Name, err)
		}
		m.node = nil
	}
}

// Wipe ends a node that is up as Crash does, and its disk loses everything.
func (c *Cluster) Wipe(i int) {
	c.t.Helper()
	c.Crash(i)
	c.disk(i)
	c.nodes[i].disk = vfs.NewForgetful()
}

// Reconfigure changes the configuration of a node from its next opening on.
func (c *Cluster) Reconfigure(i int, change func(cfg *coterie.Config)) {
	change(&c.nodes[i].cfg)
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
