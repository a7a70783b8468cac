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

// freeAddr returns an address on loopback with a port that was free a moment ago.
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

// faulty fails the test over TCP, where the network has no faults.
func (c *Cluster) faulty() {
	c.t.Helper()
	if c.net == nil {
		c.t.Fatal("coterietest: no faults over TCP: use a cluster without WithTCP")
	}
}

// Partition divides the network into groups of node indexes. Nodes of different groups do not reach each other,
// and a node in no group reaches none. As with TCP, data in transit is held back until the partition is healed.
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

// Block cuts one direction of a connection: what node from sends does not reach node to. It is held back until
// Heal.
func (c *Cluster) Block(from, to int) {
	c.t.Helper()
	c.faulty()
	c.net.Block(c.host(from), c.host(to))
}

// Delay makes everything that node from sends arrive at node to later, by d.
func (c *Cluster) Delay(from, to int, d time.Duration) {
	c.t.Helper()
	c.faulty()
	c.net.Delay(c.host(from), c.host(to), d)
}

// BreakConnections makes writes of node from to node to fail and break their connection, each with probability p.
// Other effects of lost packets do not exist here, because TCP hides them.
func (c *Cluster) BreakConnections(from, to int, p float64) {
	c.t.Helper()
	c.faulty()
	c.net.Drop(c.host(from), c.host(to), p)
}

// Heal ends all faults of the network and of the disks, and all pauses. It does not restart nodes.
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

// disk returns the disk in memory of a node. If the node has a real directory, the test fails.
func (c *Cluster) disk(i int) *vfs.Memory {
	c.t.Helper()
	if c.nodes[i].disk == nil {
		c.t.Fatal("coterietest: a real directory has no faults: use a node without Config.Dir")
	}
	return c.nodes[i].disk
}

// StallDisk makes all writes of a node to its disk block, while on is true.
func (c *Cluster) StallDisk(i int, on bool) {
	c.t.Helper()
	c.disk(i).Stall(on)
}

// SlowDisk makes each write of a node to its disk take d. 0 ends it.
func (c *Cluster) SlowDisk(i int, d time.Duration) {
	c.t.Helper()
	c.disk(i).Delay(d)
}

// FillDisk makes the disk of a node full, while on is true. The file of the log is allocated in advance, so
// small writes succeed until it is full: to see [coterie.ErrNoSpace], write some megabytes.
func (c *Cluster) FillDisk(i int, on bool) {
	c.t.Helper()
	c.disk(i).Fill(on)
}

// RefuseDisk makes all operations of a node on its disk, except syncs, fail with err, until it is called with
// nil. It simulates a host that lacks a resource: err is, for example, [syscall.EMFILE].
func (c *Cluster) RefuseDisk(i int, err error) {
	c.t.Helper()
	c.disk(i).Shortage(0, err)
}

// BlackholeConnections makes all present connections between two nodes drop all data, for good and in both
// directions, as a firewall does that has lost its state. Neither node gets an error. New connections work.
func (c *Cluster) BlackholeConnections(i, j int) {
	c.t.Helper()
	c.faulty()
	c.net.Silence(c.host(i), c.host(j))
}

// Pause makes a node look like a suspended process to the others: it sends and receives nothing until Resume or
// Heal. Unlike in a suspended process its goroutines continue, so it notices that it receives nothing. To
// test real suspensions, use real processes.
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

// Resume ends a Pause, and all other blocks between this node and nodes that are not paused.
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

// Crash ends a node as a crash of its machine does. Its connections break, and it sends nothing more, so it does
// not hand over leadership. Its disk keeps all data that was synced, and a random part of the rest; a real
// directory keeps all data that was written.
func (c *Cluster) Crash(i int) {
	c.t.Helper()
	c.faulty()
	m := c.nodes[i]
	c.net.Cut(c.host(i))
	if m.disk != nil {
		m.disk.Crash(c.rand)
	}
	if m.node != nil {
		err := m.node.Close() // fails if the disk in memory has crashed
		if err != nil && m.disk == nil {
			c.t.Errorf("coterietest: closing %s: %v", m.cfg.Name, err)
		}
		m.node = nil
	}
}

// Wipe ends a node as Crash does, and its disk loses all data.
func (c *Cluster) Wipe(i int) {
	c.t.Helper()
	c.Crash(i)
	c.disk(i)
	c.nodes[i].disk = vfs.NewForgetful()
}

// Reconfigure changes the configuration that a node has after its next Restart.
func (c *Cluster) Reconfigure(i int, change func(cfg *coterie.Config)) {
	change(&c.nodes[i].cfg)
}

// Stop closes a node, which hands over leadership if it leads. If the node is down, Stop does nothing.
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

// Restart opens a node again, from its disk. If the node is up, Restart stops it first.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	c.Stop(i)
	if c.net != nil {
		c.net.Revive(c.host(i))
	}
	c.open(c.nodes[i])
}
