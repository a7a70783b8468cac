// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// admitUnary rejects a call to a learner unless etcd's learners answer it. It admits probes of grpc.health.v1,
// although etcd rejects them, because such a caller asks whether the process works.
func (s *server) admitUnary(req any) error {
	switch r := req.(type) {
	case *pb.StatusRequest, *healthpb.HealthCheckRequest, *healthpb.HealthListRequest:
		return nil
	case *pb.RangeRequest:
		if r.Serializable {
			return nil
		}
	}
	return s.learnerFault()
}

// admitStream rejects a stream to a learner as admitUnary does.
func (s *server) admitStream(service, stream string) error {
	switch service + "/" + stream {
	case pb.Maintenance_ServiceDesc.ServiceName + "/Snapshot", healthpb.Health_ServiceDesc.ServiceName + "/Watch":
		return nil
	}
	return s.learnerFault()
}

// learnerFault returns the error of a learner. A member that gets a vote as soon as it has caught up is no learner in
// etcd, so it answers every call. Every member answers the calls of its own process.
func (s *server) learnerFault() error {
	if s.remote && !s.learnerCalls && s.node.NonVoter() {
		return rpctypes.ErrGRPCNotSupportedForLearner
	}
	return nil
}
