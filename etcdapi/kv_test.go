// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// requireError checks the code and the text of an error.
func requireError(t testing.TB, code codes.Code, text string, err error) {
	t.Helper()
	require.Equal(t, code, status.Code(err), "%v", err)
	require.Equal(t, text, status.Convert(err).Message())
}

func txnOp(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func putOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

// streamRange returns the responses of a RangeStream.
func streamRange(t testing.TB, kv pb.KVClient, r *pb.RangeRequest) (all []*pb.RangeResponse, err error) {
	t.Helper()
	stream, err := kv.RangeStream(t.Context(), r)
	require.NoError(t, err)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m.RangeResponse)
	}
}

func TestRangeStreamSendsParts(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		kv := pb.NewKVClient(conn)
		for i := range 25 {
			put(t, n, fmt.Sprintf("k%02d", i), "v")
		}
		parts, err := streamRange(t, kv, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: 24})
		require.NoError(t, err)
		require.Len(t, parts, 2)
		require.Len(t, parts[0].Kvs, 10)
		require.Nil(t, parts[0].Header)
		require.Len(t, parts[1].Kvs, 14)
		require.Equal(t, "k23", string(parts[1].Kvs[13].Key))
		require.EqualValues(t, 25, parts[1].Count)
		require.True(t, parts[1].More)
		require.EqualValues(t, 26, parts[1].Header.Revision)

		parts, err = streamRange(t, kv, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), CountOnly: true})
		require.NoError(t, err)
		require.Len(t, parts, 1)
		require.EqualValues(t, 25, parts[0].Count)

		parts, err = streamRange(t, kv, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Revision: 4, KeysOnly: true})
		require.NoError(t, err)
		require.Len(t, parts, 1)
		require.Len(t, parts[0].Kvs, 3)
		require.Empty(t, parts[0].Kvs[0].Value)
		require.EqualValues(t, 26, parts[0].Header.Revision)

		_, err = streamRange(t, kv, &pb.RangeRequest{Key: []byte("k"), SortOrder: pb.RangeRequest_DESCEND})
		requireError(t, codes.Unimplemented, "RangeStream does not support custom sort orders", err)
		_, err = streamRange(t, kv, &pb.RangeRequest{Key: []byte("k"), MinModRevision: 1})
		requireError(t, codes.Unimplemented, "RangeStream does not support revision filters", err)
	})
}

// The parts of a large range grow until they are about as large as the largest request.
func TestRangeStreamPartsGrow(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxRequestBytes = 10_000 })
	for i := range 300 {
		put(t, n, fmt.Sprintf("k%03d", i), strings.Repeat("v", 100))
	}
	parts, err := streamRange(t, pb.NewKVClient(etcdapi.NewConn(n)), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	require.NoError(t, err)
	var sizes []int
	for _, part := range parts {
		sizes = append(sizes, len(part.Kvs))
	}
	require.Equal(t, []int{10, 20, 40, 80, 80, 70}, sizes)
}

func TestInvalidRequestsOfKV(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		kv, ctx := pb.NewKVClient(conn), t.Context()
		deep := &pb.TxnRequest{}
		for range 40 {
			deep = &pb.TxnRequest{Success: []*pb.RequestOp{txnOp(deep)}}
		}
		var many []*pb.RequestOp
		for i := range 129 {
			many = append(many, putOp(fmt.Sprint(i)))
		}
		txn := func(r *pb.TxnRequest) error { return second(kv.Txn(ctx, r)) }
		for _, c := range []struct {
			code codes.Code
			text string
			err  error
		}{
			{codes.InvalidArgument, "etcdserver: key is not provided", second(kv.Range(ctx, &pb.RangeRequest{}))},
			{codes.InvalidArgument, "etcdserver: invalid sort option", second(kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), SortOrder: 3}))},
			{codes.InvalidArgument, "etcdserver: invalid sort option", second(kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), SortTarget: 5}))},
			{codes.InvalidArgument, "etcdserver: key is not provided", second(kv.Put(ctx, &pb.PutRequest{}))},
			{codes.InvalidArgument, "etcdserver: value is provided", second(kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), IgnoreValue: true, Value: []byte("v")}))},
			{codes.InvalidArgument, "etcdserver: lease is provided", second(kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), IgnoreLease: true, Lease: 1}))},
			{codes.InvalidArgument, "etcdserver: key not found", second(kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), IgnoreLease: true}))},
			{codes.NotFound, "etcdserver: requested lease not found", second(kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Lease: 1}))},
			{codes.InvalidArgument, "etcdserver: request is too large", second(kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1600<<10)}))},
			{codes.InvalidArgument, "etcdserver: key is not provided", second(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{}))},
			{codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision", second(kv.Compact(ctx, &pb.CompactionRequest{Revision: 9}))},
			{codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted", second(kv.Compact(ctx, &pb.CompactionRequest{Revision: -1}))},
			{codes.InvalidArgument, "etcdserver: key is not provided", txn(&pb.TxnRequest{Compare: []*pb.Compare{{}}})},
			{codes.InvalidArgument, "etcdserver: key not found", txn(&pb.TxnRequest{Failure: []*pb.RequestOp{{}}})},
			{codes.InvalidArgument, "etcdserver: too many operations in txn request", txn(&pb.TxnRequest{Success: many})},
			{codes.InvalidArgument, "etcdserver: too many operations in txn request", txn(&pb.TxnRequest{Success: append(many[:127:127], txnOp(&pb.TxnRequest{Success: many[:1]}))})},
			{codes.InvalidArgument, "etcdserver: too many operations in txn request", txn(deep)},
			{codes.InvalidArgument, "etcdserver: duplicate key given in txn request", txn(&pb.TxnRequest{Success: []*pb.RequestOp{putOp("k"), putOp("k")}})},
		} {
			requireError(t, c.code, c.text, c.err)
		}
	})
}

func second(_ any, err error) error { return err }

// A message that is larger than a request may be is rejected before it is decoded.
func TestMessageThatIsTooLarge(t *testing.T) {
	kv := pb.NewKVClient(dial(t, serve(t, open(t))))
	_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3<<20)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}
