// SPDX-License-Identifier: Apache-2.0

package usercode_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/usercode"
)

// A network is that of a user.
type network struct {
	dial   func(ctx context.Context) (net.Conn, error)
	listen func() (net.Listener, error)
}

func (n network) Dial(ctx context.Context, _ string) (net.Conn, error) { return n.dial(ctx) }

func (n network) Listen(string) (net.Listener, error) { return n.listen() }

// badConn and badListener panic in every method that a node calls.
type (
	badConn     struct{ net.Conn }
	badListener struct{ net.Listener }
)

func (badConn) Read([]byte) (int, error)         { panic("read") }
func (badConn) Write([]byte) (int, error)        { panic("write") }
func (badConn) Close() error                     { panic("close") }
func (badConn) SetDeadline(time.Time) error      { panic("deadline") }
func (badConn) SetReadDeadline(time.Time) error  { panic("read deadline") }
func (badConn) SetWriteDeadline(time.Time) error { panic("write deadline") }

func (badListener) Accept() (net.Conn, error) { panic("accept") }
func (badListener) Close() error              { panic("close") }

// conns is a listener with one connection.
type conns struct {
	net.Listener
	nc  net.Conn
	err error
}

func (c conns) Accept() (net.Conn, error) { return c.nc, c.err }

func TestPanicsOfANetworkAreErrors(t *testing.T) {
	const panicked = "coterie: Config.Network has panicked: "
	n := usercode.Network(network{
		func(context.Context) (net.Conn, error) { panic("dial") },
		func() (net.Listener, error) { panic("listen") },
	})
	_, err := n.Dial(t.Context(), "a:1")
	require.EqualError(t, err, panicked+"dial")
	_, err = n.Listen("a:1")
	require.EqualError(t, err, panicked+"listen")

	n = usercode.Network(network{
		func(context.Context) (net.Conn, error) { return badConn{}, nil },
		func() (net.Listener, error) { return badListener{}, nil },
	})
	l, err := n.Listen("a:1")
	require.NoError(t, err)
	_, err = l.Accept()
	require.EqualError(t, err, panicked+"accept")
	require.EqualError(t, l.Close(), panicked+"close")

	dialed, err := n.Dial(t.Context(), "a:1")
	require.NoError(t, err)
	l, err = usercode.Network(network{nil, func() (net.Listener, error) { return conns{nc: badConn{}}, nil }}).Listen("a:1")
	require.NoError(t, err)
	accepted, err := l.Accept()
	require.NoError(t, err)
	for _, nc := range []net.Conn{dialed, accepted} {
		_, err = nc.Read(nil)
		require.EqualError(t, err, panicked+"read")
		_, err = nc.Write(nil)
		require.EqualError(t, err, panicked+"write")
		require.EqualError(t, nc.SetDeadline(time.Now()), panicked+"deadline")
		require.EqualError(t, nc.SetReadDeadline(time.Now()), panicked+"read deadline")
		require.EqualError(t, nc.SetWriteDeadline(time.Now()), panicked+"write deadline")
		require.EqualError(t, nc.Close(), panicked+"close")
	}
}

func TestErrorsOfANetworkArePassedOn(t *testing.T) {
	failed := errors.New("failed")
	n := usercode.Network(network{
		func(context.Context) (net.Conn, error) { return nil, failed },
		func() (net.Listener, error) { return nil, failed },
	})
	nc, err := n.Dial(t.Context(), "a:1")
	require.ErrorIs(t, err, failed)
	require.Nil(t, nc)
	l, err := n.Listen("a:1")
	require.ErrorIs(t, err, failed)
	require.Nil(t, l)
	l, err = usercode.Network(network{nil, func() (net.Listener, error) { return conns{err: failed}, nil }}).Listen("a:1")
	require.NoError(t, err)
	nc, err = l.Accept()
	require.ErrorIs(t, err, failed)
	require.Nil(t, nc)
}

func TestLateConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		n := usercode.Network(network{dial: func(context.Context) (net.Conn, error) {
			time.Sleep(time.Minute) // it ignores its context
			return here, nil
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := n.Dial(ctx, "a:1")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))
		_, err = there.Read(make([]byte, 1))
		require.Error(t, err, "the other end learns that the connection is closed")
		require.Equal(t, time.Minute, time.Since(begin))
	})
}
