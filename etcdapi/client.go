// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/coterie-kv/coterie"
)

// NewClient returns a client of etcd that calls a node of the same process. It opens no connection, and has one endpoint,
// "coterie": calls that concern an endpoint, such as Status, concern this node, whatever endpoint they name. Every package
// that takes a client works with it. Close ends its watches, renewals and goroutines; the node stays open.
//
// The calls of the client are those of the program itself, like calls of the node: permissions are not checked. With
// [WithUser] they are those of a user. If the context of a call has a token in its outgoing metadata, under the key
// "token", the call is that of the user of the token. [clientv3.Auth] returns tokens. An embedded etcd differs: there,
// a call without a token has no user.
func NewClient(n *coterie.Node, opts ...Option) *clientv3.Client {
	conn := newInProcess()
	newServer(n, opts).from(embedder).registerStore(conn)
	// The interceptors replace the connection, which is therefore never dialled. So constructors that take a client
	// work, such as clientv3.NewKV, and so does ActiveConnection.
	unary := func(ctx context.Context, method string, request, response any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
		return conn.Invoke(ctx, method, request, response)
	}
	stream := func(ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, _ grpc.Streamer, _ ...grpc.CallOption) (grpc.ClientStream, error) {
		return conn.NewStream(ctx, desc, method)
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{"coterie"},
		Logger:      zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(unary), grpc.WithChainStreamInterceptor(stream)},
	})
	if err != nil {
		panic("etcdapi: clientv3 rejects a constant configuration: " + err.Error())
	}
	return direct(c, conn)
}

// NewConn returns a connection to a node of the same process, for clients of single services: those of the packages
// etcdserverpb, v3lockpb and v3electionpb. Messages are not copied: a client must not change a request that it has
// sent. Its calls are those of the program itself or of a user, as those of [NewClient] are.
func NewConn(n *coterie.Node, opts ...Option) grpc.ClientConnInterface {
	c := newInProcess()
	newServer(n, opts).from(embedder).registerAll(c)
	return c
}

// keepAliveTimeout is how long a client waits for the first answer of a stream of renewals.
const keepAliveTimeout = time.Second

// direct makes the services of a client call their handlers without the client's own interceptors, which retry calls.
func direct(c *clientv3.Client, conn *inProcess) *clientv3.Client {
	c.KV = clientv3.NewKVFromKVClient(pb.NewKVClient(conn), c)
	c.Lease = clientv3.NewLeaseFromLeaseClient(pb.NewLeaseClient(conn), c, keepAliveTimeout)
	c.Watcher = clientv3.NewWatchFromWatchClient(pb.NewWatchClient(conn), c)
	c.Cluster = clientv3.NewClusterFromClusterClient(pb.NewClusterClient(conn), c)
	c.Maintenance = clientv3.NewMaintenanceFromMaintenanceClient(pb.NewMaintenanceClient(conn), c)
	c.Auth = clientv3.NewAuthFromAuthClient(pb.NewAuthClient(conn), c)
	return c
}
