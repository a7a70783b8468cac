// SPDX-License-Identifier: Apache-2.0

// The race detector allocates memory of its own, and drops values of sync.Pools.
//go:build !race

package rpc

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// loopback is TCP on this machine.
type loopback struct{ net.Dialer }

func (loopback) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (l loopback) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return l.DialContext(ctx, "tcp", addr)
}

// caller returns a function that calls another node over TCP with a request of the given size.
func caller(t testing.TB, size int) (call func()) {
	t.Helper()
	l, err := loopback{}.Listen("127.0.0.1:0")
	require.NoError(t, err)
	s := Serve(l, ServerConfig{Party: Always(serverID), Call: func(context.Context, Identity, byte, []byte) ([]byte, error) {
		return []byte("done"), nil
	}})
	c := NewClient(loopback{}, Always(clientID))
	t.Cleanup(func() { c.Close(); s.Close() })
	peer, req := Peer{serverID.Member, l.Addr().String()}, make([]byte, size)
	return func() {
		if _, err := c.Call(t.Context(), peer, 1, req); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkCall calls another node over TCP, both ends included.
func BenchmarkCall(b *testing.B) {
	for _, size := range []int{300, 300 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			call := caller(b, size)
			call()
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				call()
			}
		})
	}
}

func TestCallNeedsFewAllocations(t *testing.T) {
	call := caller(t, 300)
	call()
	// A request, a reply, the caller's turn, and the function that closes the connection if ctx ends.
	require.LessOrEqual(t, testing.AllocsPerRun(500, call), 9.0)
}
