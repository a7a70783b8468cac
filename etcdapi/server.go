// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/coterie-kv/coterie"
)

// A server is the part that the services of one endpoint share. Its fields do not change.
type server struct {
	node    *coterie.Node
	limits  coterie.Limits
	limiter *limiter // of the time of calls
	options
	measures *measures       // of an endpoint with HTTP
	sockets  *sync.WaitGroup // the calls in websockets
	remote   bool            // whether other programs than this one are its clients
	direct   bool            // its gRPC server has the codec of this package
	self     *atomic.Uint64  // the ID of the own member in etcd's protocol; 0: not known yet. Servers of other origins share it
	receipt  *receipt        // of an endpoint with a listener or a handler
	encoded  *eventCache     // of the watches, if direct

	origin  origin            // of the calls
	noUser  *coterie.UserView // of calls without credentials
	own     *coterie.UserView // of calls of the program itself
	hashing *turns            // of computations of hashes
}

func newServer(n *coterie.Node, opts []Option) *server {
	s := &server{
		node: n, limits: n.Limits(), limiter: newLimiter(n.Limits()), options: defaultOptions(), sockets: new(sync.WaitGroup), remote: true,
		noUser: coterie.NewUserView(n, ""), own: coterie.NewUncheckedView(n), self: new(atomic.Uint64), hashing: newTurns(hashings()),
	}
	for _, opt := range opts {
		opt(&s.options)
	}
	s.receipt = newReceipt(s.maxReceiving)
	if s.as != nil {
		s.own = coterie.NewUserView(n, *s.as)
	}
	return s
}

// Register registers etcd's services on a server of the caller, so that one port serves them and the caller's
// own services. It leaves out grpc.health.v1 if the caller has registered it before. A *grpc.Server needs
// [ServerOptions], for requests of more than 4 MiB and for large responses.
func Register(r grpc.ServiceRegistrar, n *coterie.Node, opts ...Option) {
	newServer(n, opts).registerAll(r)
}

func (s *server) registerAll(r grpc.ServiceRegistrar) {
	s.registerStore(r)
	inside := newRecipes(s)
	s.register(r, &v3lockpb.Lock_ServiceDesc, &lockServer{recipes: inside})
	s.register(r, &v3electionpb.Election_ServiceDesc, &electionServer{recipes: inside})
	if !registered(r, healthpb.Health_ServiceDesc.ServiceName) {
		s.register(r, &healthpb.Health_ServiceDesc, &healthServer{server: s})
	}
}

// registerStore registers the services that a clientv3.Client uses.
func (s *server) registerStore(r grpc.ServiceRegistrar) {
	kv := &kvServer{server: s}
	if s.direct {
		s.register(r, directKV(kv), kv)
	} else {
		s.register(r, &pb.KV_ServiceDesc, kv)
	}
	s.register(r, &pb.Watch_ServiceDesc, &watchServer{server: s})
	s.register(r, &pb.Lease_ServiceDesc, &leaseServer{server: s})
	s.register(r, &pb.Cluster_ServiceDesc, &clusterServer{server: s})
	s.register(r, &pb.Maintenance_ServiceDesc, &maintenanceServer{server: s})
	s.register(r, &pb.Auth_ServiceDesc, &authServer{server: s})
}

// registered reports whether a registrar has a service. It returns false for a registrar that cannot tell.
func registered(r grpc.ServiceRegistrar, service string) bool {
	known, ok := r.(interface {
		GetServiceInfo() map[string]grpc.ServiceInfo
	})
	if !ok {
		return false
	}
	_, ok = known.GetServiceInfo()[service]
	return ok
}

// requestOverhead is how much larger than coterie.Config.MaxRequestBytes a message may be.
const requestOverhead = 512 << 10

// ServerOptions returns the options with which a *grpc.Server accepts every message that etcd accepts, and pings as
// often as etcd allows.
func ServerOptions(n *coterie.Node) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage(n.Limits())),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		grpc.StaticStreamWindowSize(receiveWindow),
		grpc.StaticConnWindowSize(receiveWindow),
	}
}

// receiveWindow bounds the bytes of requests that a connection holds before a call reads them. A larger message is read
// as a whole. Without a constant, gRPC measures the connection with pings, and lets the window grow to 16 MiB.
const receiveWindow = 1 << 20

// maxMessage is the size of the largest message that an endpoint reads.
func maxMessage(l coterie.Limits) int { return l.MaxRequestBytes + requestOverhead }
