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

// ErrBusy: too many large frames are being received, and not enough of them finished in time.
var ErrBusy = errors.New("rpc: too much is being received")

// Limits bound the memory and time that other nodes can cost this one. A zero field selects its default.
type Limits struct {
	// Handshake bounds the time of a handshake. The default is 5 s.
	Handshake time.Duration
	// Pending is the maximum number of connections that are shaking hands. When there are more, the
	// oldest one of the host with the most is closed, and hosts without a member come first. The default
	// is 128.
	Pending int
	// Frame bounds the time from the first to the last byte of a frame, plus a second for each MiB. The
	// default is 5 s.
	Frame time.Duration
	// CallBytes and RaftBytes bound a frame of the respective lane. Both default to 80 MiB.
	CallBytes, RaftBytes int
	// Receipt bounds, in bytes and for each lane, the frames that are being received or processed. Other
	// frames wait. Frames of at most 64 KiB do not count. The default is 160 MiB, and the minimum is one
	// frame.
	Receipt int
	// Guests is the maximum number of connections of callers that are not known members. When there are
	// more, the one that has been idle longest is closed. GuestBytes bounds their frames, and a
	// connection that has been idle for GuestIdle is closed. The defaults are 128, 64 KiB and 30 s.
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

// A Conn is a connection after its handshake. One goroutine at a time may call Send and one Receive; any
// goroutine may call Close.
type Conn struct {
	net    net.Conn
	reader *bufio.Reader
	peer   Identity
	limit  int
	within time.Duration
	host   *host // of the accepting side, otherwise nil
	held   int64 // bytes of the host's receipt, for the last frame received
	gone   chan struct{}
	going  sync.Once
	broken atomic.Bool
	asked  time.Time // when Guard was last called
	ended  bool      // the ctx of Guard has ended
	home   *pool     // pool of the client that opened it; nil on the accepting side

	sent, received func(bytes int) // Party.Sent and Party.Received

	slot   slot
	reused bool
	idle   time.Time // when it was returned to the pool
}

const (
	frameHeader = 5        // uint32 length of the payload, method
	keepFrame   = 5 << 20  // a larger buffer of Send is not kept; raft's largest appends need little more than 4 MiB
	firstRead   = 64 << 10 // read before memory for more is allocated
	growRead    = 80       // how many times the arrived part of a payload is allocated: raft's largest appends grow once
)

// frames has buffers for Send, and firsts has buffers for the beginning of large payloads. Connections share them, because
// most connections are idle.
var (
	frames = sync.Pool{New: func() any { return new([]byte) }}
	firsts = sync.Pool{New: func() any { return new([firstRead]byte) }}
)

func newConn(nc net.Conn, lane byte, limits Limits) *Conn {
	limit := limits.CallBytes
	if lane == LaneRaft {
		limit = limits.RaftBytes
	}
	return &Conn{net: nc, reader: bufio.NewReader(nc), limit: limit, within: limits.Frame, gone: make(chan struct{})}
}

// A host is the part of a Server that an accepted connection needs.
type host struct {
	receipt *receipt
	done    <-chan struct{} // closed when the server closes
	guest   func() bool     // reports whether the caller currently is no known member
	limits  *Limits
}

// Peer returns the identity that the other end gave in the handshake.
func (c *Conn) Peer() Identity { return c.peer }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.net.RemoteAddr() }

// Reused reports whether the connection has carried earlier requests. The other end may have closed it
// since, so a failure proves nothing about the peer's current health.
func (c *Conn) Reused() bool { return c.reused }

// Send writes one frame: a method, and the payload that encode appends to its argument. It blocks while
// the other end does not read. After ErrTooLarge the connection is usable; after any other error the
// caller can only close it.
func (c *Conn) Send(method byte, encode func(b []byte) []byte) error {
	frame := frames.Get().(*[]byte)
	b := append((*frame)[:0], 0, 0, 0, 0, method)
	if encode != nil {
		b = encode(b)
	}
	if cap(b) <= keepFrame {
		defer func() { *frame = b; frames.Put(frame) }()
	}
	size := len(b) - frameHeader
	if size > c.limit {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, c.limit)
	}
	binary.BigEndian.PutUint32(b, uint32(size))
	_, err := c.net.Write(b)
	if err == nil && c.sent != nil {
		c.sent(len(b))
	}
	return c.note(err)
}

// Receive reads one frame. The caller may keep the payload. A large payload counts against the receipt
// until the next Receive. Receive waits for the begin of a frame without limit, and for the rest of it
// for a bounded time. It returns io.EOF if the other end closed the connection between frames.
func (c *Conn) Receive() (method byte, payload []byte, err error) {
	c.settle()
	// A frame that has arrived completely, as most have, needs no timer.
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
	if c.received != nil {
		c.received(frameHeader + len(payload))
	}
	return method, payload, nil
}

// reserve waits until a frame of the given size may be read.
func (c *Conn) reserve(size int64) error {
	if c.host == nil || size <= firstRead {
		return nil
	}
	if !c.host.receipt.take(size, c.within+Transfer(int(size)), c.host.done, c.gone) {
		return fmt.Errorf("%w: no capacity for a frame of %d bytes", ErrBusy, size)
	}
	c.held = size
	return nil
}

// settle releases the reservation of the last frame received.
func (c *Conn) settle() {
	if c.held > 0 {
		c.host.receipt.give(c.held)
		c.held = 0
	}
}

func (c *Conn) boundRead(size int) {
	c.net.SetReadDeadline(time.Now().Add(c.within + Transfer(size)))
}

// Transfer returns the time that a message of the given size may take in addition to all other waiting: a
// second for each MiB.
func Transfer(size int) time.Duration {
	return time.Duration(size) * (time.Second >> 20)
}

// readPayload reads size bytes. Its memory grows with the data that has arrived, not with the announced
// size, but in few steps, because each copies the data.
func readPayload(r io.Reader, size int) ([]byte, error) {
	if size <= firstRead {
		b := make([]byte, size)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	first := firsts.Get().(*[firstRead]byte)
	defer firsts.Put(first)
	if _, err := io.ReadFull(r, first[:]); err != nil {
		return nil, err
	}
	for arrived := first[:]; ; {
		b := make([]byte, min(size, growRead*len(arrived)))
		n := copy(b, arrived)
		if _, err := io.ReadFull(r, b[n:]); err != nil {
			return nil, err
		}
		if len(b) == size {
			return b, nil
		}
		arrived = b
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// note marks the connection as broken if err is not nil.
func (c *Conn) note(err error) error {
	if err != nil {
		c.broken.Store(true)
	}
	return err
}

// Guard ties the connection to ctx: when ctx ends, the connection is closed, and Send and Receive return.
// release unties it. It returns ctx's cause if ctx has closed the connection, otherwise its argument.
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

// Exchange sends a request and receives the reply, which the caller may keep. When ctx ends it returns
// ctx's cause at once, and the connection is broken.
func (c *Conn) Exchange(ctx context.Context, method byte, encode func(b []byte) []byte) (byte, []byte, error) {
	release := c.Guard(ctx)
	status, payload, err := c.RoundTrip(method, encode)
	return status, payload, release(err)
}

// RoundTrip is Exchange without a ctx: it blocks until the reply arrives, or until another goroutine closes the
// connection.
func (c *Conn) RoundTrip(method byte, encode func(b []byte) []byte) (status byte, payload []byte, err error) {
	if err = c.Send(method, encode); err != nil {
		return 0, nil, err
	}
	status, payload, err = c.Receive()
	return status, payload, unexpected(err)
}

// Abandon closes a connection of a Client if its reply is not needed any more. The request was sent at the time asked,
// or later. Unlike Release, it does not take the connection's end for a failure of the peer.
func (c *Conn) Abandon(asked time.Time) {
	c.asked, c.ended = asked, true
	c.broken.Store(true)
	c.Release()
}

// Release returns a connection to its Client for later use. If it is broken, or does not come from
// Client.Open, Release closes it. The caller must have received all replies.
func (c *Conn) Release() {
	if c.home != nil && !c.broken.Load() && c.reader.Buffered() == 0 {
		c.home.put(c)
		return
	}
	c.Close()
	switch {
	case c.home == nil:
	case !c.ended:
		// The peer is gone, and so are its other connections. Later callers should not try them one by
		// one.
		c.home.flush(c.slot)
	case c.home.patience > 0 && time.Since(c.asked) >= c.home.patience:
		// Either the peer is slow, or the connection has died silently, and others with it.
		c.home.distrust(c.slot.peer, c.asked)
	}
}

// Close closes the connection. Send and Receive return.
func (c *Conn) Close() error {
	c.broken.Store(true)
	c.going.Do(func() { close(c.gone) })
	if c.home != nil {
		c.home.forget(c)
	}
	return c.net.Close()
}
