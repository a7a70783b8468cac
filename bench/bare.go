// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"github.com/coterie-kv/coterie/bench/harness"
)

// openBare starts servers of gRPC that answer puts with a constant, and ranges with the pair of the last put.
func openBare(_ context.Context, s harness.Setup) (*harness.System, error) {
	var started []*grpc.Server
	sys := &harness.System{Durability: "none: nothing is stored"}
	sys.Close = func() error {
		for _, g := range started {
			g.Stop()
		}
		return nil
	}
	answers := &bareKV{header: &pb.ResponseHeader{ClusterId: 1 << 60, MemberId: 1 << 60, Revision: 1000, RaftTerm: 2}}
	answers.put = &pb.PutResponse{Header: answers.header}
	for range s.Members {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, sys.Close())
		}
		g := grpc.NewServer()
		pb.RegisterKVServer(g, answers)
		started, sys.Addrs = append(started, g), append(sys.Addrs, l.Addr().String())
		go func() { _ = g.Serve(l) }() // it returns after Stop
	}
	return sys, nil
}

// A bareKV answers every put with the same response, and every range with that of the last put.
type bareKV struct {
	pb.UnimplementedKVServer
	header *pb.ResponseHeader
	put    *pb.PutResponse
	read   atomic.Pointer[pb.RangeResponse]
}

func (s *bareKV) Put(_ context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, CreateRevision: 2, ModRevision: 2, Version: 1}
	s.read.Store(&pb.RangeResponse{Header: s.header, Count: 1, Kvs: []*mvccpb.KeyValue{kv}})
	return s.put, nil
}

func (s *bareKV) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return s.read.Load(), nil
}
