// SPDX-License-Identifier: Apache-2.0

package usercode

import (
	"context"
	"net"
	"time"

	"github.com/coterie-kv/coterie/internal/rpc"
)

// A network is Config.Network as the node uses it. A Dial that ignores its context delays nobody, and a panic
// fails one connection and not the program.
type network struct {
	inner rpc.Network
	*Calls
}

// Network returns inner with the calls to it guarded. Errors name it as Config.Network.
func Network(inner rpc.Network) rpc.Network { return network{inner, &Calls{Name: "Config.Network"}} }

func (n network) Listen(addr string) (net.Listener, error) {
	var l net.Listener
	err := n.Guard(func() (err error) { l, err = n.inner.Listen(addr); return err })
	if err != nil {
		return nil, err
	}
	return listener{l, n.Calls}, nil
}

func (n network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	made := make(chan net.Conn, 1)
	discard := func() {
		select {
		case nc := <-made:
			nc.Close()
		default:
		}
	}
	err := n.Do(ctx, func() error {
		nc, err := n.inner.Dial(ctx, addr)
		if err != nil {
			return err
		}
		made <- &conn{nc, n.Calls}
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

type listener struct {
	net.Listener
	calls *Calls
}

func (l listener) Accept() (net.Conn, error) {
	var nc net.Conn
	err := l.calls.Guard(func() (err error) { nc, err = l.Listener.Accept(); return err })
	if err != nil {
		return nil, err
	}
	return &conn{nc, l.calls}, nil
}

func (l listener) Close() error { return l.calls.Guard(l.Listener.Close) }

type conn struct {
	net.Conn
	calls *Calls
}

func (c *conn) Read(p []byte) (n int, err error) {
	err = c.calls.Guard(func() (err error) { n, err = c.Conn.Read(p); return err })
	return n, err
}

func (c *conn) Write(p []byte) (n int, err error) {
	err = c.calls.Guard(func() (err error) { n, err = c.Conn.Write(p); return err })
	return n, err
}

func (c *conn) Close() error { return c.calls.Guard(c.Conn.Close) }

func (c *conn) SetDeadline(t time.Time) error {
	return c.calls.Guard(func() error { return c.Conn.SetDeadline(t) })
}

func (c *conn) SetReadDeadline(t time.Time) error {
	return c.calls.Guard(func() error { return c.Conn.SetReadDeadline(t) })
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.calls.Guard(func() error { return c.Conn.SetWriteDeadline(t) })
}
