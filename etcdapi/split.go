// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A splitter accepts the connections of one listener, and gives each to gRPC or to HTTP by its first bytes. It knows all
// connections that are open, so that it can bound their number.
type splitter struct {
	net.Listener
	http    *accepted
	grpc    *accepted // nil: every connection is HTTP's; set before run
	limit   int
	tls     *tls.Config // nil: the connections have no TLS
	counted *traffic

	mu     sync.Mutex // guards the fields below
	closed bool
	open   map[*conn]struct{}

	deciding sync.WaitGroup // connections that have not sent enough to know
}

// traffic counts the bytes of connections.
type traffic struct{ received, sent atomic.Int64 }

func newSplitter(l net.Listener, limit int, cfg *tls.Config, counted *traffic) *splitter {
	stopped := make(chan struct{})
	stop := sync.OnceFunc(func() { close(stopped) })
	return &splitter{
		Listener: l, http: &accepted{addr: l.Addr(), conns: make(chan net.Conn), stopped: stopped, stop: stop},
		limit: limit, tls: cfg, counted: counted, open: map[*conn]struct{}{},
	}
}

// part returns a listener for another server, which ends together with that of HTTP.
func (s *splitter) part() *accepted {
	part := *s.http
	part.conns = make(chan net.Conn)
	return &part
}

// run accepts connections until the listener is closed. It returns nil after Close.
func (s *splitter) run() error {
	defer s.deciding.Wait()
	defer s.http.stop()
	var pause time.Duration
	for {
		nc, err := s.Accept()
		switch {
		case err == nil:
		case passes(err):
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			time.Sleep(pause)
			continue
		case s.isClosed():
			return nil
		default:
			return err
		}
		pause = 0
		c := &conn{Conn: nc, in: s}
		if !s.add(c) {
			nc.Close()
			continue
		}
		s.deciding.Go(func() { s.decide(c) })
	}
}

// passes reports whether an error of Accept is temporary: the process has no file descriptor left, or the client has
// gone.
func passes(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// decide gives a connection to gRPC or HTTP.
func (s *splitter) decide(c *conn) {
	_ = c.SetDeadline(time.Now().Add(headerTimeout)) // if this fails, so does the read
	var nc net.Conn = c
	var isGRPC bool
	var err error
	if s.tls != nil {
		nc, isGRPC, err = s.shake(c)
	} else {
		isGRPC, err = c.beginsWithHTTP2()
	}
	if err != nil {
		c.linger()
		c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	to := s.http
	if isGRPC && s.grpc != nil {
		to = s.grpc
	}
	if !to.give(nc) {
		nc.Close()
	}
}

// shake does the handshake of TLS. A client that offers HTTP/2 alone speaks gRPC. One that offers HTTP/1.1, too, may
// speak either over HTTP/2, and gets the server that understands both.
func (s *splitter) shake(c *conn) (_ *tls.Conn, isGRPC bool, err error) {
	both := false
	tc := tls.Server(c, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (one *tls.Config, err error) {
		one, both, err = secure(s.tls, hello)
		return one, err
	}})
	err = tc.Handshake()
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader[:]) {
		_, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	return tc, tc.ConnectionState().NegotiatedProtocol == "h2" && !both, err
}

// looksLikeHTTP reports whether a client without TLS has sent a request of HTTP/1.1.
func looksLikeHTTP(head []byte) bool {
	return slices.Contains([]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"}, string(head))
}

// add adds a connection, unless there are too many.
func (s *splitter) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= s.limit {
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *splitter) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *splitter) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close closes the listener, so that run returns. The connections stay open.
func (s *splitter) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	_ = s.Listener.Close() // no caller can handle its error
	s.http.stop()
}

// closeConnections closes every connection that is still open, after Close.
func (s *splitter) closeConnections() {
	s.mu.Lock()
	open := s.open
	s.open = map[*conn]struct{}{}
	s.mu.Unlock()
	for c := range open {
		_ = c.Conn.Close()
	}
}

// An accepted is the listener of one server. It accepts the connections that the splitter gives to this server.
type accepted struct {
	addr    net.Addr
	conns   chan net.Conn
	stopped chan struct{}
	stop    func() // closes stopped, for both servers
}

func (a *accepted) give(c net.Conn) bool {
	select {
	case a.conns <- c:
		return true
	case <-a.stopped:
		return false
	}
}

func (a *accepted) Accept() (net.Conn, error) {
	select {
	case c := <-a.conns:
		return c, nil
	case <-a.stopped:
		return nil, net.ErrClosed
	}
}

// Close ends the accepting of both servers.
func (a *accepted) Close() error {
	a.stop()
	return nil
}

func (a *accepted) Addr() net.Addr { return a.addr }

// A conn is a connection of a splitter. One goroutine at a time reads it.
type conn struct {
	net.Conn
	in   *splitter
	head []byte // read ahead
}

// preface is how a connection of HTTP/2 begins. No request of HTTP/1.1 begins with these bytes.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// beginsWithHTTP2 reports whether the connection begins with the preface. It reads ahead until it knows.
func (c *conn) beginsWithHTTP2() (bool, error) {
	head := make([]byte, 0, len(preface))
	for len(head) < len(preface) && strings.HasPrefix(preface, string(head)) {
		n, err := c.Conn.Read(head[len(head):cap(head)])
		if err != nil {
			return false, err
		}
		head = head[:len(head)+n]
	}
	c.head = head
	return string(head) == preface, nil
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	n, err := deepRead(c.Conn, p, false)
	c.in.counted.received.Add(int64(n))
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.in.counted.sent.Add(int64(n))
	return n, err
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// linger waits for a short time until the client has closed the connection. A TCP connection that is closed with unread
// data is reset, and the client may lose the reason.
func (c *conn) linger() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the read fails, too, if this does
	}
	_ = c.SetDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
}

func (c *conn) Close() error {
	c.in.remove(c)
	return c.Conn.Close()
}
