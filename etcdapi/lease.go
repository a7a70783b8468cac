// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/coterie-kv/coterie"
)

// A leaseServer is the service Lease.
type leaseServer struct {
	*server
	pb.UnsafeLeaseServer
}

// LeaseGrant raises a TTL below etcd's minimum, as etcd does. The minimum is one and a half election timeouts, in
// whole seconds, so that a lease survives an election.
func (s *leaseServer) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if err := s.admitWrite(ctx, grows); err != nil {
		return nil, err
	}
	if r.TTL > int64(coterie.MaxTTL/time.Second) { // before the product, which may overflow
		if err := s.user(ctx).RequireUser(ctx); err != nil {
			return nil, err
		}
		return nil, coterie.ErrTTLRange
	}
	least := wholeSeconds(s.limits.ElectionTimeout * 3 / 2)
	ttl := time.Duration(max(r.TTL, least)) * time.Second
	resp, err := s.user(ctx).Grant(ctx, ttl, coterie.WithGrantID(coterie.LeaseID(r.ID)))
	if err != nil {
		return nil, s.noteQuota(ctx, err)
	}
	return &pb.LeaseGrantResponse{Header: s.answerHeader(resp.Header), ID: int64(resp.ID), TTL: int64(resp.TTL / time.Second)}, nil
}

// wholeSeconds returns a duration in seconds, rounded up.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func (s *leaseServer) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if err := s.admitWrite(ctx, shrinks); err != nil {
		return nil, err
	}
	resp, err := s.user(ctx).Revoke(ctx, coterie.LeaseID(r.ID))
	if err != nil {
		return nil, err
	}
	return &pb.LeaseRevokeResponse{Header: s.answerHeader(resp.Header)}, nil
}

// LeaseKeepAlive answers the requests of a stream in their order.
func (s *leaseServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	ended := make(chan error, 1)
	go func() { ended <- s.keepAlive(stream) }()
	select {
	case err := <-ended:
		return err
	case <-stream.Context().Done(): // the client has gone, which Recv reports, or there is no leader, which it does not
		return context.Cause(stream.Context())
	case <-s.node.Done():
		return coterie.ErrClosed
	}
}

func (s *leaseServer) keepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	user := s.streamUser(stream.Context())
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		as, err := user.now()
		if err != nil {
			return err
		}
		resp, err := s.renew(stream.Context(), as, r)
		if err != nil {
			return err
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// renew renews a lease. It returns a TTL of 0 if the lease does not exist. The header has the revision from before
// the renewal, so that it is never later than the end of the lease.
func (s *leaseServer) renew(ctx context.Context, user *coterie.UserView, r *pb.LeaseKeepAliveRequest) (*pb.LeaseKeepAliveResponse, error) {
	resp := &pb.LeaseKeepAliveResponse{Header: s.header(), ID: r.ID}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	renewed, err := user.KeepAliveOnce(ctx, coterie.LeaseID(r.ID))
	switch {
	case errors.Is(err, coterie.ErrLeaseNotFound):
		return resp, nil
	case err != nil:
		return nil, err
	}
	resp.TTL = int64(renewed.TTL / time.Second)
	return resp, nil
}

// LeaseTimeToLive answers with a TTL of -1 if the lease does not exist. A user that may not read the keys of the lease can
// still learn its time.
func (s *leaseServer) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	lease, err := s.timeToLive(ctx, r)
	switch {
	case errors.Is(err, coterie.ErrLeaseNotFound):
		return &pb.LeaseTimeToLiveResponse{Header: s.header(), ID: r.ID, TTL: -1}, nil
	case err != nil:
		return nil, err
	}
	resp := &pb.LeaseTimeToLiveResponse{
		Header: s.answerHeader(lease.Header), ID: r.ID, TTL: int64(lease.Remaining / time.Second), GrantedTTL: int64(lease.TTL / time.Second),
	}
	if r.Keys {
		for _, key := range lease.Keys {
			resp.Keys = append(resp.Keys, []byte(key))
		}
	}
	return resp, nil
}

func (s *leaseServer) timeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*coterie.TimeToLiveResponse, error) {
	if r.Keys {
		return s.user(ctx).TimeToLive(ctx, coterie.LeaseID(r.ID))
	}
	if err := s.user(ctx).RequireUser(ctx, coterie.WithSerializable()); err != nil {
		return nil, err
	}
	return s.node.TimeToLive(ctx, coterie.LeaseID(r.ID))
}

func (s *leaseServer) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	leases, err := s.user(ctx).Leases(ctx)
	if err != nil {
		return nil, err
	}
	resp := &pb.LeaseLeasesResponse{Header: s.answerHeader(leases.Header)}
	for _, id := range leases.Leases {
		resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: int64(id)})
	}
	return resp, nil
}
