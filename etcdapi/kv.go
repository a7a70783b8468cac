// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
)

// A kvServer is the service KV.
type kvServer struct {
	*server
	pb.UnsafeKVServer
}

func (s *kvServer) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	resp, err := s.get(ctx, r)
	if err != nil {
		return nil, err
	}
	return rangeResponse(resp), nil
}

func (s *kvServer) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	resp, err := s.put(ctx, r)
	if err != nil {
		return nil, err
	}
	return putResponse(resp), nil
}

func (s *kvServer) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	resp, err := s.deleteRange(ctx, r)
	if err != nil {
		return nil, err
	}
	return deleteResponse(resp), nil
}

func (s *kvServer) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp, err := s.txn(ctx, r)
	if err != nil {
		return nil, err
	}
	return txnResponse(resp), nil
}

func (s *kvServer) get(ctx context.Context, r *pb.RangeRequest) (*coterie.GetResponse, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	if r.Serializable && len(r.RangeEnd) == 0 {
		return s.getOf(ctx, r) // a serializable read does not wait
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	return s.getOf(ctx, r)
}

func (s *kvServer) getOf(ctx context.Context, r *pb.RangeRequest) (*coterie.GetResponse, error) {
	resp, err := s.user(ctx).Get(ctx, s.text(r.Key), getOptions(r)...)
	if err != nil {
		return nil, err
	}
	s.mine(&resp.Header)
	return resp, nil
}

func (s *kvServer) put(ctx context.Context, r *pb.PutRequest) (*coterie.PutResponse, error) {
	if err := checkPut(r); err != nil {
		return nil, err
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if err := s.admitWrite(ctx, grows); err != nil {
		return nil, err
	}
	resp, err := s.user(ctx).Put(ctx, s.text(r.Key), s.text(r.Value), putOptions(r)...)
	if err != nil {
		return nil, s.noteQuota(ctx, err)
	}
	s.mine(&resp.Header)
	return resp, nil
}

func (s *kvServer) deleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*coterie.DeleteResponse, error) {
	if err := checkDelete(r); err != nil {
		return nil, err
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if err := s.admitWrite(ctx, shrinks); err != nil {
		return nil, err
	}
	resp, err := s.user(ctx).Delete(ctx, s.text(r.Key), deleteOptions(r)...)
	if err != nil {
		return nil, err
	}
	s.mine(&resp.Header)
	return resp, nil
}

func (s *kvServer) txn(ctx context.Context, r *pb.TxnRequest) (*coterie.TxnResponse, error) {
	if err := checkTxn(r, s.limits.MaxTxnOps); err != nil {
		return nil, err
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if !readOnly(r) {
		if err := s.admitWrite(ctx, txnWrite(r)); err != nil {
			return nil, err
		}
	}
	resp, err := s.user(ctx).Do(ctx, txn(r))
	switch {
	case errors.Is(err, coterie.ErrInvalidOption):
		// checkTxn has checked everything except the depth of nested transactions.
		return nil, rpctypes.ErrGRPCTooManyOps
	case err != nil:
		return nil, s.noteQuota(ctx, err)
	}
	s.mine(&resp.Txn.Header)
	return resp.Txn, nil
}

// Compact ignores the field Physical, because a node has always freed the memory when it answers.
func (s *kvServer) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if err := s.admitWrite(ctx, shrinks); err != nil {
		return nil, err
	}
	resp, err := s.user(ctx).Compact(ctx, r.Revision)
	if err != nil {
		return nil, err
	}
	return &pb.CompactionResponse{Header: s.answerHeader(resp.Header)}, nil
}

// firstChunk is the number of key-values in the first response of a RangeStream.
const firstChunk = 10

// RangeStream sends a range in responses of about the size of the largest request. The header, the count and more
// come with the last one.
func (s *kvServer) RangeStream(r *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	if err := checkRangeStream(r); err != nil {
		return err
	}
	ctx := stream.Context()
	last, err := s.countRange(ctx, r)
	if err != nil {
		return err
	}
	if r.CountOnly {
		return s.sendPiece(stream, &rangePiece{of: last, last: true})
	}
	// The iteration reads the revision at which the keys were counted.
	pinned := proto.Clone(r).(*pb.RangeRequest)
	if r.Revision <= 0 {
		pinned.Revision = last.Revision
	}
	opts := append(scanOptions(pinned), coterie.WithSerializable())
	piece, sent, size := &coterie.GetResponse{}, int64(0), firstChunk
	for kv, err := range s.user(ctx).Range(ctx, string(r.Key), opts...) {
		if err != nil {
			return err
		}
		if len(piece.KVs) == size {
			p := &rangePiece{of: piece}
			if err := s.sendPiece(stream, p); err != nil {
				return err
			}
			sent += int64(len(piece.KVs))
			size = nextChunk(size, encodedSize(p), s.limits.MaxRequestBytes)
			piece = &coterie.GetResponse{}
		}
		piece.KVs = append(piece.KVs, streamed(r, kv))
	}
	last.KVs = piece.KVs
	last.More = sent+int64(len(piece.KVs)) < last.Count
	return s.sendPiece(stream, &rangePiece{of: last, last: true})
}

// sendPiece sends a response of a RangeStream.
func (s *kvServer) sendPiece(stream pb.KV_RangeStreamServer, p *rangePiece) error {
	if s.direct {
		return stream.SendMsg(p)
	}
	m := rangeResponse(p.of)
	if !p.last {
		m.Header = nil
	}
	return stream.Send(&pb.RangeStreamResponse{RangeResponse: m})
}

// countRange returns the number of keys in the range of a request, as a response that has no keys yet.
func (s *kvServer) countRange(ctx context.Context, r *pb.RangeRequest) (*coterie.GetResponse, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	count := proto.Clone(r).(*pb.RangeRequest)
	count.CountOnly = true
	return s.getOf(ctx, count)
}

func streamed(r *pb.RangeRequest, kv coterie.KeyValue) coterie.KeyValue {
	if r.KeysOnly {
		kv.Value = ""
		if r.SortTarget != pb.RangeRequest_VALUE {
			kv.Lease = 0
		}
	}
	return kv
}

// nextChunk returns the number of key-values of the next response, as etcd does: its size approaches target.
func nextChunk(count, bytes, target int) int {
	switch {
	case bytes < target/2:
		return min(2*count, math.MaxInt32)
	case bytes > 2*target:
		return max(count/2, 1)
	}
	return count
}

func checkRange(r *pb.RangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if pb.RangeRequest_SortOrder_name[int32(r.SortOrder)] == "" || pb.RangeRequest_SortTarget_name[int32(r.SortTarget)] == "" {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

func checkRangeStream(r *pb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	if r.SortOrder != pb.RangeRequest_NONE && (r.SortTarget != pb.RangeRequest_KEY || r.SortOrder != pb.RangeRequest_ASCEND) {
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
	if r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0 {
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.GetKey()) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) > 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkDelete(r *pb.DeleteRangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

// checkTxn checks a transaction in the order in which etcd does, so that the first of several errors is the same. The
// store checks that no key is written twice.
func checkTxn(r *pb.TxnRequest, maxOps int) error {
	most := max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if most > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.GetCompare() {
		if len(c.GetKey()) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range ops {
			if err := checkOp(op, maxOps-most); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, maxOps int) error {
	switch r := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(r.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(r.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDelete(r.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxn(r.RequestTxn, maxOps)
	}
	return rpctypes.ErrGRPCKeyNotFound // for an operation without a request
}
