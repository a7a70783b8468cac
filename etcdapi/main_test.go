// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// open opens a single node, for one test.
func open(t testing.TB, change ...func(*coterie.Config)) *coterie.Node {
	t.Helper()
	n := openUnready(t, change...)
	require.NoError(t, n.Ready(t.Context()))
	return n
}

// openUnready opens a node, for one test, which may wait for others.
func openUnready(t testing.TB, change ...func(*coterie.Config)) *coterie.Node {
	t.Helper()
	cfg := coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// serve serves a node over TCP, for one test, and returns the address.
func serve(t testing.TB, n *coterie.Node, opts ...etcdapi.Option) string {
	t.Helper()
	return serveWith(t, etcdapi.Serve, n, opts...)
}

type serveFunc func(context.Context, net.Listener, *coterie.Node, ...etcdapi.Option) error

func serveWith(t testing.TB, serve serveFunc, n *coterie.Node, opts ...etcdapi.Option) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, l, n, opts...) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	return l.Addr().String()
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// clients runs a test with each kind of client of a node.
func clients(t *testing.T, test func(t *testing.T, c *clientv3.Client)) {
	t.Run("in process", func(t *testing.T) {
		c := etcdapi.NewClient(open(t))
		defer c.Close()
		test(t, c)
	})
	t.Run("TCP", func(t *testing.T) {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{serve(t, open(t))}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
		require.NoError(t, err)
		defer c.Close()
		test(t, c)
	})
}

// conns runs a test with each kind of connection to a node.
func conns(t *testing.T, test func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface)) {
	t.Run("in process", func(t *testing.T) {
		n := open(t)
		test(t, n, etcdapi.NewConn(n))
	})
	t.Run("TCP", func(t *testing.T) {
		n := open(t)
		test(t, n, dial(t, serve(t, n)))
	})
}

// serveMetrics serves the metrics of a node on a port of their own, for one test, and returns the address.
func serveMetrics(t testing.TB, n *coterie.Node, opts ...etcdapi.Option) string {
	t.Helper()
	return serveWith(t, etcdapi.ServeMetrics, n, opts...)
}
