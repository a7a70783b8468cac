// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
)

// Alarm lists, raises or clears alarms.
func (s *maintenanceServer) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if r.Action != pb.AlarmRequest_GET {
		if err := s.user(ctx).RequireRoot(ctx); err != nil { // even if there is nothing to do
			return nil, err
		}
	}
	members, err := s.node.Members(ctx, coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	a := coterie.Alarm{Member: coterie.MemberID(r.MemberID), Kind: coterie.AlarmKind(r.Alarm)}
	if m, ok := findMember(members, r.MemberID); ok {
		a.Member = m.ID
	}
	resp := &pb.AlarmResponse{}
	switch r.Action {
	case pb.AlarmRequest_GET:
		all, err := s.user(ctx).Alarms(ctx)
		if err != nil {
			return nil, err
		}
		for _, a := range all {
			if r.Alarm == pb.AlarmType_NONE || a.Kind == coterie.AlarmKind(r.Alarm) {
				resp.Alarms = append(resp.Alarms, alarmMember(members, a))
			}
		}
	case pb.AlarmRequest_ACTIVATE:
		if r.Alarm == pb.AlarmType_NONE {
			break
		}
		if _, err := s.user(ctx).RaiseAlarm(ctx, a); err != nil {
			return nil, err
		}
		resp.Alarms = append(resp.Alarms, alarmMember(members, a)) // even if it was raised before
	case pb.AlarmRequest_DEACTIVATE:
		if r.Alarm == pb.AlarmType_NONE || pb.AlarmType_name[int32(r.Alarm)] == "" {
			break // no node raises these alarms
		}
		cleared, err := s.user(ctx).ClearAlarm(ctx, a)
		if err != nil {
			return nil, err
		}
		if cleared.Changed {
			resp.Alarms = append(resp.Alarms, alarmMember(members, a))
		}
	default:
		return nil, status.Error(codes.Unknown, "etcdserver: unknown method")
	}
	resp.Header = s.header()
	return resp, nil
}

func alarmMember(members []coterie.Member, a coterie.Alarm) *pb.AlarmMember {
	return &pb.AlarmMember{MemberID: wireIDOf(members, a.Member), Alarm: pb.AlarmType(a.Kind)}
}

// A write is the effect of a request on the size of the store, by which alarms reject it.
type write uint8

const (
	shrinks write = iota
	grows         // it puts a key or grants a lease
)

// alarms returns the alarms that this node has applied, also without a quorum.
func (s *server) alarms(ctx context.Context) ([]coterie.Alarm, error) {
	return s.node.Alarms(ctx, coterie.WithSerializable())
}

// admitWrite returns the error of a write that the alarms reject, or nil.
func (s *server) admitWrite(ctx context.Context, w write) error {
	alarms, err := s.alarms(ctx)
	if err != nil {
		return err
	}
	for _, a := range alarms {
		if a.Kind == coterie.AlarmCorrupt {
			return rpctypes.ErrGRPCCorrupt
		}
	}
	if len(alarms) > 0 && w == grows {
		return rpctypes.ErrGRPCNoSpace
	}
	return nil
}

// noteQuota raises an alarm of this member if a write was rejected at the quota. It returns the error of the write.
func (s *server) noteQuota(ctx context.Context, err error) error {
	var limit *coterie.LimitError
	if !errors.Is(err, coterie.ErrNoSpace) || !errors.As(err, &limit) {
		return err // an error of the disk, which the node itself reports
	}
	// If this fails, the next write raises the alarm.
	_, _ = s.node.RaiseAlarm(ctx, coterie.Alarm{Member: s.node.ID(), Kind: coterie.AlarmNoSpace})
	return err
}

// txnWrite returns the effect of a transaction. It considers both branches, because the comparisons choose one only when the transaction runs.
func txnWrite(r *pb.TxnRequest) write {
	if slices.ContainsFunc(r.GetSuccess(), puts) || slices.ContainsFunc(r.GetFailure(), puts) {
		return grows
	}
	return shrinks
}

func puts(op *pb.RequestOp) bool {
	return op.GetRequestPut() != nil || op.GetRequestTxn() != nil && txnWrite(op.GetRequestTxn()) == grows
}

// readOnly reports whether a transaction does not go through the log, so that alarms do not apply to it. A transaction
// with a nested one always goes through the log.
func readOnly(r *pb.TxnRequest) bool {
	write := func(op *pb.RequestOp) bool { return op.GetRequestRange() == nil }
	return !slices.ContainsFunc(r.GetSuccess(), write) && !slices.ContainsFunc(r.GetFailure(), write)
}
