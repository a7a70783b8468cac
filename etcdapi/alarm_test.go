// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/etcdapi"
)

func TestT54_QuotaRaisesAnAlarm(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		full, ctx := c.Follower(), t.Context()
		conn, other := etcdapi.NewConn(full), pb.NewKVClient(etcdapi.NewConn(c.Leader()))
		kv, maintenance := pb.NewKVClient(conn), pb.NewMaintenanceClient(conn)
		var err error
		for i := 0; err == nil; i++ { // new keys: the leader compacts superseded values
			_, err = kv.Put(ctx, &pb.PutRequest{Key: []byte(fmt.Sprint("k", i)), Value: []byte(strings.Repeat("v", 1000))})
		}
		const text = "etcdserver: mvcc: database space exceeded"
		requireError(t, codes.ResourceExhausted, text, err)
		all, err := maintenance.Alarm(ctx, &pb.AlarmRequest{})
		require.NoError(t, err)
		require.Len(t, all.Alarms, 1)
		require.Equal(t, uint64(full.ID()), all.Alarms[0].MemberID)
		require.Equal(t, pb.AlarmType_NOSPACE, all.Alarms[0].Alarm)
		status, err := maintenance.Status(ctx, &pb.StatusRequest{})
		require.NoError(t, err)
		require.Len(t, status.Errors, 1)
		require.Contains(t, status.Errors[0], "NOSPACE")
		c.WaitRevision(status.Header.Revision)

		// Until the alarm is cleared, the clients of every node can shrink the store, but not make it grow.
		_, err = other.Put(ctx, &pb.PutRequest{Key: []byte("k")})
		requireError(t, codes.ResourceExhausted, text, err)
		_, err = other.Txn(ctx, &pb.TxnRequest{Failure: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{putOp("k")}})}})
		requireError(t, codes.ResourceExhausted, text, err)
		_, err = pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
		requireError(t, codes.ResourceExhausted, text, err)
		_, err = other.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
		require.NoError(t, err)
		_, err = other.Compact(ctx, &pb.CompactionRequest{Revision: c.Leader().Header().Revision})
		if err != nil { // the leader may have compacted by itself
			requireError(t, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted", err)
		}
		_, err = other.Put(ctx, &pb.PutRequest{Key: []byte("k")})
		requireError(t, codes.ResourceExhausted, text, err)

		client := etcdapi.NewClient(c.Leader())
		defer client.Close()
		cleared, err := client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
		require.NoError(t, err)
		require.Len(t, cleared.Alarms, 1)
		_, err = other.Put(ctx, &pb.PutRequest{Key: []byte("k")})
		require.NoError(t, err)
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.QuotaBytes = 20_000 }))
}

func TestT55_CorruptAlarmStopsWrites(t *testing.T) {
	n := open(t)
	conn, ctx := etcdapi.NewConn(n), t.Context()
	kv, leases, maintenance := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewMaintenanceClient(conn)
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_CORRUPT}
	for range 2 {
		r, err := maintenance.Alarm(ctx, alarm)
		require.NoError(t, err)
		require.Len(t, r.Alarms, 1)
	}
	for _, err := range []error{
		second(kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})),
		second(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k")})),
		second(kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{putOp("k")}})),
		second(kv.Compact(ctx, &pb.CompactionRequest{Revision: 1})),
		second(leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})),
		second(leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 1})),
	} {
		requireError(t, codes.DataLoss, "etcdserver: corrupt cluster", err)
	}
	_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	require.NoError(t, err)
	_, err = kv.Txn(ctx, &pb.TxnRequest{})
	require.NoError(t, err)
	put(t, n, "k", "the program itself can write")
	none, err := maintenance.Alarm(ctx, &pb.AlarmRequest{Alarm: pb.AlarmType_NOSPACE})
	require.NoError(t, err)
	require.Empty(t, none.Alarms)
	alarm.Action = pb.AlarmRequest_DEACTIVATE
	for left := range 2 {
		r, err := maintenance.Alarm(ctx, alarm)
		require.NoError(t, err)
		require.Len(t, r.Alarms, 1-left)
	}
	_, err = kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})
	require.NoError(t, err)
}

func TestAlarmsOfNoKindNeedRoot(t *testing.T) {
	_, addr := protected(t)
	maintenance := pb.NewMaintenanceClient(dial(t, addr))
	for _, kind := range []pb.AlarmType{pb.AlarmType_NONE, 9} { // there is nothing to do
		for _, action := range []pb.AlarmRequest_AlarmAction{pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE} {
			q := &pb.AlarmRequest{Action: action, Alarm: kind}
			_, err := maintenance.Alarm(t.Context(), q)
			requireError(t, codes.InvalidArgument, "etcdserver: user name is empty", err)
			_, err = maintenance.Alarm(as(t, addr, "alice"), q)
			requireError(t, codes.PermissionDenied, "etcdserver: permission denied", err)
		}
		r, err := maintenance.Alarm(as(t, addr, "root"), &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: kind})
		require.NoError(t, err)
		require.Empty(t, r.Alarms)
	}
}
