// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// An endpoint is one of the two servers, with clients of its services.
type endpoint struct {
	name        string
	coverage    *coverage         // of the etcd, or nil
	tokens      map[string]string // of users, by label
	conn        *grpc.ClientConn
	kv          pb.KVClient
	watch       pb.WatchClient
	lease       pb.LeaseClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	auth        pb.AuthClient
	lock        v3lockpb.LockClient
	election    v3electionpb.ElectionClient
}

// endpoints starts both servers, for one test.
func endpoints(t testing.TB) (etcd, node *endpoint) {
	return dialCovered(t, startEtcd(t)), dial(t, "coterie", startNode(t))
}

// endpointsWithNotifications starts both servers, which report the progress of watches often.
func endpointsWithNotifications(t testing.TB) (etcd, node *endpoint) {
	often := func(cfg *embed.Config) { cfg.WatchProgressNotifyInterval = progressInterval }
	return dialCovered(t, startEtcd(t, often)), dial(t, "coterie", startNode(t, etcdapi.WithProgressInterval(progressInterval)))
}

// progressInterval is that of servers which report the progress of watches often.
const progressInterval = 100 * time.Millisecond

// dialCovered connects to an etcd, and counts the requests.
func dialCovered(t testing.TB, addr string) *endpoint {
	c := newCoverage()
	e := dial(t, "etcd", addr, c.options()...)
	e.coverage = c
	return e
}

// endpointOfFollower starts a cluster of three nodes, for one test, and returns the endpoint of a follower.
func endpointOfFollower(t testing.TB, opts ...etcdapi.Option) *endpoint {
	c, err := coterie.OpenCluster(t.Context(), 3, config())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	leader, err := c.Leader(t.Context())
	require.NoError(t, err)
	follower := c.Node(0)
	if follower == leader {
		follower = c.Node(1)
	}
	return dial(t, "follower", serve(t, follower, opts...))
}

// reconnect returns to a server soon after it has started again.
var reconnect = grpc.ConnectParams{
	Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.2, MaxDelay: 300 * time.Millisecond}, MinConnectTimeout: time.Second,
}

func dial(t testing.TB, name, addr string, opts ...grpc.DialOption) *endpoint {
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(reconnect),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	conn, err := grpc.NewClient(addr, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &endpoint{
		name: name, conn: conn, tokens: map[string]string{}, kv: pb.NewKVClient(conn), watch: pb.NewWatchClient(conn), lease: pb.NewLeaseClient(conn),
		cluster: pb.NewClusterClient(conn), maintenance: pb.NewMaintenanceClient(conn), auth: pb.NewAuthClient(conn),
		lock: v3lockpb.NewLockClient(conn), election: v3electionpb.NewElectionClient(conn),
	}
}

func startEtcd(t testing.TB, change ...func(*embed.Config)) (addr string) {
	client := url.URL{Scheme: "http", Host: processtest.FreeAddr(t)} // the gateway of an etcd dials the port that is configured
	cfg := etcdConfig(t.TempDir(), client, url.URL{Scheme: "http", Host: "127.0.0.1:0"})
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	for _, c := range change {
		c(cfg)
	}
	e, err := embed.StartEtcd(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { closeEtcd(e) })
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd is not ready")
	}
	return e.Clients[0].Addr().String()
}

// closeEtcd closes a member. It stops the server first: Close waits until a member serves or its server stops, and a member
// without a majority never serves.
func closeEtcd(e *embed.Etcd) {
	e.Server.HardStop()
	e.Close()
}

func etcdConfig(dir string, client, peer url.URL) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.LogLevel = "fatal"
	cfg.UnsafeNoFsync = true
	cfg.WatchProgressNotifyInterval = 10 * time.Minute // the default; etcd keeps it in a variable of the process
	return cfg
}

// config returns the configuration of a node that keeps its history, as etcd does.
func config() coterie.Config {
	return coterie.Config{
		InMemory: true, Logger: slog.New(slog.DiscardHandler), Retention: coterie.Retention{Age: -1, Revisions: -1, Bytes: -1},
	}
}

func startNode(t testing.TB, opts ...etcdapi.Option) (addr string) {
	cfg := config()
	cfg.Advertise = processtest.FreeAddr(t) // without an address no other member can be added
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.Ready(t.Context()))
	return serve(t, n, opts...)
}

func serve(t testing.TB, n *coterie.Node, opts ...etcdapi.Option) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- etcdapi.Serve(ctx, l, n, opts...) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	return l.Addr().String()
}
