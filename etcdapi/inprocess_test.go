// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

func TestConnEndsCallsWithTheirContexts(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := pb.NewWatchClient(conn).Watch(ctx)
		require.NoError(t, err)
		cancel()
		_, err = stream.Recv()
		require.Equal(t, codes.Canceled, status.Code(err))
		_, err = pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("k")})
		require.Equal(t, codes.Canceled, status.Code(err))
	})
}

func TestConnEndsStreamsAfterTheLastAnswer(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(t.Context())
		require.NoError(t, err)
		for id := int64(1); id <= 3; id++ {
			require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: id}))
			r, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, id, r.ID)
		}
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
	})
}

func TestConnKnowsItsMethods(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		err := conn.Invoke(t.Context(), "/etcdserverpb.KV/Nothing", &pb.PutRequest{}, &pb.PutResponse{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/etcdserverpb.KV/Nothing")
		if err == nil {
			err = stream.RecvMsg(&pb.PutResponse{})
		}
		require.Equal(t, codes.Unimplemented, status.Code(err))
	})
}

// A client that changes an answer does not change the store.
func TestAnswersBelongToTheClient(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		kv := pb.NewKVClient(conn)
		key, value := []byte("k"), []byte("value")
		_, err := kv.Put(t.Context(), &pb.PutRequest{Key: key, Value: value})
		require.NoError(t, err)
		key[0], value[0] = 'x', 'x'
		for range 2 {
			r, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
			require.NoError(t, err)
			require.Equal(t, "k=value", string(r.Kvs[0].Key)+"="+string(r.Kvs[0].Value))
			r.Kvs[0].Key[0], r.Kvs[0].Value[0] = 'x', 'x'
		}
	})
}

// BenchmarkConn compares the client without a network with gRPC over a listener in memory.
func BenchmarkConn(b *testing.B) {
	n := open(b)
	for name, conn := range map[string]grpc.ClientConnInterface{"direct": etcdapi.NewConn(n), "memory": inMemory(b, n), "TCP": dial(b, serve(b, n))} {
		kv := pb.NewKVClient(conn)
		_, err := kv.Put(b.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte(strings.Repeat("v", 256))})
		require.NoError(b, err)
		b.Run(name+"/range", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := kv.Range(b.Context(), &pb.RangeRequest{Key: []byte("k"), Serializable: true})
				require.NoError(b, err)
			}
		})
		b.Run(name+"/watch", func(b *testing.B) {
			stream, err := pb.NewWatchClient(conn).Watch(b.Context())
			require.NoError(b, err)
			create := &pb.WatchCreateRequest{Key: []byte("k")}
			require.NoError(b, stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}))
			_, err = stream.Recv()
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				_, err := n.Put(b.Context(), "k", "v")
				require.NoError(b, err)
				_, err = stream.Recv()
				require.NoError(b, err)
			}
		})
	}
}

// inMemory connects to a node through gRPC over a listener in memory.
func inMemory(b *testing.B, n *coterie.Node) *grpc.ClientConn {
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer(etcdapi.ServerOptions(n)...)
	etcdapi.Register(g, n)
	go func() { _ = g.Serve(l) }()
	b.Cleanup(g.Stop)
	conn, err := grpc.NewClient("passthrough:memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	require.NoError(b, err)
	b.Cleanup(func() { conn.Close() })
	return conn
}
