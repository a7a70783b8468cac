// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"io"
	"reflect"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// An inProcess is a connection to services of the same process: it calls their handlers. Nothing is encoded, and a
// unary call runs on the caller's goroutine. Services are registered before the first call; after that it is immutable.
type inProcess struct {
	unary   map[string]unaryCall
	streams map[string]streamCall
}

type unaryCall struct {
	impl    any
	handler func(impl any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error)
}

type streamCall struct {
	impl    any
	handler grpc.StreamHandler
}

func newInProcess() *inProcess {
	return &inProcess{unary: map[string]unaryCall{}, streams: map[string]streamCall{}}
}

// RegisterService implements grpc.ServiceRegistrar.
func (c *inProcess) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, m := range desc.Methods {
		c.unary["/"+desc.ServiceName+"/"+m.MethodName] = unaryCall{impl, m.Handler}
	}
	for _, m := range desc.Streams {
		c.streams["/"+desc.ServiceName+"/"+m.StreamName] = streamCall{impl, m.Handler}
	}
}

// Invoke implements grpc.ClientConnInterface.
func (c *inProcess) Invoke(ctx context.Context, method string, request, response any, _ ...grpc.CallOption) error {
	call, ok := c.unary[method]
	if !ok {
		return unknownMethod(method)
	}
	decode := func(m any) error { move(m, request); return nil }
	answer, err := call.handler(call.impl, onServer(ctx), decode, nil)
	if err != nil {
		return toStatus(err)
	}
	move(response, answer)
	return nil
}

// NewStream implements grpc.ClientConnInterface.
func (c *inProcess) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	call, ok := c.streams[method]
	if !ok {
		return nil, unknownMethod(method)
	}
	serverCtx, cancel := context.WithCancel(onServer(ctx))
	p := &pipe{ctx: serverCtx, requests: make(chan any, pendingRequests), responses: make(chan any), ended: make(chan struct{})}
	go func() {
		defer cancel()
		p.err = io.EOF
		if err := call.handler(call.impl, &serverEnd{p}); err != nil {
			p.err = toStatus(err)
		}
		close(p.ended)
	}()
	return &clientEnd{pipe: p, ctx: ctx}, nil
}

func unknownMethod(method string) error {
	return status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

// onServer returns the context that the handler of a call gets: with the metadata that the client has added.
func onServer(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	return metadata.NewIncomingContext(ctx, md)
}

// move copies the message src to dst. They share memory, so the sender must not change src afterwards. Both are
// pointers to the same generated type.
func move(dst, src any) { reflect.ValueOf(dst).Elem().Set(reflect.ValueOf(src).Elem()) }

// pendingRequests is how many requests of a stream wait for the handler before the client waits. A client may send a request
// before it receives the response to an earlier one, for which the handler waits: the one of clientv3 does. gRPC has 64 KiB
// for such requests.
const pendingRequests = 256

// A pipe is a stream. A handler that sends waits for the client.
type pipe struct {
	ctx       context.Context // of the handler
	requests  chan any
	responses chan any
	ended     chan struct{} // closed when the handler has returned
	err       error         // of the handler, io.EOF if it had none; set before ended is closed
}

// A serverEnd is the handler's end of a pipe.
type serverEnd struct{ *pipe }

func (s *serverEnd) Context() context.Context     { return s.ctx }
func (s *serverEnd) SetHeader(metadata.MD) error  { return nil }
func (s *serverEnd) SendHeader(metadata.MD) error { return nil }
func (s *serverEnd) SetTrailer(metadata.MD)       {}

func (s *serverEnd) SendMsg(m any) error {
	select {
	case s.responses <- m:
		return nil
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

func (s *serverEnd) RecvMsg(m any) error {
	select {
	case r, open := <-s.requests:
		if !open {
			return io.EOF
		}
		move(m, r)
		return nil
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// A clientEnd is the client's end of a pipe.
type clientEnd struct {
	*pipe
	ctx  context.Context
	once sync.Once // closes requests
}

func (c *clientEnd) Context() context.Context     { return c.ctx }
func (c *clientEnd) Header() (metadata.MD, error) { return nil, nil }
func (c *clientEnd) Trailer() metadata.MD         { return nil }

func (c *clientEnd) CloseSend() error {
	c.once.Do(func() { close(c.requests) })
	return nil
}

func (c *clientEnd) SendMsg(m any) error {
	select {
	case c.requests <- m:
		return nil
	case <-c.ended:
		return io.EOF // RecvMsg has the reason
	case <-c.ctx.Done():
		return status.FromContextError(c.ctx.Err()).Err()
	}
}

func (c *clientEnd) RecvMsg(m any) error {
	select {
	case r := <-c.responses:
		move(m, r)
		return nil
	case <-c.ended:
		return c.err
	case <-c.ctx.Done():
		return status.FromContextError(c.ctx.Err()).Err()
	}
}
