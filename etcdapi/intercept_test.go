// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/etcdapi"
)

func TestCallsThatRequireALeader(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		conn := etcdapi.NewConn(c.Follower())
		ctx := clientv3.WithRequireLeader(t.Context())
		watches, renewals := watchFor(t, ctx, conn), renewalsFor(t, ctx, conn)
		patient := watchFor(t, t.Context(), conn)
		_, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		require.NoError(t, err)

		c.Partition()
		begin := time.Now()
		_, err = watches.Recv()
		requireError(t, codes.Unavailable, "etcdserver: no leader", err)
		_, err = renewals.Recv()
		requireError(t, codes.Unavailable, "etcdserver: no leader", err)
		require.Greater(t, time.Since(begin), 3*time.Second)
		require.Less(t, time.Since(begin), 10*time.Second)
		_, err = pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		requireError(t, codes.Unavailable, "etcdserver: no leader", err)
		ended, err := pb.NewWatchClient(conn).Watch(ctx)
		require.NoError(t, err)
		_, err = ended.Recv()
		requireError(t, codes.Unavailable, "etcdserver: no leader", err)

		status, err := pb.NewMaintenanceClient(conn).Status(t.Context(), &pb.StatusRequest{})
		require.NoError(t, err)
		require.Equal(t, []string{"etcdserver: no leader"}, status.Errors)
		c.Heal()
		put(t, c.Leader(), "k", "v")
		r, err := patient.Recv()
		require.NoError(t, err)
		require.Len(t, r.Events, 1, "a stream that requires no leader has waited for one")
	})
}

// watchFor returns a stream with a watch of the key k.
func watchFor(t *testing.T, ctx context.Context, conn grpc.ClientConnInterface) pb.Watch_WatchClient {
	t.Helper()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	require.NoError(t, err)
	create := &pb.WatchCreateRequest{Key: []byte("k")}
	require.NoError(t, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
	r, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, r.Created)
	return stream
}

func renewalsFor(t *testing.T, ctx context.Context, conn grpc.ClientConnInterface) pb.Lease_LeaseKeepAliveClient {
	t.Helper()
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: 7}))
	_, err = stream.Recv()
	require.NoError(t, err)
	return stream
}

func TestClientVersionsAreText(t *testing.T) {
	conn := etcdapi.NewConn(open(t))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "client-api-version", "\xff")
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	requireError(t, codes.InvalidArgument, "etcdserver: invalid client api version", err)
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	require.NoError(t, err)
	_, err = stream.Recv()
	requireError(t, codes.InvalidArgument, "etcdserver: invalid client api version", err)
}

// The interceptors of the caller's server see the calls, and the errors that clients get.
func TestInterceptorsOfTheServerStay(t *testing.T) {
	n := open(t)
	var seen []string
	var failed error
	g := grpc.NewServer(append(etcdapi.ServerOptions(n), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			resp, err := handler(ctx, req)
			seen, failed = append(seen, info.FullMethod), err
			return resp, err
		}))...)
	etcdapi.Register(g, n)
	kv := pb.NewKVClient(dial(t, listen(t, g)))
	_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Revision: 9})
	requireError(t, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision", err)
	g.Stop() // and the handler has returned
	require.Equal(t, []string{"/etcdserverpb.KV/Range"}, seen)
	requireError(t, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision", failed)
}

// A call without an answer of the cluster ends with etcd's error after etcd's time limit.
func TestCallsEndWithoutAQuorum(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		conn := etcdapi.NewConn(c.Follower())
		c.Partition()
		time.Sleep(10 * time.Second)
		kv, leases, members := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewClusterClient(conn)
		key := []byte("k")
		for name, call := range map[string]func(ctx context.Context) error{
			"Range":  func(ctx context.Context) error { return second(kv.Range(ctx, &pb.RangeRequest{Key: key})) },
			"Put":    func(ctx context.Context) error { return second(kv.Put(ctx, &pb.PutRequest{Key: key})) },
			"Delete": func(ctx context.Context) error { return second(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: key})) },
			"Txn": func(ctx context.Context) error {
				return second(kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{putOp("k")}}))
			},
			"Compact": func(ctx context.Context) error { return second(kv.Compact(ctx, &pb.CompactionRequest{Revision: 1})) },
			"Grant":   func(ctx context.Context) error { return second(leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})) },
			"Revoke":  func(ctx context.Context) error { return second(leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 1})) },
			"TTL": func(ctx context.Context) error {
				return second(leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 1}))
			},
			"Members": func(ctx context.Context) error {
				return second(members.MemberList(ctx, &pb.MemberListRequest{Linearizable: true}))
			},
		} {
			begin := time.Now()
			requireError(t, codes.Unavailable, "etcdserver: request timed out", call(t.Context()))
			require.Equal(t, 7*time.Second, time.Since(begin), name)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			requireError(t, codes.DeadlineExceeded, "context deadline exceeded", call(ctx))
			cancel()
		}
		_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: key, Serializable: true})
		require.NoError(t, err)
		all, err := members.MemberList(t.Context(), &pb.MemberListRequest{})
		require.NoError(t, err)
		require.Len(t, all.Members, 3)
	})
}
