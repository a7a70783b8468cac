// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"slices"
	"unsafe"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/coterie-kv/coterie"
)

// directKV returns the service KV for a gRPC server with the codec of this package. Its most frequent calls return
// their answers in coterie's own form.
func directKV(s *kvServer) *grpc.ServiceDesc {
	desc := pb.KV_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for i, m := range desc.Methods {
		switch m.MethodName {
		case "Range":
			desc.Methods[i].Handler = answering(s.get, func(r *coterie.GetResponse) any { return (*getAnswer)(r) })
		case "Put":
			desc.Methods[i].Handler = answering(s.put, func(r *coterie.PutResponse) any { return (*putAnswer)(r) })
		case "DeleteRange":
			desc.Methods[i].Handler = answering(s.deleteRange, func(r *coterie.DeleteResponse) any { return (*deleteAnswer)(r) })
		case "Txn":
			desc.Methods[i].Handler = answering(s.txn, func(r *coterie.TxnResponse) any { return (*txnAnswer)(r) })
		}
	}
	return &desc
}

// answering returns the handler of a call with a response that a codec encodes. The handler needs an interceptor, and
// passes no information about the call to it.
func answering[Request, Response any](call func(context.Context, *Request) (*Response, error), answer func(*Response) any) grpc.MethodHandler {
	handler := func(ctx context.Context, request any) (any, error) {
		resp, err := call(ctx, request.(*Request))
		if err != nil {
			return nil, err
		}
		return answer(resp), nil
	}
	return func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		request := new(Request)
		if err := decode(request); err != nil {
			return nil, err
		}
		return interceptor(ctx, request, nil, handler)
	}
}

// text returns a key or a value of a request. If this package has decoded the request, nothing changes the request
// later, so the text shares its memory.
func (s *server) text(b []byte) string {
	if !s.direct {
		return string(b)
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}
