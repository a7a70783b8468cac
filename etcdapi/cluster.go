// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

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
	all, err := s.list(ctx, opts...)
	if err != nil {
		return nil, err
	}
	// The users that this node has applied are at least as new as the members, so this check need not ask the cluster.
	if err := s.user(ctx).RequireUser(ctx, coterie.WithSerializable()); err != nil {
		return nil, err
	}
	return all, nil
}

// list returns the members without a check of the caller.
func (s *clusterServer) list(ctx context.Context, opts ...coterie.MembersOption) (*pb.MemberListResponse, error) {
	members, err := s.node.Members(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return &pb.MemberListResponse{Header: s.memberHeader(), Members: s.members(members)}, nil
}

// metadataAdded is a key in the metadata of a member that was added over this protocol and has not served its endpoint
// yet. Until then, etcd lists the member without a name.
const metadataAdded = "etcd.added"

// maxLearners is etcd's default for --max-learners. A member that waits for its vote counts, too.
const maxLearners = 1

func countLearners(members []coterie.Member) (n int) {
	for _, m := range members {
		if !m.Voter {
			n++
		}
	}
	return n
}

// toChange returns the members to a caller that may change them.
func (s *clusterServer) toChange(ctx context.Context) ([]coterie.Member, error) {
	if err := s.user(ctx).RequireRoot(ctx); err != nil {
		return nil, err
	}
	return s.node.Members(ctx)
}

// memberToChange returns the member with an ID, and all members, to a caller that may change them.
func (s *clusterServer) memberToChange(ctx context.Context, id uint64) (coterie.Member, []coterie.Member, error) {
	members, err := s.toChange(ctx)
	if err != nil {
		return coterie.Member{}, nil, err
	}
	m, ok := findMember(members, id)
	if !ok {
		return coterie.Member{}, nil, rpctypes.ErrGRPCMemberNotFound
	}
	return m, members, nil
}

// MemberAdd adds a member under the name that its node has by default: its address.
func (s *clusterServer) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	addr, err := peerAddr(r.PeerURLs)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	members, err := s.toChange(ctx)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(members, func(m coterie.Member) bool { return m.Addr == addr }) {
		return nil, rpctypes.ErrGRPCPeerURLExist
	}
	opts := []coterie.MemberOption{coterie.WithEmptyDirectory()} // in etcd, a member that was removed never comes back
	if r.IsLearner {
		if countLearners(members) >= maxLearners {
			return nil, rpctypes.ErrGRPCTooManyLearners
		}
		opts = append(opts, coterie.WithNonVoter())
	}
	added, err := s.node.AddMember(ctx, addr, addr, opts...)
	if err != nil {
		return nil, err
	}
	changes := map[string]string{metadataAdded: "true", MetadataPeerURLs: strings.Join(r.PeerURLs, ",")}
	if err := s.node.UpdateMetadata(ctx, added.ID, changes); err != nil {
		return nil, err
	}
	all, err := s.list(ctx, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	m := &pb.Member{ID: wireID(&added), PeerURLs: r.PeerURLs, IsLearner: r.IsLearner}
	return &pb.MemberAddResponse{Header: all.Header, Member: m, Members: all.Members}, nil
}

func (s *clusterServer) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	m, _, err := s.memberToChange(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	err = s.node.RemoveMember(ctx, m.ID)
	switch {
	case errors.Is(err, coterie.ErrInvalidOption): // the last voter
		return nil, rpctypes.ErrMemberNotEnoughStarted
	case err != nil:
		return nil, err
	}
	all, err := s.list(ctx, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	return &pb.MemberRemoveResponse{Header: all.Header, Members: all.Members}, nil
}

func (s *clusterServer) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	m, members, err := s.memberToChange(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	addr, err := peerAddr(r.PeerURLs)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(members, func(other coterie.Member) bool { return other.Addr == addr && other.ID != m.ID }) {
		return nil, rpctypes.ErrGRPCPeerURLExist
	}
	if err := s.node.UpdateMember(ctx, m.ID, addr); err != nil {
		return nil, err
	}
	if err := s.recordPeerURLs(ctx, m.ID, r.PeerURLs); err != nil {
		return nil, err
	}
	all, err := s.list(ctx, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	return &pb.MemberUpdateResponse{Header: all.Header, Members: all.Members}, nil
}

// MemberPromote gives a vote to a member that has caught up, or changes nothing. A member that was added with a vote
// needs no promotion.
func (s *clusterServer) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	m, _, err := s.memberToChange(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if m.Voter {
		return nil, rpctypes.ErrGRPCMemberNotLearner
	}
	if err := s.node.PromoteMember(ctx, m.ID, coterie.WithoutWait()); err != nil {
		return nil, err
	}
	all, err := s.list(ctx, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	return &pb.MemberPromoteResponse{Header: all.Header, Members: all.Members}, nil
}

// peerAddr returns the address that other nodes dial: that of the first of a member's URLs.
func peerAddr(peerURLs []string) (string, error) {
	if _, err := types.NewURLs(peerURLs); err != nil {
		return "", rpctypes.ErrGRPCMemberBadURLs
	}
	first, err := url.Parse(strings.TrimSpace(peerURLs[0]))
	if err != nil {
		return "", rpctypes.ErrGRPCMemberBadURLs
	}
	return first.Host, nil
}

// recordPeerURLs puts the URLs of a member on record if they do not follow from its address.
func (s *clusterServer) recordPeerURLs(ctx context.Context, id coterie.MemberID, urls []string) error {
	members, err := s.node.Members(ctx, coterie.WithSerializable())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(members, func(m coterie.Member) bool { return m.ID == id })
	if i < 0 || slices.Equal(memberURLs(members[i]), urls) {
		return nil
	}
	return s.node.UpdateMetadata(ctx, id, map[string]string{MetadataPeerURLs: strings.Join(urls, ",")})
}

// memberURLs returns the URLs by which other nodes reach a member. Those on record count as long as the member has not
// moved.
func memberURLs(m coterie.Member) []string {
	if m.Addr == "" {
		return nil
	}
	if urls := splitURLs(m.Metadata[MetadataPeerURLs]); len(urls) > 0 && beginsWithAddr(urls, m.Addr) {
		return urls
	}
	return []string{"http://" + m.Addr}
}

// beginsWithAddr reports whether the first of a member's URLs has its address.
func beginsWithAddr(urls []string, addr string) bool {
	first, err := peerAddr(urls)
	return err == nil && first == addr
}

func splitURLs(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func (s *clusterServer) members(members []coterie.Member) []*pb.Member {
	out := make([]*pb.Member, len(members))
	for i, m := range members {
		out[i] = &pb.Member{
			ID: wireID(&m), Name: m.Name, IsLearner: !m.Voter, PeerURLs: memberURLs(m), ClientURLs: splitURLs(m.Metadata[MetadataClientURLs]),
		}
		if name := m.Metadata[MetadataName]; name != "" {
			out[i].Name = name
		}
		if m.ID == s.node.ID() && s.name != "" {
			out[i].Name = s.name
		}
		if m.ID == s.node.ID() && len(s.peerURLs) > 0 && beginsWithAddr(s.peerURLs, m.Addr) {
			out[i].PeerURLs = s.peerURLs
		}
		if m.Metadata[metadataAdded] != "" && !m.Voter {
			out[i].Name = ""
		}
		if m.ID == s.node.ID() && len(s.clientURLs) > 0 {
			out[i].ClientURLs = s.clientURLs
		}
	}
	return out
}

// publish puts this endpoint on record as soon as the cluster has a leader that can do so. It tries until ctx ends or
// the node has stopped.
func (s *server) publish(ctx context.Context) {
	for {
		err := s.record(ctx)
		if err == nil {
			return
		}
		// The error may be temporary: the node is not a member yet, or the leader is of a version without metadata.
		select {
		case <-ctx.Done():
			return
		case <-s.node.Done():
			return
		case <-time.After(s.limits.ElectionTimeout):
		}
	}
}

// record puts the name and the URLs of this endpoint on record, and notes that its node runs.
func (s *server) record(ctx context.Context) error {
	changes := map[string]string{metadataAdded: ""}
	for key, value := range map[string]string{
		MetadataName: s.name, MetadataClientURLs: strings.Join(s.clientURLs, ","), MetadataPeerURLs: strings.Join(s.peerURLs, ","),
	} {
		if value != "" {
			changes[key] = value
		}
	}
	members, err := s.node.Members(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(members, func(m coterie.Member) bool { return m.ID == s.node.ID() })
	if i < 0 {
		return coterie.ErrMemberNotFound
	}
	maps.DeleteFunc(changes, func(key, value string) bool { return members[i].Metadata[key] == value })
	if len(changes) == 0 {
		return nil
	}
	return s.node.UpdateMetadata(ctx, s.node.ID(), changes)
}
