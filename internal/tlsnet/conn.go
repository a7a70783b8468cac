// SPDX-License-Identifier: Apache-2.0

package tlsnet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/usercode"
)

// A conn is a connection with TLS. If there is no TLS, its errors say why. Its handshake ends with its deadline, or
// with Close, even if a function of Config.TLS blocks in it.
//
// Read, Write, SetDeadline and Close may be called concurrently; nothing here needs a lock.
type conn struct {
	*tls.Conn
	raw       net.Conn
	accepted  bool
	heard     atomic.Bool // data has arrived, so the two agree
	callbacks *usercode.Calls

	open      context.Context // ends with Close
	end       context.CancelCauseFunc
	deadline  atomic.Pointer[time.Time] // of both directions
	once      sync.Once
	handshake error // its result, after once
}

func (n *Network) conn(c *tls.Conn, raw net.Conn, accepted bool) *conn {
	tc := &conn{Conn: c, raw: raw, accepted: accepted, callbacks: n.callbacks}
	tc.open, tc.end = context.WithCancelCause(context.Background())
	return tc
}

func (c *conn) SetDeadline(t time.Time) error {
	c.deadline.Store(&t)
	return c.Conn.SetDeadline(t)
}

// shake does the handshake, once, on a goroutine of its own.
func (c *conn) shake() error {
	c.once.Do(func() {
		ctx := c.open
		if d := c.deadline.Load(); d != nil && !d.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, *d, os.ErrDeadlineExceeded)
			defer cancel()
		}
		c.handshake = c.callbacks.Do(ctx, c.Conn.Handshake)
	})
	return c.handshake
}

func (c *conn) Read(p []byte) (n int, err error) {
	if err = c.shake(); err == nil {
		n, err = c.Conn.Read(p)
	}
	if c.heard.Load() {
		return n, err
	}
	if n > 0 {
		c.heard.Store(true)
	} else if err != nil {
		err = c.explain(err)
	}
	return n, err
}

// Write sends p. The dialling side of TLS 1.3 completes the handshake before the other side has seen its
// certificate. If the other side has refused it since and closed the connection, Write reads the reason.
func (c *conn) Write(p []byte) (n int, err error) {
	if err = c.shake(); err == nil {
		n, err = c.Conn.Write(p)
	}
	if err != nil && !c.accepted && !c.heard.Load() {
		if _, reason := c.Read(make([]byte, 1)); errors.Is(reason, rpc.ErrTLS) {
			err = reason
		}
	}
	return n, err
}

// Close breaks the connection. TLS would send an alert first, and wait for a peer that does not read. Nothing
// needs the alert: frames have lengths, and the end of a connection between two frames has no meaning.
func (c *conn) Close() error {
	c.end(net.ErrClosed)
	return c.raw.Close()
}

// explain returns why the two sides do not agree. If the other side cannot know it, explain sends the reason. An
// error of the network is returned unchanged.
func (c *conn) explain(err error) error {
	var record tls.RecordHeaderError
	if errors.As(err, &record) && rpc.InTheClear(record.RecordHeader[:]) {
		if !c.accepted {
			return fmt.Errorf("%w: this node has TLS, the other none", rpc.ErrTLS)
		}
		c.raw.Write(rpc.RefuseTLS(nil))
		c.linger()
		return fmt.Errorf("%w: the caller has no TLS, this node has", rpc.ErrTLS)
	}
	if broken(err) {
		return err
	}
	if c.accepted {
		c.linger()
	}
	return fmt.Errorf("%w: %w", rpc.ErrTLS, err)
}

// broken reports whether a connection failed beneath TLS.
func broken(err error) bool {
	for _, kind := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, os.ErrDeadlineExceeded} {
		if errors.Is(err, kind) {
			return true
		}
	}
	// Package tls gives its alerts the same form.
	var op *net.OpError
	return errors.As(err, &op) && op.Op != "remote error" && op.Op != "local error"
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// linger waits, but not for long, until the other end has closed the connection. A TCP connection that is closed
// with unread data is reset, and the other end may lose the last message.
func (c *conn) linger() {
	c.raw.SetDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c.raw, lingerBytes)
}
