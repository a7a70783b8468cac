// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// A healthServer is the service grpc.health.v1.Health. As in etcd, it knows only the service "", which is the
// whole server. This service is serving as long as the node runs.
type healthServer struct {
	*server
	healthpb.UnsafeHealthServer
}

func (s *healthServer) status() healthpb.HealthCheckResponse_ServingStatus {
	select {
	case <-s.node.Done():
		return healthpb.HealthCheckResponse_NOT_SERVING
	default:
		return healthpb.HealthCheckResponse_SERVING
	}
}

func (s *healthServer) Check(_ context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if r.Service != "" {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &healthpb.HealthCheckResponse{Status: s.status()}, nil
}

func (s *healthServer) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	return &healthpb.HealthListResponse{Statuses: map[string]*healthpb.HealthCheckResponse{"": {Status: s.status()}}}, nil
}

func (s *healthServer) Watch(r *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	now := healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	if r.Service == "" {
		now = s.status()
	}
	if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
		return status.Error(codes.Canceled, "Stream has ended.") // the text of package health
	case <-s.node.Done():
	}
	if now == healthpb.HealthCheckResponse_SERVING {
		return stream.Send(&healthpb.HealthCheckResponse{Status: s.status()})
	}
	return nil
}
