// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/coterie-kv/coterie"
)

// NewClient returns a client of etcd that calls a node of the same process. It has no connection and no endpoints:
// calls that concern an endpoint, such as Status, concern this node, whatever endpoint they name. Every package that
// takes a client works with it. Close ends its watches and renewals, and returns context.Canceled; the node stays open.
func NewClient(n *coterie.Node, opts ...Option) *clientv3.Client {
	return newClient(newServer(n, opts))
}

// NewConn returns a connection to a node of the same process, for clients of single services: those that package
// etcdserverpb generates, and those of v3lockpb and v3electionpb. Messages are not copied: a client must not change a
// request that it has sent.
func NewConn(n *coterie.Node, opts ...Option) grpc.ClientConnInterface {
	c := newInProcess()
	Register(c, n, opts...)
	return c
}

// keepAliveTimeout is how long a client waits for the first answer of a stream of renewals.
const keepAliveTimeout = time.Second

func newClient(s *server) *clientv3.Client {
	conn := newInProcess()
	s.registerStore(conn)
	c := clientv3.NewCtxClient(context.Background())
	c.KV = clientv3.NewKVFromKVClient(pb.NewKVClient(conn), c)
	c.Lease = clientv3.NewLeaseFromLeaseClient(pb.NewLeaseClient(conn), c, keepAliveTimeout)
	c.Watcher = clientv3.NewWatchFromWatchClient(pb.NewWatchClient(conn), c)
	c.Cluster = clientv3.NewClusterFromClusterClient(pb.NewClusterClient(conn), c)
	c.Maintenance = clientv3.NewMaintenanceFromMaintenanceClient(pb.NewMaintenanceClient(conn), c)
	c.Auth = clientv3.NewAuthFromAuthClient(pb.NewAuthClient(conn), c)
	return c
}
