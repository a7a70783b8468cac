// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// window is the number of bytes that a connection buffers in one direction before the writer waits.
const window = 256 << 10

// A connection is the two streams between two ends.
type connection struct {
	network *Network
	streams [2]*stream
	open    int         // number of open ends; guarded by network.mu
	silent  atomic.Bool // nothing arrives any more, at either end
}

// connect makes a connection and returns its ends. The caller holds n.mu.
func (n *Network) connect(local, remote address, there, back *link) (dialled, accepted *conn) {
	c := &connection{network: n, open: 2}
	c.streams = [2]*stream{newStream(c, there, back), newStream(c, back, there)}
	for _, s := range c.streams {
		s.link.streams[s] = struct{}{}
	}
	dialled = &conn{connection: c, out: c.streams[0], in: c.streams[1], local: local, remote: remote}
	accepted = &conn{connection: c, out: c.streams[1], in: c.streams[0], local: remote, remote: local}
	return dialled, accepted
}

// reset breaks the connection at both ends at once. Data in flight is lost.
func (c *connection) reset() {
	c.network.mu.Lock()
	c.forget()
	c.network.mu.Unlock()
	for _, s := range c.streams {
		s.change(func() { s.broken, s.segments, s.buffered = true, nil, 0 })
	}
}

// forget removes the connection from its links. The caller holds network.mu.
func (c *connection) forget() {
	for _, s := range c.streams {
		delete(s.link.streams, s)
	}
}

// conn is one end of a connection.
type conn struct {
	connection    *connection
	in, out       *stream
	local, remote address
	closing       sync.Once
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	if err != nil && err != io.EOF {
		err = c.failed("read", err)
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if c.connection.network.strikes(c.out.link) {
		c.connection.reset()
	}
	n, err := c.out.write(p)
	if err != nil {
		err = c.failed("write", err)
	}
	return n, err
}

// Close closes this end. The other end reads the data in flight, then io.EOF.
func (c *conn) Close() error {
	err := c.failed("close", net.ErrClosed)
	c.closing.Do(func() {
		c.out.change(func() { c.out.finish() })
		c.in.change(func() { c.in.abandon() })
		network := c.connection.network
		network.mu.Lock()
		if c.connection.open--; c.connection.open == 0 {
			c.connection.forget()
		}
		network.mu.Unlock()
		err = nil
	})
	return err
}

func (c *conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: networkName, Source: c.local, Addr: c.remote, Err: err}
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	if !c.in.setDeadline(&c.in.readBy, &c.in.abandoned, t) {
		return c.failed("set", net.ErrClosed)
	}
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	if !c.out.setDeadline(&c.out.writeBy, &c.out.finished, t) {
		return c.failed("set", net.ErrClosed)
	}
	return nil
}

// A stream is one direction of a connection. mu guards the fields below it.
type stream struct {
	connection *connection
	link       *link // the link that carries the bytes
	back       *link // the link by which the writer learns that the reader has closed

	mu        sync.Mutex
	changed   sync.Cond
	segments  []segment
	buffered  int
	latest    time.Time // when the last segment arrives: later ones do not overtake it
	finished  bool      // the writer has closed
	abandoned bool      // the reader has closed
	broken    bool
	readBy    deadline
	writeBy   deadline
}

// A segment is the data of one write in flight. A segment without data is the end of the stream.
type segment struct {
	data    []byte
	arrives time.Time
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func newStream(c *connection, way, back *link) *stream {
	s := &stream{connection: c, link: way, back: back}
	s.changed.L = &s.mu
	return s
}

// change runs f with the lock held and wakes all waiting goroutines.
func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.changed.Broadcast()
}

// wake makes all waiting goroutines check again. It takes the lock so that it cannot fall between a check
// and the wait.
func (s *stream) wake() { s.change(func() {}) }

func (s *stream) setDeadline(d *deadline, closed *bool, t time.Time) bool {
	ok := true
	s.change(func() {
		if *closed {
			ok = false
			return
		}
		d.stop()
		d.at = t
		if wait := time.Until(t); !t.IsZero() && wait > 0 {
			d.timer = time.AfterFunc(wait, s.wake)
		}
	})
	return ok
}

func (s *stream) finish() {
	s.writeBy.stop()
	s.finished = true
	if !s.broken && !s.abandoned {
		s.send(nil)
	}
}

func (s *stream) abandon() {
	s.readBy.stop()
	s.abandoned, s.segments, s.buffered = true, nil, 0
}

// send sends data, which it keeps.
func (s *stream) send(data []byte) {
	arrives := time.Now().Add(s.link.delay())
	if arrives.Before(s.latest) {
		arrives = s.latest
	}
	s.latest = arrives
	s.buffered += len(data)
	s.segments = append(s.segments, segment{data, arrives})
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.finished:
			return n, net.ErrClosed
		case s.broken:
			return n, syscall.ECONNRESET
		case s.abandoned && !s.back.blocked.Load() && !s.connection.silent.Load():
			return n, syscall.EPIPE
		case s.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		case n == len(p):
			return n, nil
		}
		room := min(window-s.buffered, len(p)-n)
		if room == 0 {
			s.changed.Wait()
			continue
		}
		s.send(append([]byte(nil), p[n:n+room]...))
		n += room
		s.changed.Broadcast()
	}
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.abandoned:
			return 0, net.ErrClosed
		case s.broken:
			return 0, syscall.ECONNRESET
		case s.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		}
		if len(s.segments) == 0 || s.link.blocked.Load() || s.connection.silent.Load() {
			s.changed.Wait()
			continue
		}
		if wait := time.Until(s.segments[0].arrives); wait > 0 {
			timer := time.AfterFunc(wait, s.wake)
			s.changed.Wait()
			timer.Stop()
			continue
		}
		if s.segments[0].data == nil {
			return 0, io.EOF // it stays: every later read ends here
		}
		return s.take(p), nil
	}
}

// take moves data that has arrived into p, as much as fits.
func (s *stream) take(p []byte) (n int) {
	now := time.Now()
	for n < len(p) && len(s.segments) > 0 {
		head := &s.segments[0]
		if head.data == nil || head.arrives.After(now) {
			break
		}
		moved := copy(p[n:], head.data)
		n += moved
		head.data = head.data[moved:]
		if len(head.data) == 0 {
			s.segments[0] = segment{}
			s.segments = s.segments[1:]
		}
	}
	s.buffered -= n
	s.changed.Broadcast()
	return n
}
