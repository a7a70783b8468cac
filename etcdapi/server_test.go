// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie/etcdapi"
)

// listen serves a gRPC server over TCP, for one test, and returns the address.
func listen(t testing.TB, g *grpc.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		require.NoError(t, <-served)
	})
	return l.Addr().String()
}

// A server with a health service of its own keeps it.
func TestRegisterBesideOtherServices(t *testing.T) {
	n := open(t)
	own := health.NewServer()
	own.SetServingStatus("orders", healthpb.HealthCheckResponse_SERVING)
	g := grpc.NewServer(etcdapi.ServerOptions(n)...)
	healthpb.RegisterHealthServer(g, own)
	etcdapi.Register(g, n)
	conn := dial(t, listen(t, g))
	r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "orders"})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, r.Status)
	_, err = pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1<<20)})
	require.NoError(t, err)
}

func TestServeEndsWithItsContext(t *testing.T) {
	n := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- etcdapi.Serve(ctx, l, n) }()
	s := openWatchStream(t, dial(t, l.Addr().String()))
	s.request(&pb.WatchCreateRequest{Key: []byte("k")})
	cancel()
	require.NoError(t, <-served)
	_, err = s.Recv()
	require.Error(t, err)
	put(t, n, "k", "v")
}

func TestServeEndsWithTheNode(t *testing.T) {
	n := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- etcdapi.Serve(t.Context(), l, n) }()
	s := openWatchStream(t, dial(t, l.Addr().String()))
	s.request(&pb.WatchCreateRequest{Key: []byte("k")})
	require.NoError(t, n.Close())
	require.NoError(t, <-served)
	_, err = s.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorIs(t, l.Close(), net.ErrClosed, "Serve has closed it")
}

func TestServeFailsWithItsListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.ErrorIs(t, etcdapi.Serve(t.Context(), l, open(t)), net.ErrClosed)
}
