// SPDX-License-Identifier: Apache-2.0

package grpcresolver_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/grpcresolver"
	"github.com/coterie-kv/coterie/registry"
)

const (
	service    = "services/orders"
	target     = "coterie:///" + service
	roundRobin = `{"loadBalancingConfig": [{"round_robin": {}}]}`
)

// balanced is a service config of NewBalancer's.
func balanced(config string) string {
	return `{"loadBalancingConfig": [{"coterie": ` + config + `}]}`
}

// A town has servers that are reached by their addresses, within a bubble.
type town struct {
	mu     sync.Mutex
	houses map[string]*bufconn.Listener
	dialed map[string]int
}

func newTown() *town {
	return &town{houses: map[string]*bufconn.Listener{}, dialed: map[string]int{}}
}

func (w *town) dial(ctx context.Context, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed[addr]++
	l := w.houses[addr]
	w.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("nobody at %s", addr)
	}
	return l.DialContext(ctx)
}

// dials returns how often an address was dialed.
func (w *town) dials(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialed[addr]
}

// serve starts a server that answers every call with its ID, after work is over. Its health is the
// test's to change.
func (w *town) serve(t *testing.T, id string, work func(context.Context)) (*grpc.Server, *health.Server) {
	t.Helper()
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		work(stream.Context())
		return stream.SendMsg(wrapperspb.String(id))
	}))
	h := health.NewServer()
	grpc_health_v1.RegisterHealthServer(s, h)
	l := bufconn.Listen(1 << 16)
	w.mu.Lock()
	w.houses[id+":80"] = l
	w.mu.Unlock()
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { w.kill(id, s) })
	return s, h
}

// serveAll starts servers with nothing to do.
func (w *town) serveAll(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		w.serve(t, id, func(context.Context) {})
	}
}

// kill stops a server at once: its connections break, and no new ones are taken.
func (w *town) kill(id string, s *grpc.Server) {
	w.mu.Lock()
	delete(w.houses, id+":80")
	w.mu.Unlock()
	s.Stop()
}

// client returns a client of a service that a node knows.
func (w *town) client(t *testing.T, n *coterie.Node, target, config string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append([]grpc.DialOption{
		grpc.WithResolvers(grpcresolver.New(n)), grpc.WithDefaultServiceConfig(config),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(w.dial),
	}, opts...)
	conn, err := grpc.NewClient(target, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func instance(id string) registry.Instance { return registry.Instance{ID: id, Addr: id + ":80"} }

func register(t *testing.T, n *coterie.Node, i registry.Instance, opts ...registry.RegisterOption) *registry.Registration {
	t.Helper()
	r, err := registry.Register(t.Context(), n, service, i, opts...)
	require.NoError(t, err)
	return r
}

// call asks an instance who it is. A call without an answer ends after a minute.
func call(t *testing.T, conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var who wrapperspb.StringValue
	err := conn.Invoke(ctx, "/orders.Orders/Who", &emptypb.Empty{}, &who, opts...)
	return who.Value, err
}

// calls calls many times, none of which may fail, and tells how often each instance answered.
func calls(t *testing.T, conn *grpc.ClientConn, times int) map[string]int {
	t.Helper()
	answered := map[string]int{}
	for range times {
		who, err := call(t, conn)
		require.NoError(t, err)
		answered[who]++
	}
	return answered
}

// connect has a client connect, and waits until all that it can do at once is done.
func connect(conn *grpc.ClientConn) {
	conn.Connect()
	synctest.Wait()
}
