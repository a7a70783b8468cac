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

// window is how many bytes a connection holds in one direction before its writer waits.
const window = 256 << 10

// A connection is the two streams between two ends.
type connection struct {
	network *Network
	streams [2]*stream
	open    int         // ends that are not closed; guarded by network.mu
	silent  atomic.Bool // nothing arrives any more, at either end
}

// connect makes a connection and returns its ends. It is called with n.mu held.
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

// reset breaks the connection for both ends at once; what was in flight is lost.
func (c *connection) reset() {
	c.network.mu.Lock()
	c.forget()
	c.network.mu.Unlock()
	for _, s := range c.streams {
		s.change(func() { s.broken, s.segments, s.buffered = true, nil, 0 })
	}
}

// forget takes the connection out of its links. It is called with network.mu held.
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

// Close ends this end. The other one reads what is in flight, then io.EOF.
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

// A stream is one direction of a connection.
type stream struct {
	connection *connection
	link       *link // the way that the bytes take
	back       *link // the way by which the writer learns that the reader is gone

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

// A segment is what one write put on the way. One without data is the end of the stream.
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

// change runs f under the lock and wakes everyone who waits.
func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.changed.Broadcast()
}

// wake makes everyone who waits look again. It takes the lock, without which it could fall between
// a waiter's look and its wait.
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

// send puts data, which it keeps, on the way.
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

// take moves what has arrived, as much as fits, into p.
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
