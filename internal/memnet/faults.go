// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// A link is the path from one host to another, with its faults. Readers and writers use it without the
// network's lock.
type link struct {
	blocked atomic.Bool
	late    atomic.Int64  // nanoseconds
	drop    atomic.Uint64 // bits of a float64

	streams map[*stream]struct{} // the live streams that use it; guarded by Network.mu
}

func (l *link) delay() time.Duration { return time.Duration(l.late.Load()) }

// link returns the link from one host to another. The caller holds n.mu.
func (n *Network) link(from, to string) *link {
	key := [2]string{from, to}
	l := n.links[key]
	if l == nil {
		l = &link{streams: map[*stream]struct{}{}}
		n.links[key] = l
	}
	return l
}

// Seed reseeds the random choices of Drop.
func (n *Network) Seed(seed uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rng = rand.New(rand.NewPCG(seed, seed))
}

// Block holds back all data from one host to the other, as TCP would: no byte is lost, but none arrives
// before Unblock, and no new connection between the two is made in either direction.
func (n *Network) Block(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(from, to).blocked.Store(true)
}

// Unblock ends a Block.
func (n *Network) Unblock(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(from, to).blocked.Store(false)
	n.wake()
}

// Delay makes data take d from one host to the other. Data in flight is not affected.
func (n *Network) Delay(from, to string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(from, to).late.Store(int64(d))
}

// Drop makes a write from one host to the other reset its connection with probability p. A user of TCP
// never sees a lost segment, only delays or a reset.
func (n *Network) Drop(from, to string, p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link(from, to).drop.Store(math.Float64bits(p))
}

// Silence makes all current connections between two hosts lose everything that is written to them, for
// good and in both directions, like a NAT that has lost its table: neither end notices. New connections
// work.
func (n *Network) Silence(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.link(a, b).streams {
		s.connection.silent.Store(true)
	}
}

// Heal removes every fault between hosts, except for cut hosts and silenced connections.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.blocked.Store(false)
		l.late.Store(0)
		l.drop.Store(0)
	}
	n.wake()
}

// Cut crashes a host: its connections break at once, its listeners close for good, and it can neither listen nor
// dial before Revive.
func (n *Network) Cut(name string) {
	n.mu.Lock()
	n.host(name).down = true
	connections := map[*connection]struct{}{}
	for key, l := range n.links {
		if key[0] == name || key[1] == name {
			for s := range l.streams {
				connections[s.connection] = struct{}{}
			}
		}
	}
	var listeners []*listener
	for addr, l := range n.listeners {
		if l.host == name {
			listeners = append(listeners, l)
			delete(n.listeners, addr)
		}
	}
	n.wake()
	n.mu.Unlock()
	for _, l := range listeners {
		l.shut()
	}
	for c := range connections {
		c.reset()
	}
}

// Revive lets a cut host listen and dial again.
func (n *Network) Revive(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host(name).down = false
}

// wake makes everything that waits for the end of a fault check again. The caller holds n.mu.
func (n *Network) wake() {
	if n.healed != nil {
		close(n.healed)
		n.healed = nil
	}
	for _, l := range n.links {
		for s := range l.streams {
			s.wake()
		}
	}
}

// strikes reports whether a write on this link must break its connection.
func (n *Network) strikes(l *link) bool {
	p := math.Float64frombits(l.drop.Load())
	if p == 0 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rng.Float64() < p
}
