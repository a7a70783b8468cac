// SPDX-License-Identifier: Apache-2.0

package memnet

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pair connects host a to host b.
func pair(t *testing.T, n *Network) (dialled, accepted net.Conn) {
	t.Helper()
	l, err := n.Host("b").Listen(":0")
	require.NoError(t, err)
	defer l.Close()
	dialled, err = n.Host("a").Dial(t.Context(), l.Addr().String())
	require.NoError(t, err)
	accepted, err = l.Accept()
	require.NoError(t, err)
	require.Equal(t, dialled.LocalAddr(), accepted.RemoteAddr())
	require.Equal(t, dialled.RemoteAddr(), accepted.LocalAddr())
	return dialled, accepted
}

func bubble(t *testing.T, f func(t *testing.T, n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, New()) })
}

func read(t *testing.T, c net.Conn, size int) string {
	t.Helper()
	b := make([]byte, size)
	_, err := io.ReadFull(c, b)
	require.NoError(t, err)
	return string(b)
}

func TestDataThenEOF(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		big := bytes.Repeat([]byte("0123456789"), 100_000) // four windows
		go func() {
			a.Write(big)
			a.Close()
		}()
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.True(t, bytes.Equal(big, got))
		_, err = b.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = b.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
		_, err = a.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, a.Close(), net.ErrClosed)
		require.NoError(t, b.Close())
		for _, l := range n.links {
			require.Empty(t, l.streams)
		}
	})
}

func TestWindowBlocksWriter(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		written := make(chan int)
		go func() {
			m, _ := a.Write(make([]byte, window+1))
			written <- m
		}()
		synctest.Wait()
		select {
		case <-written:
			t.Fatal("the writer did not wait")
		default:
		}
		read(t, b, 1)
		require.Equal(t, window+1, <-written)
	})
}

func TestDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		a, _ := pair(t, n)
		start := time.Now()
		require.NoError(t, a.SetDeadline(start.Add(time.Second)))
		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		_, err = a.Write(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())

		require.NoError(t, a.SetDeadline(time.Time{}))
		m, err := a.Write(make([]byte, window))
		require.NoError(t, err)
		require.Equal(t, window, m)
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(time.Second)))
		m, err = a.Write(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Zero(t, m)

		// A deadline in the past ends a wait that has begun.
		go func() {
			time.Sleep(time.Minute)
			a.SetReadDeadline(time.Now())
		}()
		_, err = a.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

func TestCloseEndsWaits(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		failed := make(chan error)
		go func() {
			_, err := a.Read(make([]byte, 1))
			failed <- err
		}()
		go func() {
			_, err := a.Write(make([]byte, window+1))
			failed <- err
		}()
		synctest.Wait()
		require.NoError(t, a.Close())
		require.ErrorIs(t, <-failed, net.ErrClosed)
		require.ErrorIs(t, <-failed, net.ErrClosed)
		b.Close()
	})
}

func TestBlockHoldsBack(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		n.Block("a", "b")
		_, err := a.Write([]byte("held"))
		require.NoError(t, err)
		_, err = b.Write([]byte("free"))
		require.NoError(t, err)
		require.Equal(t, "free", read(t, a, 4), "the block is one way")

		b.SetReadDeadline(time.Now().Add(time.Hour))
		_, err = b.Read(make([]byte, 4))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		b.SetReadDeadline(time.Time{})

		a.Close()
		_, err = b.Write([]byte("unaware"))
		require.NoError(t, err, "the notice that the reader has closed is held back, too")

		start := time.Now()
		time.AfterFunc(time.Minute, n.Heal)
		require.Equal(t, "held", read(t, b, 4))
		require.Equal(t, time.Minute, time.Since(start))
		_, err = b.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = b.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
	})
}

func TestSilenceAffectsCurrentConnections(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		_, err := a.Write([]byte("before"))
		require.NoError(t, err)
		require.Equal(t, "before", read(t, b, 6))
		n.Silence("b", "a")
		n.Heal()
		for _, ends := range [][2]net.Conn{{a, b}, {b, a}} {
			_, err := ends[0].Write([]byte("swallowed"))
			require.NoError(t, err)
			ends[1].SetReadDeadline(time.Now().Add(time.Hour))
			_, err = ends[1].Read(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		a.Close()
		_, err = b.Write([]byte("unaware"))
		require.NoError(t, err)
		c, d := pair(t, n)
		_, err = c.Write([]byte("new"))
		require.NoError(t, err)
		require.Equal(t, "new", read(t, d, 3))
	})
}

func TestDialUnderBlock(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		l, err := n.Host("b").Listen("b:1")
		require.NoError(t, err)
		n.Block("b", "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = n.Host("a").Dial(ctx, "b:1")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		start := time.Now()
		time.AfterFunc(time.Minute, func() { n.Unblock("b", "a") })
		_, err = n.Host("a").Dial(t.Context(), "b:1")
		require.NoError(t, err)
		require.Equal(t, time.Minute, time.Since(start))
		require.NoError(t, l.Close())
	})
}

func TestDelayKeepsOrder(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		start := time.Now()
		n.Delay("a", "b", 30*time.Millisecond)
		a.Write([]byte("1"))
		n.Delay("a", "b", 0)
		a.Write([]byte("2"))
		require.Equal(t, "12", read(t, b, 2))
		require.Equal(t, 30*time.Millisecond, time.Since(start))

		n.Delay("a", "b", 5*time.Millisecond)
		n.Delay("b", "a", 2*time.Millisecond)
		start = time.Now()
		pair(t, n)
		require.Equal(t, 7*time.Millisecond, time.Since(start), "a dial is a round trip")
	})
}

func TestDropBreaksConnections(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		run := func() (survived int) {
			n.Seed(7)
			a, b := pair(t, n)
			n.Drop("a", "b", 0.1)
			defer n.Heal()
			for {
				if _, err := a.Write([]byte("x")); err != nil {
					require.ErrorIs(t, err, syscall.ECONNRESET)
					_, err = b.Write([]byte("x"))
					require.ErrorIs(t, err, syscall.ECONNRESET)
					return survived
				}
				survived++
				read(t, b, 1)
			}
		}
		require.Equal(t, run(), run(), "one seed, one outcome")
	})
}

func TestCutAndRevive(t *testing.T) {
	bubble(t, func(t *testing.T, n *Network) {
		a, b := pair(t, n)
		l, err := n.Host("b").Listen("b:1")
		require.NoError(t, err)
		failed := make(chan error)
		go func() {
			_, err := a.Read(make([]byte, 1))
			failed <- err
		}()
		go func() {
			_, err := l.Accept()
			failed <- err
		}()
		synctest.Wait()
		n.Cut("b")
		require.Error(t, <-failed)
		require.Error(t, <-failed)
		_, err = b.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		_, err = n.Host("a").Dial(t.Context(), "b:1")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		_, err = n.Host("b").Dial(t.Context(), "a:1")
		require.ErrorIs(t, err, errHostDown)
		_, err = n.Host("b").Listen("b:1")
		require.ErrorIs(t, err, errHostDown)

		n.Revive("b")
		_, err = n.Host("b").Listen("b:1")
		require.NoError(t, err)
		_, err = n.Host("a").Dial(t.Context(), "b:1")
		require.NoError(t, err)
	})
}

func TestAddresses(t *testing.T) {
	n := New()
	tests := []struct {
		host, addr string
		ok         bool
	}{
		{"", "n1:1", true}, {"", "n1:1", false}, {"", ":0", true}, {"", "", true}, {"", ":7", true},
		{"n2", "n2:1", true}, {"n2", "0.0.0.0:2", true}, {"n2", "n3:1", false}, {"n2", "n2:70000", false},
		{"n2", "nonsense", false},
	}
	for _, test := range tests {
		listen := n.Listen
		if test.host != "" {
			listen = n.Host(test.host).Listen
		}
		l, err := listen(test.addr)
		require.Equal(t, test.ok, err == nil, "%s on %q: %v", test.addr, test.host, err)
		if err == nil {
			c, err := n.Dial(t.Context(), l.Addr().String())
			require.NoError(t, err)
			c.Close()
		}
	}
	for range 2 * ports {
		n.ephemeral("n1")
	}
	l, err := n.Listen("n1:0")
	require.NoError(t, err)
	_, err = n.Dial(t.Context(), l.Addr().String())
	require.NoError(t, err, "dialing works after any number of connections")
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Close(), net.ErrClosed)
	_, err = n.Dial(t.Context(), l.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}
