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

// balancerConfig returns a service config for NewBalancer's policy.
func balancerConfig(config string) string {
	return `{"loadBalancingConfig": [{"coterie": ` + config + `}]}`
}

// A network connects clients to servers by address, in memory.
type network struct {
	mu      sync.Mutex
	servers map[string]*bufconn.Listener
	dialed  map[string]int
}

func newNetwork() *network {
	return &network{servers: map[string]*bufconn.Listener{}, dialed: map[string]int{}}
}

func (w *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed[addr]++
	l := w.servers[addr]
	w.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("no server at %s", addr)
	}
	return l.DialContext(ctx)
}

// dials returns how often clients have dialed an address.
func (w *network) dials(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialed[addr]
}

// serve starts a server that calls work and then answers with its ID. It returns the server and its health.
func (w *network) serve(t *testing.T, id string, work func(context.Context)) (*grpc.Server, *health.Server) {
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
	w.servers[id+":80"] = l
	w.mu.Unlock()
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { w.kill(id, s) })
	return s, h
}

// serveAll starts servers that answer at once.
func (w *network) serveAll(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		w.serve(t, id, func(context.Context) {})
	}
}

// kill stops a server at once: its connections break, and it accepts no new ones.
func (w *network) kill(id string, s *grpc.Server) {
	w.mu.Lock()
	delete(w.servers, id+":80")
	w.mu.Unlock()
	s.Stop()
}

// client returns a client that resolves target with a node.
func (w *network) client(t *testing.T, n *coterie.Node, target, config string, opts ...grpc.DialOption) *grpc.ClientConn {
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

// call returns the ID of the instance that answered. It ends after a minute without an answer.
func call(t *testing.T, conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var id wrapperspb.StringValue
	err := conn.Invoke(ctx, "/orders.Orders/ID", &emptypb.Empty{}, &id, opts...)
	return id.Value, err
}

// calls makes calls that must not fail, and returns how often each instance answered.
func calls(t *testing.T, conn *grpc.ClientConn, times int) map[string]int {
	t.Helper()
	answered := map[string]int{}
	for range times {
		id, err := call(t, conn)
		require.NoError(t, err)
		answered[id]++
	}
	return answered
}

// connect makes a client connect, and waits until it is idle.
func connect(conn *grpc.ClientConn) {
	conn.Connect()
	synctest.Wait()
}
