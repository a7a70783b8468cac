// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	stdbytes "bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// message returns a message of gRPC.
func message(size int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(size))
	return append(b, make([]byte, size)...)
}

// A wire is the bytes that a client sends, made by a framer.
type wire struct {
	stdbytes.Buffer
	*http2.Framer
}

func newWire() *wire {
	w := &wire{}
	w.Framer = http2.NewFramer(&w.Buffer, nil)
	return w
}

func (w *wire) headers(stream uint32, end bool) {
	var block stdbytes.Buffer
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":path", Value: "/etcdserverpb.KV/Put"})
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
}

// script sends a connection of a client in pieces of random sizes, and answers of the server.
func script(t *testing.T, in *receipt, client, server func(w *wire)) *meteredConn {
	t.Helper()
	c := in.meter(discardConn{})
	w := newWire()
	w.WriteString(http2.ClientPreface)
	client(w)
	for b := w.Bytes(); len(b) > 0; {
		n := min(1+rand.IntN(40), len(b))
		c.requests.follow(b[:n], (*received)(c))
		b = b[n:]
	}
	if server != nil {
		w = newWire()
		server(w)
		_, err := c.Write(w.Bytes())
		require.NoError(t, err)
	}
	return c
}

// A discardConn is a connection that accepts and discards everything.
type discardConn struct{ net.Conn }

func (discardConn) Write(p []byte) (int, error) { return len(p), nil }
func (discardConn) Close() error                { return nil }

func TestReceiptCountsRequests(t *testing.T) {
	none := func(*wire) {}
	for name, c := range map[string]struct {
		client, server func(w *wire)
		want           int64
	}{
		"nothing":             {none, none, 0},
		"a stream":            {func(w *wire) { w.headers(1, false) }, none, streamCost},
		"its end alone":       {func(w *wire) { w.headers(1, true) }, none, streamCost},
		"a part of a message": {func(w *wire) { w.headers(1, false); _ = w.WriteData(1, false, message(1000)[:700]) }, none, streamCost + 695},
		"a part of a head":    {func(w *wire) { w.headers(1, false); _ = w.WriteData(1, false, message(1000)[:3]) }, none, streamCost},
		"an unanswered call":  {func(w *wire) { w.headers(1, false); _ = w.WriteData(1, true, message(1000)) }, none, streamCost + 1000},
		"an answered call": {
			func(w *wire) { w.headers(1, false); _ = w.WriteData(1, true, message(1000)) },
			func(w *wire) { w.headers(1, false); _ = w.WriteData(1, false, message(10)); w.headers(1, true) }, 0,
		},
		"a call that the client cancels": {
			func(w *wire) {
				w.headers(1, false)
				_ = w.WriteData(1, false, message(1000)[:500])
				_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
			}, none, 0,
		},
		"a call that the server rejects": {
			func(w *wire) { w.headers(1, false); _ = w.WriteData(1, false, message(1000)[:500]) },
			func(w *wire) { _ = w.WriteRSTStream(1, http2.ErrCodeNo) }, 0,
		},
		"a stream of messages counts its newest": {
			func(w *wire) {
				w.headers(1, false)
				_ = w.WriteData(1, false, append(message(1000), message(20)...))
				_ = w.WriteData(1, false, message(30)[:15])
				_ = w.WriteData(1, false, message(30)[15:])
			}, none, streamCost + 30,
		},
		"padding is no message": {
			func(w *wire) {
				w.headers(1, false)
				_ = w.WriteDataPadded(1, false, message(1000)[:500], make([]byte, 200))
				_ = w.WriteDataPadded(1, false, message(1000)[500:900], make([]byte, 255))
			}, none, streamCost + 895,
		},
		"other frames": {
			func(w *wire) {
				_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
				_ = w.WritePing(false, [8]byte{1, 2, 3})
				_ = w.WriteWindowUpdate(0, 1<<20)
				_ = w.WriteData(7, false, message(1000)) // of a stream that is not open
			},
			func(w *wire) { _ = w.WriteSettingsAck(); _ = w.WriteGoAway(1, http2.ErrCodeNo, []byte("text")) }, 0,
		},
		"two streams": {
			func(w *wire) {
				w.headers(1, false)
				w.headers(3, false)
				_ = w.WriteData(3, false, message(100)[:60])
				_ = w.WriteData(1, false, message(200)[:70])
				_ = w.WriteData(3, true, message(100)[60:])
			},
			func(w *wire) { w.headers(3, true) }, streamCost + 65,
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := newReceipt(1 << 20)
			conn := script(t, in, c.client, c.server)
			require.Equal(t, c.want, conn.holds())
			require.Equal(t, c.want, in.held.Load())
			require.NoError(t, conn.Close())
			require.Zero(t, in.held.Load())
			require.Empty(t, in.conns)
		})
	}
}

// Beyond the limit, the connection with the most bytes is closed, even if another one received last.
func TestReceiptClosesTheLargest(t *testing.T) {
	in := newReceipt(200_000)
	part := func(size int) func(w *wire) {
		return func(w *wire) {
			w.headers(1, false)
			for b := message(200_000)[:size]; len(b) > 0; b = b[min(len(b), 10_000):] {
				_ = w.WriteData(1, false, b[:min(len(b), 10_000)])
			}
		}
	}
	small, large := script(t, in, part(5), nil), script(t, in, part(100_000), nil)
	require.False(t, large.gone)
	w := newWire()
	for stream := uint32(3); stream < 15; stream += 2 {
		w.headers(stream, false)
	}
	small.requests.follow(w.Bytes(), (*received)(small))
	require.True(t, large.gone)
	require.False(t, small.gone)
	require.Equal(t, int64(7*streamCost), in.held.Load())
}

// BenchmarkReceipt shows the cost of counting one call.
func BenchmarkReceipt(b *testing.B) {
	c := newReceipt(1 << 30).meter(discardConn{})
	c.requests.skip = 0
	request, answer := newWire(), newWire()
	request.headers(1, false)
	_ = request.WriteData(1, true, message(200))
	answer.headers(1, false)
	_ = answer.WriteData(1, false, message(50))
	answer.headers(1, true)
	b.ReportAllocs()
	for b.Loop() {
		c.requests.follow(request.Bytes(), (*received)(c))
		c.answers.follow(answer.Bytes(), (*answered)(c))
	}
}
