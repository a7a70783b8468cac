// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie/etcdapi"
)

func TestHealthService(t *testing.T) {
	n := open(t)
	health := healthpb.NewHealthClient(etcdapi.NewConn(n))
	check := func() healthpb.HealthCheckResponse_ServingStatus {
		r, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		return r.Status
	}
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, check())
	_, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "etcdserverpb.KV"})
	require.Equal(t, codes.NotFound, status.Code(err))
	all, err := health.List(t.Context(), &healthpb.HealthListRequest{})
	require.NoError(t, err)
	require.Len(t, all.Statuses, 1)
	stream, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	r, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, r.Status)
	require.NoError(t, n.Close())
	r, err = stream.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, r.Status)
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, check())
}
