// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// ErrClosed: the client or server has been closed.
var ErrClosed = errors.New("rpc: closed")

// A Network makes connections. A layer of encryption is a Network around another.
type Network interface {
	// Listen announces on addr, a host:port.
	Listen(addr string) (net.Listener, error)
	// Dial connects to addr. It returns when ctx ends.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// A Peer is a member and its presumed address. ID 0 stands for any node at the address.
type Peer struct {
	ID   uint64
	Addr string
}

// is reports whether two peers are the same node. The address of a member may change.
func (p Peer) is(other Peer) bool { return p.ID == other.ID && (p.ID != 0 || p.Addr == other.Addr) }

// A RemoteError is the error that the other node's Handler returned. A Handler that returns a RemoteError
// chooses the code; other errors are sent with code 0.
type RemoteError struct {
	Code byte
	Text string
}

func (e *RemoteError) Error() string { return e.Text }

// A Client connects to other nodes and calls them. It keeps a few idle connections for each peer and
// lane. Its methods may be called concurrently.
type Client struct {
	// Failed is called for each failed connection attempt. Refused is called if one of the nodes rejected
	// the other in the handshake, with the errors of ServerConfig.Refused. Both may be called
	// concurrently, and must not be set after the first use of the Client. nil: not called.
	Failed, Refused func(err *DialError)

	network Network
	party   Party
	limits  Limits
	pool    *pool
	turns   turns
}

// NewClient returns a Client that identifies itself as node.
func NewClient(nw Network, node Party) *Client {
	return &Client{network: nw, party: node, limits: Limits{}.withDefaults(), pool: newPool()}
}

// SetPatience sets the longest time that a healthy peer takes to answer a request that needs no disk. A
// connection can die silently: everything sent is lost, and neither end notices. So after an unanswered
// request that took longer, the Client acts as in Distrust. The default is 0: it never does. SetPatience
// must not be called after the first use of the Client.
func (c *Client) SetPatience(d time.Duration) { c.pool.patience = d }

// Distrust closes the idle connections to a peer that have not been used since the given time, so that
// Open makes a new one.
func (c *Client) Distrust(peer Peer, since time.Time) { c.pool.distrust(peer, since) }

// Call sends a request to peer's Handler and returns its reply, which the caller may keep. It blocks
// until the reply arrives or ctx ends. Before that it waits if too many calls to peer are in flight. A
// *RemoteError comes from the Handler. After ErrTooLarge, an error of the handshake or a *DialError the
// request was not sent. After any other error the Handler may have seen it.
func (c *Client) Call(ctx context.Context, peer Peer, method byte, req []byte) ([]byte, error) {
	place, err := c.turns.take(ctx, peer)
	if err != nil {
		return nil, &DialError{peer, err}
	}
	defer c.turns.leave(peer, place)
	conn, err := c.Open(ctx, peer, LaneCall)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	status, payload, err := conn.Exchange(ctx, method, func(b []byte) []byte { return append(b, req...) })
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	switch status {
	case statusOK:
		return payload, nil
	case statusError:
		return nil, decodeRemoteError(payload)
	}
	conn.Close()
	return nil, fmt.Errorf("%w: status %d", ErrMalformed, status)
}

// A DialError says that a peer could not be reached. Nothing was sent to it.
type DialError struct {
	Peer Peer
	Err  error
}

func (e *DialError) Error() string {
	if e.Peer.ID == 0 { // to any node at this address
		return fmt.Sprintf("rpc: no connection to %s: %v", e.Peer.Addr, e.Err)
	}
	return fmt.Sprintf("rpc: no connection to %016x at %s: %v", e.Peer.ID, e.Peer.Addr, e.Err)
}

// Unwrap returns the reason.
func (e *DialError) Unwrap() error { return e.Err }

// Open returns a connection to peer on the lane, an idle or a new one. The caller must Release or Close
// it. Every error is a *DialError that wraps an error of the handshake, ctx's cause, ErrClosed, or the
// network's error.
func (c *Client) Open(ctx context.Context, peer Peer, lane byte) (*Conn, error) {
	if conn := c.Idle(peer, lane); conn != nil {
		return conn, nil
	}
	conn, err := c.dial(ctx, slot{peer, lane})
	if err != nil {
		failed := &DialError{peer, c.explain(ctx, err)}
		if c.Failed != nil {
			c.Failed(failed)
		}
		if c.Refused != nil && refusal(failed) {
			c.Refused(failed)
		}
		return nil, failed
	}
	return conn, nil
}

// Idle returns an idle connection to peer on the lane, as Open does, or nil if there is none.
func (c *Client) Idle(peer Peer, lane byte) *Conn {
	s := slot{peer, lane}
	for conn := c.pool.take(s); conn != nil; conn = c.pool.take(s) {
		// The node may have been removed or replaced since, or may belong to another founding.
		if c.party.accepts(conn.peer, lane) {
			return conn
		}
		conn.Close()
	}
	return nil
}

func (c *Client) dial(ctx context.Context, s slot) (*Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.pool.ctx, func() { cancel(ErrClosed) })()

	nc, err := c.network.Dial(ctx, s.peer.Addr)
	if err != nil {
		return nil, err
	}
	conn := newConn(nc, s.lane, c.limits)
	conn.sent, conn.received = c.party.Sent, c.party.Received
	release := conn.Guard(ctx)
	nc.SetDeadline(time.Now().Add(c.limits.Handshake))
	err = c.introduce(conn, s)
	if err == nil && c.party.Verify != nil {
		verifying, cancel := context.WithTimeout(ctx, c.limits.Handshake)
		err = c.party.verify(verifying, nc, conn.peer)
		cancel()
	}
	err = release(err)
	if err == nil && !c.pool.adopt(conn, s) {
		err = ErrClosed
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	nc.SetDeadline(time.Time{})
	return conn, nil
}

// introduce is the caller's half of the handshake.
func (c *Client) introduce(conn *Conn, s slot) error {
	ours := hello{version: version, id: c.party.Self(), to: s.peer.ID}
	if _, err := conn.net.Write(ours.append([]byte{s.lane})); err != nil {
		return err
	}
	answer, err := readHello(conn.reader)
	if err != nil {
		return unexpected(err)
	}
	conn.peer = answer.id
	return c.party.judgeAnswer(answer, s.peer.ID, s.lane)
}

// explain returns the reason why this side broke a connection, if it did, instead of the resulting
// network error.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case c.pool.ctx.Err() != nil:
		return ErrClosed
	}
	return err
}

// Close breaks every connection and ends every call with ErrClosed.
func (c *Client) Close() error {
	c.pool.close()
	return nil
}

// A slot is the key of idle connections.
type slot struct {
	peer Peer
	lane byte
}

const (
	keepIdle = 4               // idle connections in each slot
	idleTime = 2 * time.Minute // an older idle connection is closed when another becomes idle
)

// A pool holds the connections of a client. mu guards the fields below it.
type pool struct {
	patience time.Duration
	ctx      context.Context // canceled by close
	end      context.CancelFunc
	mu       sync.Mutex
	open     map[*Conn]struct{} // all connections, including idle ones
	idle     map[slot][]*Conn   // the most recently used last
	swept    time.Time
}

func newPool() *pool {
	p := &pool{open: map[*Conn]struct{}{}, idle: map[slot][]*Conn{}}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// adopt adds a new connection to the pool. It returns false if the pool is closed.
func (p *pool) adopt(c *Conn, s slot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	c.home, c.slot = p, s
	p.open[c] = struct{}{}
	return true
}

// take returns the most recently used idle connection, or nil.
func (p *pool) take(s slot) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := p.idle[s]
	if len(idle) == 0 {
		return nil
	}
	last := len(idle) - 1
	c := idle[last]
	idle[last] = nil
	p.idle[s] = idle[:last]
	c.reused = true
	return c
}

func (p *pool) put(c *Conn) {
	now := time.Now()
	p.mu.Lock()
	spare := p.sweep(now)
	if idle := p.idle[c.slot]; len(idle) < keepIdle && p.ctx.Err() == nil {
		c.idle = now
		p.idle[c.slot] = append(idle, c)
	} else {
		spare = append(spare, c)
	}
	p.mu.Unlock()
	for _, c := range spare {
		c.Close()
	}
}

// sweep removes and returns connections that have been idle for long, so that those to former members do
// not stay. It does so only from time to time. The caller holds p.mu.
func (p *pool) sweep(now time.Time) (old []*Conn) {
	if now.Sub(p.swept) < idleTime/2 {
		return nil
	}
	p.swept = now
	for s, idle := range p.idle {
		n := 0
		for n < len(idle) && now.Sub(idle[n].idle) >= idleTime {
			n++
		}
		old = append(old, idle[:n]...)
		if n == len(idle) {
			delete(p.idle, s)
		} else {
			p.idle[s] = append([]*Conn(nil), idle[n:]...)
		}
	}
	return old
}

// flush closes the idle connections of a slot.
func (p *pool) flush(s slot) {
	p.mu.Lock()
	idle := p.idle[s]
	delete(p.idle, s)
	p.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}

// distrust closes the idle connections to a peer, on any lane, that have not been used since the given
// time.
func (p *pool) distrust(peer Peer, since time.Time) {
	var old []*Conn
	p.mu.Lock()
	for s, idle := range p.idle {
		if !s.peer.is(peer) {
			continue
		}
		n := 0
		for n < len(idle) && !idle[n].idle.After(since) {
			n++
		}
		old = append(old, idle[:n]...)
		p.idle[s] = slices.Clone(idle[n:])
	}
	p.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
}

func (p *pool) forget(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

func (p *pool) close() {
	p.end()
	p.mu.Lock()
	open := p.open
	p.open, p.idle = map[*Conn]struct{}{}, map[slot][]*Conn{}
	p.mu.Unlock()
	for c := range open {
		c.Close()
	}
}
