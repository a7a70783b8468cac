// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"time"
	"unicode/utf8"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// public are the methods that ignore the credentials of their callers, as in etcd.
var public = map[string]bool{
	pb.Auth_Authenticate_FullMethodName:  true, // a client uses it to replace an expired token
	healthpb.Health_Check_FullMethodName: true,
	healthpb.Health_List_FullMethodName:  true,
	healthpb.Health_Watch_FullMethodName: true,
}

// register registers a service. Its calls pass through the interceptors of this package. The interceptors belong to the
// service and not to the server, because the server may be the caller's and have other services. A call costs no
// closure, unless the server has interceptors of its own.
func (s *server) register(r grpc.ServiceRegistrar, desc *grpc.ServiceDesc, impl any) {
	service := *desc
	service.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	identified, anonymous := unaryStep(s.unary), unaryStep(s.anonymous) // evaluated once
	for i, m := range desc.Methods {
		plain := identified
		if public[fullMethod(desc.ServiceName, m.MethodName)] {
			plain = anonymous
		}
		inner := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return plain(ctx, clientVersion(ctx), req, handler)
		}
		if s.measures != nil {
			t := s.measures.meter(desc.ServiceName, m.MethodName, "unary")
			inner = func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				return t.unary(ctx, clientVersion(ctx), req, plain, handler)
			}
		}
		service.Methods[i] = grpc.MethodDesc{
			MethodName: m.MethodName,
			Handler: func(impl any, ctx context.Context, decode func(any) error, outer grpc.UnaryServerInterceptor) (any, error) {
				growStack()
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
		// The handler of a stream of requests identifies the user for each request.
		identify := s.identified
		if stream.ClientStreams || public[fullMethod(desc.ServiceName, stream.StreamName)] {
			identify = unidentified
		}
		handler := func(impl any, ss grpc.ServerStream) error {
			return s.stream(impl, ss, desc.ServiceName, &stream, identify)
		}
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

func fullMethod(service, method string) string { return "/" + service + "/" + method }

// within returns an interceptor that calls inner inside outer.
func within(outer, inner grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return outer(ctx, req, info, func(ctx context.Context, req any) (any, error) { return inner(ctx, req, info, handler) })
	}
}

// A unaryStep is a step of a call before its handler. version is the client's version of the API.
type unaryStep func(ctx context.Context, version string, req any, handler grpc.UnaryHandler) (any, error)

// unary passes a call to its handler, with the user in the context.
func (s *server) unary(ctx context.Context, version string, req any, handler grpc.UnaryHandler) (any, error) {
	if err := s.admitCall(ctx, version, req); err != nil {
		return nil, err
	}
	ctx, err := s.identified(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return answer(handler(ctx, req))
}

// anonymous passes a call to its handler and ignores its credentials.
func (s *server) anonymous(ctx context.Context, version string, req any, handler grpc.UnaryHandler) (any, error) {
	if err := s.admitCall(ctx, version, req); err != nil {
		return nil, err
	}
	return answer(handler(ctx, req))
}

// answer returns the answer of a handler, or its error in the form of gRPC.
func answer(resp any, err error) (any, error) {
	if err != nil {
		return nil, toStatus(err)
	}
	return resp, nil
}

// admitCall returns an error if this node does not answer the call of any user.
func (s *server) admitCall(ctx context.Context, version string, req any) error {
	if err := s.admitUnary(req); err != nil {
		return err
	}
	_, err := s.admit(ctx, version)
	return err
}

// stream passes a stream to its handler, with the context that identify returns.
func (s *server) stream(
	impl any, ss grpc.ServerStream, service string, desc *grpc.StreamDesc, identify func(context.Context) (context.Context, error),
) error {
	if err := s.admitStream(service, desc.StreamName); err != nil {
		return err
	}
	needsLeader, err := s.admit(ss.Context(), clientVersion(ss.Context()))
	if err != nil {
		return err
	}
	ctx, err := identify(ss.Context())
	if err != nil {
		return toStatus(err)
	}
	if needsLeader {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		go s.watchLeader(ctx, cancel)
	}
	if ctx != ss.Context() {
		ss = &streamWithContext{ss, ctx}
	}
	if err := desc.Handler(impl, ss); err != nil {
		return toStatus(err)
	}
	return nil
}

func unidentified(ctx context.Context) (context.Context, error) { return ctx, nil }

// admit checks the metadata of a call, of which version is known, and reports whether the call needs a leader.
func (s *server) admit(ctx context.Context, version string) (needsLeader bool, err error) {
	if !utf8.ValidString(version) {
		return false, rpctypes.ErrGRPCInvalidClientAPIVersion
	}
	needs := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	if len(needs) == 0 || needs[0] != rpctypes.MetadataHasLeader {
		return false, nil
	}
	if s.node.Leader() == 0 {
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
			if s.node.Leader() == 0 && s.node.Status().Leaderless >= leaderGrace*s.limits.ElectionTimeout {
				cancel(rpctypes.ErrGRPCNoLeader)
				return
			}
		}
	}
}

// A streamWithContext is a stream with a context of this package, which has the user and ends when the node knows no
// leader. So its handler must not wait for the client alone.
type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWithContext) Context() context.Context { return s.ctx }
