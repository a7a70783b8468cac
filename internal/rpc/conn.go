// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ErrTooLarge: a frame exceeds the limit of its lane.
var ErrTooLarge = errors.New("rpc: frame is too large")

// ErrBusy: other frames are received, and have not made room in time.
var ErrBusy = errors.New("rpc: too much is received")

// Limits bound what others can make a node hold or wait for. A zero field means its default.
type Limits struct {
	// Handshake is how long a connection may take to say who it is. Defaults to 5 s.
	Handshake time.Duration
	// Pending is how many connections may be at that; beyond it the oldest one of the host with the most
	// is closed, of hosts without a member if there are any. Defaults to 128.
	Pending int
	// Frame is how long a frame that has begun may take to arrive, beside a second for each MiB.
	// Defaults to 5 s.
	Frame time.Duration
	// CallBytes and RaftBytes bound a frame of either lane. Both default to 80 MiB.
	CallBytes, RaftBytes int
	// Receipt bounds, in bytes and for each lane, the frames that are being received and worked on;
	// others wait. Those of at most 64 KiB are not counted. Defaults to 160 MiB, and is at least a frame.
	Receipt int
	// Guests is how many connections callers may have in all that are no known members; beyond it the
	// one that has been idle longest is closed. Their frames are bounded by GuestBytes, and a connection
	// of theirs that has been idle for GuestIdle is closed. Defaults to 128, 64 KiB and 30 s.
	Guests, GuestBytes int
	GuestIdle          time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Handshake <= 0 {
		l.Handshake = 5 * time.Second
	}
	if l.Pending <= 0 {
		l.Pending = 128
	}
	if l.Frame <= 0 {
		l.Frame = 5 * time.Second
	}
	if l.CallBytes <= 0 {
		l.CallBytes = 80 << 20
	}
	if l.RaftBytes <= 0 {
		l.RaftBytes = 80 << 20
	}
	if l.Receipt <= 0 {
		l.Receipt = 160 << 20
	}
	l.Receipt = max(l.Receipt, l.CallBytes, l.RaftBytes)
	if l.Guests <= 0 {
		l.Guests = 128
	}
	if l.GuestBytes <= 0 {
		l.GuestBytes = 64 << 10
	}
	if l.GuestIdle <= 0 {
		l.GuestIdle = 30 * time.Second
	}
	return l
}

// A Conn is a connection whose handshake is done. One goroutine at a time may Send and one Receive;
// Close may be called by any.
type Conn struct {
	net    net.Conn
	reader *bufio.Reader
	frame  []byte // the buffer of Send
	peer   Identity
	limit  int
	within time.Duration
	host   *host // of the accepting side, else nil
	held   int64 // of the host's receipt, for the frame received last
	gone   chan struct{}
	going  sync.Once
	broken atomic.Bool
	asked  time.Time // when Guard was last called
	ended  bool      // by the ctx of Guard
	home   *pool     // of the client that opened it; nil on the accepting side
	slot   slot
	reused bool
	idle   time.Time // since when it has been in the pool
}

const (
	frameHeader = 5        // uint32 length of the payload, method
	keepFrame   = 64 << 10 // a larger Send buffer is not kept
	firstRead   = 64 << 10 // what is allocated on the word of a length alone
)

func newConn(nc net.Conn, lane byte, limits Limits) *Conn {
	limit := limits.CallBytes
	if lane == LaneRaft {
		limit = limits.RaftBytes
	}
	return &Conn{net: nc, reader: bufio.NewReader(nc), limit: limit, within: limits.Frame, gone: make(chan struct{})}
}

// A host is what a Server asks of a connection that it accepted.
type host struct {
	receipt *receipt
	done    <-chan struct{} // the server closes
	guest   func() bool     // whether the caller is no known member, at the moment
	limits  *Limits
}

// Peer returns who is at the other end, as it said when the connection was made.
func (c *Conn) Peer() Identity { return c.peer }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.net.RemoteAddr() }

// Reused reports whether the connection has carried earlier requests: the other end may have closed
// it since, so that a failure says nothing about the peer's health now.
func (c *Conn) Reused() bool { return c.reused }

// Send writes one frame: a method and the payload that encode appends to its argument. It blocks
// while the other end does not read. ErrTooLarge leaves the connection usable; after any other
// error it is good for Close only.
func (c *Conn) Send(method byte, encode func(b []byte) []byte) error {
	b := append(c.frame[:0], 0, 0, 0, 0, method)
	if encode != nil {
		b = encode(b)
	}
	if cap(b) <= keepFrame {
		c.frame = b
	} else {
		c.frame = nil
	}
	size := len(b) - frameHeader
	if size > c.limit {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, c.limit)
	}
	binary.BigEndian.PutUint32(b, uint32(size))
	_, err := c.net.Write(b)
	return c.note(err)
}

// Receive reads one frame; the payload is the caller's. A large payload counts against the receipt
// until the next Receive. Receive waits for a frame to begin for as long as the connection stands,
// and for the rest of it for a bounded time. It returns io.EOF when the other end closed between frames.
func (c *Conn) Receive() (method byte, payload []byte, err error) {
	c.settle()
	// A frame that has arrived as a whole, as most have, needs no timer.
	bounded := c.reader.Buffered() == 0 && c.host != nil && c.host.guest()
	if bounded {
		c.net.SetReadDeadline(time.Now().Add(c.host.limits.GuestIdle))
	}
	if _, err := c.reader.Peek(1); err != nil {
		return 0, nil, c.note(err)
	}
	if c.reader.Buffered() < frameHeader {
		bounded = true
		c.boundRead(0)
	}
	head, err := c.reader.Peek(frameHeader)
	if err != nil {
		return 0, nil, c.note(unexpected(err))
	}
	size, method := binary.BigEndian.Uint32(head), head[4]
	limit := c.limit
	if c.host != nil && int(size) > c.host.limits.GuestBytes && c.host.guest() {
		limit = min(limit, c.host.limits.GuestBytes)
	}
	if uint64(size) > uint64(limit) {
		return 0, nil, c.note(fmt.Errorf("%w: a frame of %d bytes, the limit is %d", ErrMalformed, size, limit))
	}
	if err := c.reserve(int64(size)); err != nil {
		return 0, nil, c.note(err)
	}
	c.reader.Discard(frameHeader)
	if c.reader.Buffered() < int(size) {
		bounded = true
		c.boundRead(int(size))
	}
	if payload, err = readPayload(c.reader, int(size)); err != nil {
		return 0, nil, c.note(unexpected(err))
	}
	if bounded {
		c.net.SetReadDeadline(time.Time{})
	}
	return method, payload, nil
}

// reserve waits until a frame of that size may be read.
func (c *Conn) reserve(size int64) error {
	if c.host == nil || size <= firstRead {
		return nil
	}
	if !c.host.receipt.take(size, c.within+Transfer(int(size)), c.host.done, c.gone) {
		return fmt.Errorf("%w: no room for a frame of %d bytes", ErrBusy, size)
	}
	c.held = size
	return nil
}

// settle says that the frame received last is done with.
func (c *Conn) settle() {
	if c.held > 0 {
		c.host.receipt.give(c.held)
		c.held = 0
	}
}

func (c *Conn) boundRead(size int) {
	c.net.SetReadDeadline(time.Now().Add(c.within + Transfer(size)))
}

// Transfer is the time that a message of this size may take on top of all other waiting: a second
// for each MiB.
func Transfer(size int) time.Duration {
	return time.Duration(size) * (time.Second >> 20)
}

// readPayload reads size bytes. What it holds grows with what has arrived, not with what was
// announced.
func readPayload(r io.Reader, size int) ([]byte, error) {
	b := make([]byte, min(size, firstRead))
	for read := 0; ; {
		n, err := io.ReadFull(r, b[read:])
		if read += n; err != nil {
			return nil, err
		}
		if read == size {
			return b, nil
		}
		grown := make([]byte, min(size, 2*len(b)))
		copy(grown, b)
		b = grown
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// note remembers that the connection is good for nothing any more.
func (c *Conn) note(err error) error {
	if err != nil {
		c.broken.Store(true)
	}
	return err
}

// Guard ties the connection to ctx: when ctx ends, the connection breaks and whoever waits on it
// returns. The function returned unties it; it returns ctx's cause if that has broken the
// connection, else the error it was given.
func (c *Conn) Guard(ctx context.Context) (release func(error) error) {
	c.asked = time.Now()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	return func(err error) error {
		if !stop() {
			c.ended = true
			c.broken.Store(true)
			return context.Cause(ctx)
		}
		return err
	}
}

// Exchange sends a request and receives what comes back, which is the caller's. When ctx ends it
// returns ctx's cause at once, and the connection is broken.
func (c *Conn) Exchange(ctx context.Context, method byte, encode func(b []byte) []byte) (byte, []byte, error) {
	release := c.Guard(ctx)
	err := c.Send(method, encode)
	var status byte
	var payload []byte
	if err == nil {
		status, payload, err = c.Receive()
		err = unexpected(err)
	}
	return status, payload, release(err)
}

// Release gives a connection that Client.Open returned back for later use; one that is broken, or
// not a client's, is closed. The caller must have received everything it asked for.
func (c *Conn) Release() {
	if c.home != nil && !c.broken.Load() && c.reader.Buffered() == 0 {
		c.home.put(c)
		return
	}
	c.Close()
	switch {
	case c.home == nil:
	case !c.ended:
		// The peer has gone, and with it the other connections: no caller is to meet them one by one.
		c.home.flush(c.slot)
	case c.home.patience > 0 && time.Since(c.asked) >= c.home.patience:
		// Either the peer is slow, or the connection has died in silence, and others with it.
		c.home.distrust(c.slot.peer, c.asked)
	}
}

// Close breaks the connection. Whoever waits on it returns.
func (c *Conn) Close() error {
	c.broken.Store(true)
	c.going.Do(func() { close(c.gone) })
	if c.home != nil {
		c.home.forget(c)
	}
	return c.net.Close()
}
