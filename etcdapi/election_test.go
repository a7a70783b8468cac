// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/coterie-kv/coterie"
)

func TestElectionService(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		elections, ctx := v3electionpb.NewElectionClient(conn), t.Context()
		leases := pb.NewLeaseClient(conn)
		for id := int64(0x10); id <= 0x11; id++ {
			_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 600})
			require.NoError(t, err)
		}
		name := []byte("election")
		_, err := elections.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
		requireError(t, codes.Unknown, "election: no leader", err)
		won, err := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: 0x10, Value: []byte("first")})
		require.NoError(t, err)
		require.Equal(t, "election/10", string(won.Leader.Key))
		require.Equal(t, won.Header.Revision, won.Leader.Rev)
		require.EqualValues(t, 0x10, won.Leader.Lease)

		seen, err := elections.Observe(ctx, &v3electionpb.LeaderRequest{Name: name})
		require.NoError(t, err)
		observe := func() string {
			r, err := seen.Recv()
			require.NoError(t, err)
			return string(r.Kv.Value)
		}
		require.Equal(t, "first", observe())
		_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("again")})
		require.NoError(t, err)
		require.Equal(t, "again", observe())

		second := make(chan *v3electionpb.CampaignResponse, 1)
		go func() {
			r, _ := elections.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: 0x11, Value: []byte("second")})
			second <- r
		}()
		waitFor(t, n, "election/11")
		require.Empty(t, second)
		_, err = elections.Resign(ctx, &v3electionpb.ResignRequest{Leader: won.Leader})
		require.NoError(t, err)
		require.NotNil(t, (<-second).GetLeader())
		require.Equal(t, "second", observe())
		_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("late")})
		requireError(t, codes.Unknown, "election: not leader", err)
		_, err = elections.Proclaim(ctx, &v3electionpb.ProclaimRequest{})
		requireError(t, codes.Unknown, `"leader" field must be provided`, err)
	})
}
