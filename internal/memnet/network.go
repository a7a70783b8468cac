// SPDX-License-Identifier: Apache-2.0

// Package memnet is a network in memory: named hosts, listeners, connections that behave like TCP's, and
// faults that tests can inject. It waits only on conditions, channels and timers that are made at the
// place of the wait, so a whole cluster can run in a testing/synctest bubble. It starts no goroutine.
package memnet

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// anonymous is the host of addresses without a host part, unless they are used through a Host.
const anonymous = "localhost"

var errHostDown = errors.New("host is down")

// A Network connects hosts. Its methods may be called concurrently. mu guards all fields.
type Network struct {
	mu        sync.Mutex
	hosts     map[string]*Host
	listeners map[string]*listener
	links     map[[2]string]*link
	turn      int // of the ephemeral ports
	rng       *rand.Rand
	healed    chan struct{} // closed when a fault ends; nil while nothing waits for that
}

// New returns a network without hosts or faults.
func New() *Network {
	return &Network{
		hosts:     map[string]*Host{},
		listeners: map[string]*listener{},
		links:     map[[2]string]*link{},
		rng:       rand.New(rand.NewPCG(0, 0)),
	}
}

// A Host is one machine of a network. Faults are between hosts.
type Host struct {
	network *Network
	name    string
	down    bool // guarded by network.mu
}

// Host returns the host of that name. It returns the same one at every call.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.host(name)
}

func (n *Network) host(name string) *Host {
	h := n.hosts[name]
	if h == nil {
		h = &Host{network: n, name: name}
		n.hosts[name] = h
	}
	return h
}

// Listen announces on addr, a host:port, for the host that addr names. An empty host part means a host
// that all such addresses share. Port 0, or no port, selects a free one.
func (n *Network) Listen(addr string) (net.Listener, error) {
	host, port, err := split(addr)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = anonymous
	}
	return n.listen(host, port)
}

// Dial connects to addr from the shared host.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return n.dial(ctx, anonymous, addr)
}

// Listen announces on addr, a host:port. The host part is empty or this host's name. Port 0, or no port,
// selects a free one.
func (h *Host) Listen(addr string) (net.Listener, error) {
	host, port, err := split(addr)
	if err != nil {
		return nil, err
	}
	if host != "" && host != h.name {
		return nil, &net.OpError{Op: "listen", Net: networkName, Addr: address(addr), Err: syscall.EADDRNOTAVAIL}
	}
	return h.network.listen(h.name, port)
}

// Dial connects to addr from this host. While the path is blocked in either direction, it waits for ctx
// or for the end of the block.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return h.network.dial(ctx, h.name, addr)
}

// split parses an address. It returns an unspecified host as "" and an unspecified port as 0.
func split(addr string) (host string, port int, err error) {
	if addr == "" {
		return "", 0, nil
	}
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	if text == "" {
		return host, 0, nil
	}
	p, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, &net.AddrError{Err: "invalid port", Addr: addr}
	}
	return host, int(p), nil
}

func (n *Network) listen(host string, port int) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	addr := join(host, port)
	for tries := 0; port == 0 && tries < ports; tries++ {
		if addr = n.ephemeral(host); n.listeners[addr] == nil {
			break
		}
	}
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: networkName, Addr: address(addr), Err: err}
	}
	if n.host(host).down {
		return fail(errHostDown)
	}
	if n.listeners[addr] != nil {
		return fail(syscall.EADDRINUSE)
	}
	l := &listener{network: n, host: host, addr: address(addr)}
	l.arrived.L = &l.mu
	n.listeners[addr] = l
	return l, nil
}

// The ephemeral ports.
const (
	firstPort = 49152
	ports     = 1<<16 - firstPort
)

// ephemeral returns the next ephemeral address. The caller holds n.mu.
func (n *Network) ephemeral(host string) string {
	n.turn = (n.turn + 1) % ports
	return join(host, firstPort+n.turn)
}

func join(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func (n *Network) dial(ctx context.Context, from, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: networkName, Addr: address(addr), Err: err}
	}
	to, port, err := split(addr)
	if err != nil {
		return fail(err)
	}
	if to == "" {
		to = from
	}
	target := join(to, port)
	if err := n.travel(ctx, from, to); err != nil {
		return fail(err)
	}

	n.mu.Lock()
	if n.host(from).down {
		n.mu.Unlock()
		return fail(errHostDown)
	}
	l := n.listeners[target]
	if l == nil {
		n.mu.Unlock()
		return fail(syscall.ECONNREFUSED)
	}
	local := address(n.ephemeral(from))
	dialled, accepted := n.connect(local, address(target), n.link(from, to), n.link(to, from))
	n.mu.Unlock()

	if !l.offer(accepted) {
		dialled.connection.reset()
		return fail(syscall.ECONNREFUSED)
	}
	return dialled, nil
}

// travel waits for the duration of a round trip, or while one of the directions is blocked.
func (n *Network) travel(ctx context.Context, from, to string) error {
	for {
		n.mu.Lock()
		there, back := n.link(from, to), n.link(to, from)
		delay := there.delay() + back.delay()
		var healed chan struct{}
		if there.blocked.Load() || back.blocked.Load() {
			if n.healed == nil {
				n.healed = make(chan struct{})
			}
			healed = n.healed
		}
		n.mu.Unlock()

		if healed == nil {
			return pause(ctx, delay)
		}
		select {
		case <-healed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if d > 0 && ctx.Err() == nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

const networkName = "memory"

type address string

func (a address) Network() string { return networkName }
func (a address) String() string  { return string(a) }

const backlog = 1024

type listener struct {
	network *Network
	host    string
	addr    address

	mu      sync.Mutex
	arrived sync.Cond
	queue   []*conn
	closed  bool
}

// offer queues a connection for Accept. It returns false if the listener is closed or its queue is full.
func (l *listener) offer(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue) == backlog {
		return false
	}
	l.queue = append(l.queue, c)
	l.arrived.Signal()
	return true
}

func (l *listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.arrived.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: networkName, Addr: l.addr, Err: net.ErrClosed}
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c, nil
}

// Close closes the listener and resets the connections in its queue.
func (l *listener) Close() error {
	l.network.mu.Lock()
	if l.network.listeners[string(l.addr)] == l {
		delete(l.network.listeners, string(l.addr))
	}
	l.network.mu.Unlock()
	if !l.shut() {
		return &net.OpError{Op: "close", Net: networkName, Addr: l.addr, Err: net.ErrClosed}
	}
	return nil
}

// shut reports false if the listener was closed already.
func (l *listener) shut() bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.closed = true
	queue := l.queue
	l.queue = nil
	l.arrived.Broadcast()
	l.mu.Unlock()
	for _, c := range queue {
		c.connection.reset()
	}
	return true
}

func (l *listener) Addr() net.Addr { return l.addr }
