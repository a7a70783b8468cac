// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/coreos/go-semver/semver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
)

// A maintenanceServer is the service Maintenance.
type maintenanceServer struct {
	*server
	pb.UnsafeMaintenanceServer
}

// requireRoot returns an error if the user of a call may not administrate this member. As in etcd, it looks at the
// users that the member knows, so that the call works without a majority.
func (s *server) requireRoot(ctx context.Context) error {
	return s.user(ctx).RequireRoot(ctx, coterie.WithSerializable())
}

// clusterVersion returns the version of the cluster and of the storage that an etcd of this version has.
func clusterVersion() string {
	v := semver.Must(semver.NewVersion(version.Version))
	return (&semver.Version{Major: v.Major, Minor: v.Minor}).String()
}

// emptySize is the size that an empty store has in Status, where clients divide by the size.
const emptySize = 4096

func (s *maintenanceServer) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	if err := s.user(ctx).RequireUser(ctx, coterie.WithSerializable()); err != nil {
		return nil, err
	}
	now := s.node.Status()
	members, err := s.node.Members(ctx, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	resp := &pb.StatusResponse{
		Header:           s.header(),
		Version:          version.Version,
		DbSize:           emptySize + now.Bytes,
		DbSizeInUse:      emptySize + now.Bytes,
		DbSizeQuota:      now.QuotaBytes,
		Leader:           wireIDOf(members, now.Leader),
		RaftIndex:        now.Committed,
		RaftAppliedIndex: now.Applied,
		RaftTerm:         now.Term,
		IsLearner:        slices.ContainsFunc(members, func(m coterie.Member) bool { return m.ID == now.ID && !m.Voter }),
		StorageVersion:   clusterVersion(),
		DowngradeInfo:    &pb.DowngradeInfo{},
	}
	if now.Leader == 0 {
		resp.Errors = append(resp.Errors, "etcdserver: no leader")
	}
	alarms, err := s.alarms(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range alarms {
		resp.Errors = append(resp.Errors, alarmMember(members, a).String())
	}
	return resp, nil
}

// HashKV returns a hash that is the same on all members that have compacted to the same revision.
func (s *maintenanceServer) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	now := s.header()
	c, err := s.node.Contents(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Revision > 0 && r.Revision < c.CompactRevision():
		return nil, coterie.ErrCompacted
	case r.Revision > c.Revision():
		return nil, coterie.ErrFutureRevision
	}
	revision := cmp.Or(r.Revision, c.Revision())
	hash, err := hashKV(c, revision)
	if err != nil {
		return nil, err
	}
	now.Revision = c.Revision()
	return &pb.HashKVResponse{Header: now, Hash: hash, CompactRevision: c.CompactRevision(), HashRevision: revision}, nil
}

// Hash returns a hash of the newest state. Equal states have equal hashes.
func (s *maintenanceServer) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	h, err := s.node.Hash(ctx, 0)
	if err != nil {
		return nil, err
	}
	return &pb.HashResponse{Header: s.answerHeader(h.Header), Hash: uint32(h.Hash>>32) ^ uint32(h.Hash)}, nil
}

// Defragment does nothing, because compaction frees the memory of a node.
func (s *maintenanceServer) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	return &pb.DefragmentResponse{}, nil
}

func (s *maintenanceServer) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	if s.node.Status().Role != coterie.RoleLeader {
		return nil, rpctypes.ErrGRPCNotLeader
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	members, err := s.node.Members(ctx)
	if err != nil {
		return nil, err
	}
	target, ok := findMember(members, r.TargetID)
	if !ok {
		return nil, rpctypes.ErrGRPCBadLeaderTransferee
	}
	err = s.node.TransferLeadership(ctx, target.ID)
	switch {
	case errors.Is(err, coterie.ErrMemberNotFound), errors.Is(err, coterie.ErrInvalidOption):
		return nil, rpctypes.ErrGRPCBadLeaderTransferee
	case errors.Is(err, errTimeout), errors.Is(err, coterie.ErrUnhealthy):
		return nil, status.Error(codes.Unknown, "etcdserver: request timed out, leader transfer took too long")
	case err != nil:
		return nil, err
	}
	return &pb.MoveLeaderResponse{}, nil
}

// Downgrade answers as an etcd that has no earlier version to go back to.
func (s *maintenanceServer) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	if err := s.requireRoot(ctx); err != nil {
		return nil, err
	}
	switch r.Action {
	case pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE:
		if !isVersion(r.Version) && !isVersion(r.Version+".0") {
			return nil, rpctypes.ErrGRPCWrongDowngradeVersionFormat
		}
		return nil, rpctypes.ErrGRPCInvalidDowngradeTargetVersion
	case pb.DowngradeRequest_CANCEL:
		return &pb.DowngradeResponse{Header: s.header(), Version: version.Cluster(version.Version)}, nil
	}
	return nil, status.Error(codes.Unknown, "etcdserver: unknown method")
}

func isVersion(text string) bool {
	_, err := semver.NewVersion(text)
	return err == nil
}
