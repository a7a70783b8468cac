// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// unknownMethods calls services and methods that do not exist.
func (g *generator) unknownMethods() request {
	return scripted("unknownMethods", &emptypb.Empty{}, func(ctx context.Context, e *endpoint, s *script) {
		for _, method := range []string{"/etcdserverpb.KV/Nothing", "/etcdserverpb.Nothing/Range", "/Range", "/etcdserverpb.KV/", "/x/y/z"} {
			s.say(e.conn.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{}))
		}
	})
}

// A garbage is a codec that sends bytes unchanged.
type garbage struct{}

func (garbage) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (garbage) Unmarshal(data []byte, v any) error { return nil }
func (garbage) Name() string                       { return "proto" }

// metadata sends requests with metadata that a server reads, and requests that are not messages.
func (g *generator) metadata() request {
	return scripted("metadata", &emptypb.Empty{}, func(ctx context.Context, e *endpoint, s *script) {
		for _, md := range [][]string{
			{"hasleader", "true"}, {"hasleader", "false"}, {"hasleader", ""}, {"client-api-version", "3.6"}, {"client-api-version", "x"},
			{"client-api-version", ""}, {"token", "x"}, {"token", ""}, {"authorization", "Bearer x"}, {"authorization", "x"},
		} {
			with := metadata.AppendToOutgoingContext(ctx, md...)
			ask(with, s, e.kv.Range, &pb.RangeRequest{Key: []byte("a")})
			ask(with, s, e.cluster.MemberList, &pb.MemberListRequest{Linearizable: true})
			stream, err := e.watch.Watch(with)
			if err == nil {
				err = sent(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}}))
			}
			receive(s, stream, err)
			if err == nil {
				s.say(stream.CloseSend())
			}
		}
		for _, method := range []string{"KV/Range", "KV/Put", "Lease/LeaseGrant", "Maintenance/Status"} {
			// The text of this error has spaces at random.
			err := e.conn.Invoke(ctx, "/etcdserverpb."+method, []byte("\xff\xff\xff"), nil, grpc.ForceCodec(garbage{}))
			s.said = append(s.said, status.Code(err).String())
		}
	})
}

// strangeFields sends requests with a field that no version of etcd has, and long keys.
func (g *generator) strangeFields() request {
	put, get, watch := g.put(), g.rangeRequest(), g.watch()
	grant := &pb.LeaseGrantRequest{TTL: 5000, ID: 5000}
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}, rangeOp(get)}}
	unknown(put)
	unknown(get)
	unknown(txn)
	unknown(watch)
	unknown(grant)
	long := make([]byte, 100<<10)
	return scripted("strangeFields", txn, func(ctx context.Context, e *endpoint, s *script) {
		ask(ctx, s, e.kv.Put, put)
		ask(ctx, s, e.kv.Range, get)
		ask(ctx, s, e.kv.Txn, txn)
		ask(ctx, s, e.lease.LeaseGrant, grant)
		ask(ctx, s, e.lease.LeaseGrant, grant)
		ask(ctx, s, e.lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 5000})
		stream, err := e.watch.Watch(ctx)
		if err == nil {
			err = stream.Send(&pb.WatchRequest{}) // ignored
		}
		if err == nil {
			err = sent(stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: watch}}))
		}
		receive(s, stream, err)
		if err == nil {
			s.say(stream.CloseSend())
		}
		ask(ctx, s, e.kv.Put, &pb.PutRequest{Key: long, Value: long})
		ask(ctx, s, e.kv.Range, &pb.RangeRequest{Key: long, RangeEnd: long})
		ask(ctx, s, e.kv.DeleteRange, &pb.DeleteRangeRequest{Key: long, PrevKv: true})
	})
}
