// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// learner returns a node without a vote, and its cluster's other node.
func learner(t *testing.T) (node, voter *coterie.Node) {
	t.Helper()
	voter = open(t, func(c *coterie.Config) { c.Addr = "127.0.0.1:0" })
	return open(t, func(c *coterie.Config) {
		c.Name, c.Addr, c.Join, c.NonVoter = "learner", "127.0.0.1:0", []string{voter.Status().Addr}, true
	}), voter
}

// streamError returns the first error of a stream.
func streamError[R any](s interface{ Recv() (R, error) }, err error) error {
	if err == nil {
		_, err = s.Recv()
	}
	return err
}

func callsOnLearner(ctx context.Context, conn grpc.ClientConnInterface) map[string]error {
	get := &pb.RangeRequest{Key: []byte("k")}
	kv, maintenance, members := pb.NewKVClient(conn), pb.NewMaintenanceClient(conn), pb.NewClusterClient(conn)
	errs := map[string]error{}
	_, errs["range"] = kv.Range(ctx, get)
	_, errs["put"] = kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})
	_, errs["txn"] = kv.Txn(ctx, &pb.TxnRequest{})
	parts, err := kv.RangeStream(ctx, get)
	errs["range stream"] = streamError(parts, err)
	_, errs["grant"] = pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
	_, errs["members"] = members.MemberList(ctx, &pb.MemberListRequest{})
	_, errs["alarms"] = maintenance.Alarm(ctx, &pb.AlarmRequest{})
	_, errs["hash"] = maintenance.HashKV(ctx, &pb.HashKVRequest{})
	_, errs["unlock"] = v3lockpb.NewLockClient(conn).Unlock(ctx, &v3lockpb.UnlockRequest{Key: []byte("l")})
	watch, err := pb.NewWatchClient(conn).Watch(ctx)
	if err == nil {
		// Send fails if the stream has ended; Recv has the reason.
		_ = watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}})
	}
	errs["watch"] = streamError(watch, err)
	return errs
}

func TestLearnerAnswersWhatEtcdsAnswers(t *testing.T) {
	n, _ := learner(t)
	conn := dial(t, serve(t, n))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, err := range callsOnLearner(ctx, conn) {
		t.Run(name, func(t *testing.T) {
			requireError(t, codes.FailedPrecondition, "etcdserver: rpc not supported for learner", err)
		})
	}
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
	require.NoError(t, err)
	status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
	require.NoError(t, err)
	require.True(t, status.IsLearner)
	snapshot, err := pb.NewMaintenanceClient(conn).Snapshot(ctx, &pb.SnapshotRequest{})
	require.NoError(t, streamError(snapshot, err))
	health, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, health.Status)

	w := httptest.NewRecorder()
	etcdapi.NewHandler(n).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/v3/kv/range", strings.NewReader(`{"key": "aw=="}`)))
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, w.Body.String(), "rpc not supported for learner")
}

func TestLearnerCallsAreAnOption(t *testing.T) {
	n, voter := learner(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, conn := range map[string]grpc.ClientConnInterface{
		"option": dial(t, serve(t, n, etcdapi.WithLearnerCalls())), "in process": etcdapi.NewConn(n), "voter": dial(t, serve(t, voter)),
	} {
		t.Run(name, func(t *testing.T) {
			for name, err := range callsOnLearner(ctx, conn) {
				require.NoError(t, err, name)
			}
		})
	}
	require.NoError(t, voter.PromoteMember(ctx, n.ID()))
	require.Eventually(t, func() bool { return !n.NonVoter() }, time.Minute, time.Millisecond)
	_, err := pb.NewKVClient(dial(t, serve(t, n))).Put(ctx, &pb.PutRequest{Key: []byte("k")})
	require.NoError(t, err)
}
