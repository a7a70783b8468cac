// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/etcdapi"
)

func TestT19_MissingLease(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		leases, ctx := pb.NewLeaseClient(conn), t.Context()
		left, err := leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 7})
		require.NoError(t, err)
		require.EqualValues(t, -1, left.TTL)
		require.Zero(t, left.GrantedTTL)
		require.EqualValues(t, 7, left.ID)
		_, err = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7})
		requireError(t, codes.NotFound, "etcdserver: requested lease not found", err)
		stream, err := leases.LeaseKeepAlive(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: 7}))
		r, err := stream.Recv()
		require.NoError(t, err)
		require.EqualValues(t, 7, r.ID)
		require.Zero(t, r.TTL)
	})
}

func TestT20_ShortTTLIsRaised(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		leases, ctx := pb.NewLeaseClient(conn), t.Context()
		for asked, want := range map[int64]int64{-1 << 63: 2, 0: 2, 1: 2, 2: 2, 3: 3, 9_000_000_000: 9_000_000_000} {
			r, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: asked})
			require.NoError(t, err)
			require.Equal(t, want, r.TTL)
			require.Positive(t, r.ID)
		}
		_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 1<<63 - 1})
		requireError(t, codes.OutOfRange, "etcdserver: too large lease TTL", err)
		_, err = leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60, ID: -3})
		require.NoError(t, err)
		_, err = leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60, ID: -3})
		requireError(t, codes.FailedPrecondition, "etcdserver: lease already exists", err)
	})
	slow := pb.NewLeaseClient(etcdapi.NewConn(open(t, func(c *coterie.Config) { c.ElectionTimeout = 3 * time.Second })))
	r, err := slow.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 1})
	require.NoError(t, err)
	require.EqualValues(t, 5, r.TTL, "it follows the election timeout")
}

func TestLeaseWithoutUserIsRejectedFirst(t *testing.T) {
	_, addr := protected(t)
	_, err := pb.NewLeaseClient(dial(t, addr)).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 1<<63 - 1})
	requireError(t, codes.InvalidArgument, "etcdserver: user name is empty", err)
	_, err = pb.NewLeaseClient(dial(t, addr)).LeaseGrant(as(t, addr, "alice"), &pb.LeaseGrantRequest{TTL: 1<<63 - 1})
	requireError(t, codes.OutOfRange, "etcdserver: too large lease TTL", err)
}

// The answers of a stream of renewals are in the order of its requests, and a missing lease does not end the stream.
func TestT65_RenewalsAreAnsweredInOrder(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		leases := pb.NewLeaseClient(conn)
		for id := int64(1); id <= 10; id++ {
			_, err := leases.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: 600})
			require.NoError(t, err)
		}
		stream, err := leases.LeaseKeepAlive(t.Context())
		require.NoError(t, err)
		ids := []int64{7, 99, 3, 3, 10, 1, 98, 2}
		sent := make(chan error, 1)
		go func() {
			for _, id := range ids {
				if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		for _, id := range ids {
			r, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, id, r.ID)
			require.Equal(t, id <= 10, r.TTL == 600)
		}
		require.NoError(t, <-sent)
	})
}

func TestLeaseExpiresOverTheWire(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		conn := etcdapi.NewConn(c.Leader())
		leases, kv, ctx := pb.NewLeaseClient(conn), pb.NewKVClient(conn), t.Context()
		l, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
		require.NoError(t, err)
		_, err = kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Lease: l.ID})
		require.NoError(t, err)
		stream, err := leases.LeaseKeepAlive(ctx)
		require.NoError(t, err)
		for range 3 {
			time.Sleep(50 * time.Second)
			require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: l.ID}))
			r, err := stream.Recv()
			require.NoError(t, err)
			require.EqualValues(t, 60, r.TTL)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		left, err := leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: l.ID, Keys: true})
		require.NoError(t, err)
		require.EqualValues(t, 49, left.TTL, "whole seconds that are left")
		require.EqualValues(t, 60, left.GrantedTTL)
		require.Equal(t, [][]byte{[]byte("k")}, left.Keys)
		all, err := leases.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		require.NoError(t, err)
		require.Len(t, all.Leases, 1)
		time.Sleep(time.Minute)
		r, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		require.NoError(t, err)
		require.Empty(t, r.Kvs)
	})
}
