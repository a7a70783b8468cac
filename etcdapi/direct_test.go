// SPDX-License-Identifier: Apache-2.0

// With the race detector a pool forgets objects at random.
//go:build !race

package etcdapi

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
)

// A registrar keeps the services that are registered, in place of a gRPC server.
type registrar map[string]*grpc.ServiceDesc

func (r registrar) RegisterService(desc *grpc.ServiceDesc, _ any) { r[desc.ServiceName] = desc }

// callsOf returns a node, and a function that calls a method of its KV as the gRPC server of Serve does: with the bytes
// of a request and some metadata. The function returns the bytes of the response.
func callsOf(t testing.TB) (*coterie.Node, func(method string, request proto.Message, md ...string) (call func() mem.BufferSlice)) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.Ready(t.Context()))
	s := newServer(n, nil)
	s.direct, s.encoded = true, new(eventCache)
	s.measures = measuresOf(s)
	services, codec := registrar{}, newCodec()
	s.registerStore(services)
	client, leave := context.WithCancel(context.Background())
	t.Cleanup(leave)
	return n, func(method string, request proto.Message, md ...string) func() mem.BufferSlice {
		md = append(md, "client-api-version", "3.7", "user-agent", "grpc-go")
		ctx := metadata.NewIncomingContext(client, metadata.Pairs(md...))
		text, err := proto.Marshal(request)
		require.NoError(t, err)
		message := mem.BufferSlice{mem.SliceBuffer(text)}
		decode := func(m any) error { return codec.Unmarshal(message, m) }
		for _, m := range services["etcdserverpb.KV"].Methods {
			if m.MethodName == method {
				return func() mem.BufferSlice {
					answer, err := m.Handler(nil, ctx, decode, nil)
					require.NoError(t, err)
					out, err := codec.Marshal(answer)
					require.NoError(t, err)
					return out
				}
			}
		}
		t.Fatal("no method ", method)
		return nil
	}
}

func TestAllocationsOfCalls(t *testing.T) {
	n, calls := callsOf(t)
	noUser := coterie.NewUserView(n, "") // as a client without credentials
	key, value := "key-0001", string(make([]byte, 256))
	put := calls("Put", &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	read := func(serializable bool, md ...string) func() mem.BufferSlice {
		return calls("Range", &pb.RangeRequest{Key: []byte(key), Serializable: serializable}, md...)
	}
	put()
	var r pb.RangeResponse
	require.NoError(t, newCodec().Unmarshal(read(true)(), &r))
	require.Equal(t, value, string(r.Kvs[0].Value))
	for _, c := range []struct {
		name string
		call func() mem.BufferSlice
		own  func() error // the same call of the node
		most float64      // allocations beside those of the node
	}{
		{"a serializable range", read(true), func() error {
			_, err := noUser.Get(t.Context(), key, coterie.WithSerializable())
			return err
		}, 6},
		{"a serializable range that needs a leader", read(true, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader), func() error {
			_, err := noUser.Get(t.Context(), key, coterie.WithSerializable())
			return err
		}, 7}, // a copy of the metadata
		{"a linearizable range", read(false), func() error {
			_, err := noUser.Get(t.Context(), key)
			return err
		}, 9},
		{"a put", put, func() error {
			_, err := noUser.Put(t.Context(), key, value)
			return err
		}, 12},
	} {
		own := testing.AllocsPerRun(1000, func() { require.NoError(t, c.own()) })
		got := testing.AllocsPerRun(1000, func() { c.call().Free() })
		t.Logf("%s: %.0f allocations, of which %.0f are the node's", c.name, got, own)
		require.LessOrEqual(t, got-own, c.most, c.name)
	}
}

// BenchmarkCalls measures calls from the bytes of a request to those of the response, without gRPC.
func BenchmarkCalls(b *testing.B) {
	_, calls := callsOf(b)
	key := []byte("key-0001")
	for _, c := range []struct {
		name, method string
		request      proto.Message
	}{
		{"put", "Put", &pb.PutRequest{Key: key, Value: make([]byte, 256)}},
		{"linearizable", "Range", &pb.RangeRequest{Key: key}},
		{"serializable", "Range", &pb.RangeRequest{Key: key, Serializable: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			call := calls(c.method, c.request)
			b.ReportAllocs()
			for b.Loop() {
				call().Free()
			}
		})
	}
}
