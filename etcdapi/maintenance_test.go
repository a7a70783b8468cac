// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/etcdapi"
)

func TestStatusOverTheWire(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.QuotaBytes = 1 << 20 })
	maintenance := pb.NewMaintenanceClient(etcdapi.NewConn(n))
	empty, err := maintenance.Status(t.Context(), &pb.StatusRequest{})
	require.NoError(t, err)
	require.Equal(t, "3.7.3", empty.Version)
	require.Equal(t, "3.7.0", empty.StorageVersion)
	require.Positive(t, empty.DbSize, "clients divide by it")
	require.EqualValues(t, 1<<20, empty.DbSizeQuota)
	require.Equal(t, uint64(n.ID()), empty.Leader)
	require.Equal(t, empty.Header.MemberId, empty.Leader)
	require.Equal(t, empty.Header.RaftTerm, empty.RaftTerm)
	require.False(t, empty.IsLearner)
	require.Empty(t, empty.Errors)
	put(t, n, "k", "v")
	now, err := maintenance.Status(t.Context(), &pb.StatusRequest{})
	require.NoError(t, err)
	require.Greater(t, now.DbSize, empty.DbSize)
	require.LessOrEqual(t, now.DbSizeInUse, now.DbSize)
	require.Greater(t, now.RaftIndex, empty.RaftIndex)
	require.GreaterOrEqual(t, now.RaftIndex, now.RaftAppliedIndex)
}

func TestMembersAgreeOnHashKV(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for range 5 {
			put(t, c.Leader(), "k", "v")
		}
		_, err := c.Leader().Compact(t.Context(), 3)
		require.NoError(t, err)
		last := put(t, c.Leader(), "k", "w")
		c.WaitRevision(last)
		hashes := map[uint32]bool{}
		for _, n := range c.Nodes() {
			maintenance := pb.NewMaintenanceClient(etcdapi.NewConn(n))
			h, err := maintenance.HashKV(t.Context(), &pb.HashKVRequest{Revision: 5})
			require.NoError(t, err)
			require.EqualValues(t, 5, h.HashRevision)
			require.EqualValues(t, 3, h.CompactRevision)
			require.Equal(t, last, h.Header.Revision)
			hashes[h.Hash] = true
			newest, err := maintenance.HashKV(t.Context(), &pb.HashKVRequest{})
			require.NoError(t, err)
			require.Equal(t, last, newest.HashRevision)
			require.NotEqual(t, h.Hash, newest.Hash)
			_, err = maintenance.HashKV(t.Context(), &pb.HashKVRequest{Revision: 2})
			requireError(t, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted", err)
			_, err = maintenance.HashKV(t.Context(), &pb.HashKVRequest{Revision: last + 1})
			requireError(t, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision", err)
			_, err = maintenance.Hash(t.Context(), &pb.HashRequest{})
			require.NoError(t, err)
		}
		require.Len(t, hashes, 1)
	})
}

func TestMoveLeader(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, follower := c.Leader(), c.Follower()
		move := func(on *coterie.Node, to coterie.MemberID) error {
			_, err := pb.NewMaintenanceClient(etcdapi.NewConn(on)).MoveLeader(t.Context(), &pb.MoveLeaderRequest{TargetID: uint64(to)})
			return err
		}
		requireError(t, codes.FailedPrecondition, "etcdserver: not leader", move(follower, leader.ID()))
		requireError(t, codes.FailedPrecondition, "etcdserver: bad leader transferee", move(leader, 7))
		require.NoError(t, move(leader, follower.ID()))
		require.Equal(t, follower.ID(), leader.Status().Leader)
	})
}

func TestMaintenanceThatHasNothingToDo(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		maintenance, ctx := pb.NewMaintenanceClient(conn), t.Context()
		d, err := maintenance.Defragment(ctx, &pb.DefragmentRequest{})
		require.NoError(t, err)
		require.Nil(t, d.Header)
		alarms, err := maintenance.Alarm(ctx, &pb.AlarmRequest{})
		require.NoError(t, err)
		require.Empty(t, alarms.Alarms)
		for version, text := range map[string]string{
			"x": "etcdserver: wrong downgrade target version format", "3.7": "etcdserver: invalid downgrade target version",
			"3.8.0": "etcdserver: invalid downgrade target version",
		} {
			_, err = maintenance.Downgrade(ctx, &pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: version})
			requireError(t, codes.InvalidArgument, text, err)
		}
		r, err := maintenance.Downgrade(ctx, &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL})
		require.NoError(t, err)
		require.Equal(t, "3.7", r.Version)
	})
}
