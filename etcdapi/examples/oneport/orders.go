// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/coterie-kv/coterie"
)

// orders is the service of this program. It keeps the orders in the node.
type orders struct{ node *coterie.Node }

// Place stores an order, and returns its key. The revision of the store makes the key unique.
func (o *orders) Place(ctx context.Context, order *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	if order.Value == "" {
		return nil, status.Error(codes.InvalidArgument, "the order is empty")
	}
	for {
		now, err := o.node.Get(ctx, "orders/", coterie.WithPrefix(), coterie.WithCountOnly())
		if err != nil {
			return nil, toStatus(err)
		}
		key := fmt.Sprintf("orders/%08d", now.Revision)
		created, err := o.node.Txn(ctx).
			If(coterie.Compare(coterie.Version(key), coterie.Equal, 0)).
			Then(coterie.OpPut(key, order.Value)).
			Commit()
		if err != nil {
			return nil, toStatus(err)
		}
		if created.Succeeded { // otherwise another call has taken the key
			return wrapperspb.String(key), nil
		}
	}
}

func toStatus(err error) error {
	if errors.Is(err, coterie.ErrMaybeApplied) {
		return status.Error(codes.Unknown, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}

const placeMethod = "/example.Orders/Place"

// registerOrders registers the service. protoc would generate this, and place, from a .proto file.
func registerOrders(r grpc.ServiceRegistrar, o *orders) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: "example.Orders",
		HandlerType: (*interface {
			Place(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
		})(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Place", Handler: handlePlace}},
	}, o)
}

func handlePlace(impl any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	order := new(wrapperspb.StringValue)
	if err := decode(order); err != nil {
		return nil, err
	}
	handler := func(ctx context.Context, order any) (any, error) {
		return impl.(*orders).Place(ctx, order.(*wrapperspb.StringValue))
	}
	if interceptor == nil {
		return handler(ctx, order)
	}
	return interceptor(ctx, order, &grpc.UnaryServerInfo{Server: impl, FullMethod: placeMethod}, handler)
}

// place calls the service.
func place(ctx context.Context, conn grpc.ClientConnInterface, order string) (key string, err error) {
	placed := new(wrapperspb.StringValue)
	err = conn.Invoke(ctx, placeMethod, wrapperspb.String(order), placed, grpc.WaitForReady(true))
	return placed.Value, err
}
