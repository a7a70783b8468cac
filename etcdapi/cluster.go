// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/coterie-kv/coterie"
)

// A clusterServer is the service Cluster.
type clusterServer struct {
	*server
	pb.UnsafeClusterServer
}

// memberHeader returns a header without a revision, as etcd's answers about members have it.
func (s *clusterServer) memberHeader() *pb.ResponseHeader {
	h := s.header()
	h.Revision = 0
	return h
}

func (s *clusterServer) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	var opts []coterie.MembersOption
	if !r.Linearizable {
		opts = append(opts, coterie.WithSerializable())
	}
	members, err := s.node.Members(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &pb.MemberListResponse{Header: s.memberHeader(), Members: s.members(members)}, nil
}

// MemberAdd adds a member under the name that its node has by default: its address.
func (s *clusterServer) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	addr, err := peerAddr(r.PeerURLs)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	members, err := s.node.Members(ctx)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(members, func(m coterie.Member) bool { return m.Addr == addr }) {
		return nil, rpctypes.ErrGRPCPeerURLExist
	}
	var opts []coterie.MemberOption
	if r.IsLearner {
		opts = append(opts, coterie.WithNonVoter())
	}
	added, err := s.node.AddMember(ctx, addr, addr, opts...)
	if err != nil {
		return nil, err
	}
	all, err := s.MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return nil, err
	}
	m := &pb.Member{ID: uint64(added.ID), PeerURLs: []string{peerURL(addr)}, IsLearner: r.IsLearner}
	return &pb.MemberAddResponse{Header: all.Header, Member: m, Members: all.Members}, nil
}

func (s *clusterServer) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	err := s.node.RemoveMember(ctx, coterie.MemberID(r.ID))
	switch {
	case errors.Is(err, coterie.ErrInvalidOption): // the last voter
		return nil, rpctypes.ErrMemberNotEnoughStarted
	case err != nil:
		return nil, err
	}
	all, err := s.MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return nil, err
	}
	return &pb.MemberRemoveResponse{Header: all.Header, Members: all.Members}, nil
}

func (s *clusterServer) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	addr, err := peerAddr(r.PeerURLs)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	members, err := s.node.Members(ctx)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(members, func(m coterie.Member) bool { return m.Addr == addr && uint64(m.ID) != r.ID }) {
		return nil, rpctypes.ErrGRPCPeerURLExist
	}
	if err := s.node.UpdateMember(ctx, coterie.MemberID(r.ID), addr); err != nil {
		return nil, err
	}
	all, err := s.MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return nil, err
	}
	return &pb.MemberUpdateResponse{Header: all.Header, Members: all.Members}, nil
}

// MemberPromote gives a vote to a member that has caught up. A member that has not may get its vote after the call has
// failed, because the cluster gives it as soon as it can.
func (s *clusterServer) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	members, err := s.node.Members(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(members, func(m coterie.Member) bool { return uint64(m.ID) == r.ID })
	switch {
	case i < 0:
		return nil, rpctypes.ErrGRPCMemberNotFound
	case members[i].Voter:
		return nil, rpctypes.ErrGRPCMemberNotLearner
	}
	soon, stop := context.WithTimeoutCause(ctx, 2*s.limits.ElectionTimeout, rpctypes.ErrGRPCLearnerNotReady)
	defer stop()
	if err := s.node.PromoteMember(soon, members[i].ID); err != nil {
		if cause := context.Cause(soon); errors.Is(cause, rpctypes.ErrGRPCLearnerNotReady) {
			return nil, cause
		}
		return nil, err
	}
	all, err := s.MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return nil, err
	}
	return &pb.MemberPromoteResponse{Header: all.Header, Members: all.Members}, nil
}

// peerAddr returns the address in a member's URLs. A member of coterie has one.
func peerAddr(peerURLs []string) (string, error) {
	urls, err := types.NewURLs(peerURLs)
	if err != nil {
		return "", rpctypes.ErrGRPCMemberBadURLs
	}
	return urls[0].Host, nil
}

func peerURL(addr string) string { return "http://" + addr }

func (s *clusterServer) members(members []coterie.Member) []*pb.Member {
	out := make([]*pb.Member, len(members))
	for i, m := range members {
		out[i] = &pb.Member{ID: uint64(m.ID), Name: m.Name, IsLearner: !m.Voter}
		if m.Addr != "" {
			out[i].PeerURLs = []string{peerURL(m.Addr)}
		}
		if m.ID == s.node.ID() {
			out[i].ClientURLs = s.clientURLs
		}
	}
	return out
}
