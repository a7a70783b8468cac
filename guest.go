// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// Guests are calls of the user's code, each on a goroutine of its own, so that one that blocks keeps its
// caller waiting no longer than a context lasts. Those that were left behind are bounded.
type guests struct {
	name string // of the code, for errors
	left atomic.Int64
}

// maxLeft is how many calls may be left behind before further ones fail at once.
const maxLeft = 64

// call runs fn, and returns its error, or ctx's cause as soon as that ends: fn then goes on alone, and must
// take its result back. A panic of fn is an error.
func (g *guests) call(ctx context.Context, fn func() error) error {
	if left := g.left.Load(); left >= maxLeft {
		return fmt.Errorf("coterie: %s: %d earlier calls have not returned", g.name, left)
	}
	var over atomic.Bool // fn has returned, or its caller has left
	result := make(chan error, 1)
	go func() {
		err := errors.New("coterie: " + g.name + " has ended its goroutine")
		defer func() {
			if !over.CompareAndSwap(false, true) {
				g.left.Add(-1)
			}
			result <- err
		}()
		err = g.guard(fn)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		if over.CompareAndSwap(false, true) {
			g.left.Add(1)
		}
		return context.Cause(ctx)
	}
}

// guard runs fn, and makes an error of its panic.
func (g *guests) guard(fn func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("coterie: %s has panicked: %v", g.name, cause)
		}
	}()
	return fn()
}

// A guardedNetwork is Config.Network as the node uses it: a Dial that ignores its context keeps nobody
// waiting, and a panic fails a connection and not the program.
type guardedNetwork struct {
	inner Network
	*guests
}

func newGuardedNetwork(inner Network) guardedNetwork {
	return guardedNetwork{inner, &guests{name: "Config.Network"}}
}

func (n guardedNetwork) Listen(addr string) (net.Listener, error) {
	var l net.Listener
	err := n.guard(func() (err error) { l, err = n.inner.Listen(addr); return err })
	if err != nil {
		return nil, err
	}
	return guardedListener{l, n.guests}, nil
}

func (n guardedNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	made := make(chan net.Conn, 1)
	discard := func() {
		select {
		case nc := <-made:
			nc.Close()
		default:
		}
	}
	err := n.call(ctx, func() error {
		nc, err := n.inner.Dial(ctx, addr)
		if err != nil {
			return err
		}
		made <- &guardedConn{nc, n.guests}
		if ctx.Err() != nil {
			discard() // unless Dial still takes it
		}
		return nil
	})
	if err != nil {
		discard()
		return nil, err
	}
	select {
	case nc := <-made:
		return nc, nil
	default:
		return nil, context.Cause(ctx)
	}
}

type guardedListener struct {
	net.Listener
	*guests
}

func (l guardedListener) Accept() (net.Conn, error) {
	var nc net.Conn
	err := l.guard(func() (err error) { nc, err = l.Listener.Accept(); return err })
	if err != nil {
		return nil, err
	}
	return &guardedConn{nc, l.guests}, nil
}

func (l guardedListener) Close() error { return l.guard(l.Listener.Close) }

type guardedConn struct {
	net.Conn
	*guests
}

func (c *guardedConn) Read(p []byte) (n int, err error) {
	err = c.guard(func() (err error) { n, err = c.Conn.Read(p); return err })
	return n, err
}

func (c *guardedConn) Write(p []byte) (n int, err error) {
	err = c.guard(func() (err error) { n, err = c.Conn.Write(p); return err })
	return n, err
}

func (c *guardedConn) Close() error { return c.guard(c.Conn.Close) }

func (c *guardedConn) SetDeadline(t time.Time) error {
	return c.guard(func() error { return c.Conn.SetDeadline(t) })
}

func (c *guardedConn) SetReadDeadline(t time.Time) error {
	return c.guard(func() error { return c.Conn.SetReadDeadline(t) })
}

func (c *guardedConn) SetWriteDeadline(t time.Time) error {
	return c.guard(func() error { return c.Conn.SetWriteDeadline(t) })
}
