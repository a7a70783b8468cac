// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// register registers a service whose calls pass through the interceptors of this package. The interceptors belong
// to the service and not to the server, because the server may be the caller's and have other services. A call costs no
// closure, unless the server has interceptors of its own.
func (s *server) register(r grpc.ServiceRegistrar, desc *grpc.ServiceDesc, impl any) {
	service := *desc
	service.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	plain := grpc.UnaryServerInterceptor(s.unary) // evaluated once
	for i, m := range desc.Methods {
		inner := plain
		if s.measures != nil {
			t := s.measures.meter(desc.ServiceName, m.MethodName, "unary")
			inner = func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				return t.unary(ctx, req, plain, handler)
			}
		}
		service.Methods[i] = grpc.MethodDesc{
			MethodName: m.MethodName,
			Handler: func(impl any, ctx context.Context, decode func(any) error, outer grpc.UnaryServerInterceptor) (any, error) {
				if outer == nil {
					return m.Handler(impl, ctx, decode, inner)
				}
				return m.Handler(impl, ctx, decode, within(outer, inner))
			},
		}
	}
	service.Streams = make([]grpc.StreamDesc, len(desc.Streams))
	for i, stream := range desc.Streams {
		service.Streams[i] = stream
		handler := func(impl any, ss grpc.ServerStream) error { return s.stream(impl, ss, desc.ServiceName, &stream) }
		service.Streams[i].Handler = handler
		if s.measures != nil {
			t := s.measures.meter(desc.ServiceName, stream.StreamName, kindOf(&stream))
			service.Streams[i].Handler = func(impl any, ss grpc.ServerStream) error {
				return t.stream(ss, func(ss grpc.ServerStream) error { return handler(impl, ss) })
			}
		}
	}
	r.RegisterService(&service, impl)
}

// within returns an interceptor that calls inner inside outer.
func within(outer, inner grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return outer(ctx, req, info, func(ctx context.Context, req any) (any, error) { return inner(ctx, req, info, handler) })
	}
}

func (s *server) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := s.admitUnary(req); err != nil {
		return nil, err
	}
	if _, err := s.admit(ctx); err != nil {
		return nil, err
	}
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	return resp, nil
}

func (s *server) stream(impl any, ss grpc.ServerStream, service string, desc *grpc.StreamDesc) error {
	if err := s.admitStream(service, desc.StreamName); err != nil {
		return err
	}
	needsLeader, err := s.admit(ss.Context())
	if err != nil {
		return err
	}
	if needsLeader {
		ctx, cancel := context.WithCancelCause(ss.Context())
		defer cancel(nil)
		go s.watchLeader(ctx, cancel)
		ss = &streamWithContext{ss, ctx}
	}
	if err := desc.Handler(impl, ss); err != nil {
		return toStatus(err)
	}
	return nil
}

// admit checks the metadata of a call, and reports whether the call needs a leader.
func (s *server) admit(ctx context.Context) (needsLeader bool, err error) {
	version := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey)
	if len(version) > 0 && !utf8.ValidString(version[0]) {
		return false, rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	needs := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	if len(needs) == 0 || needs[0] != rpctypes.MetadataHasLeader {
		return false, nil
	}
	if s.node.Status().Leader == 0 {
		return true, rpctypes.ErrGRPCNoLeader
	}
	return true, nil
}

// leaderGrace is how many election timeouts without a leader end a stream that needs one.
const leaderGrace = 3

// watchLeader ends a stream when the node has known no leader for too long.
func (s *server) watchLeader(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(s.limits.ElectionTimeout)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if s.node.Status().Leaderless >= leaderGrace*s.limits.ElectionTimeout {
				cancel(rpctypes.ErrGRPCNoLeader)
				return
			}
		}
	}
}

// A streamWithContext is a stream whose context may end before the client ends it. Its handler must not wait for the
// client alone.
type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWithContext) Context() context.Context { return s.ctx }
