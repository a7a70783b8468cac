// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// A flood is many connections with many calls each. The requests arrive in part and are never completed.
type flood struct {
	connections, calls int
	body               func() []byte // the part that arrives
	url, kind          string
}

// run returns when every client has sent its part or was disconnected, and returns both numbers.
func (f *flood) run(t *testing.T, ctx context.Context) (sent, ended *atomic.Int64) {
	sent, ended = new(atomic.Int64), new(atomic.Int64)
	var arriving sync.WaitGroup
	for range f.connections {
		transport := &http.Transport{Protocols: new(http.Protocols), MaxConnsPerHost: 1}
		transport.Protocols.SetUnencryptedHTTP2(f.kind == "application/grpc")
		transport.Protocols.SetHTTP1(f.kind != "application/grpc")
		t.Cleanup(transport.CloseIdleConnections)
		for range f.calls {
			arriving.Add(1)
			part := &partialBody{part: bytes.NewReader(f.body()), ctx: ctx, done: sync.OnceFunc(func() { sent.Add(1); arriving.Done() })}
			r, err := http.NewRequestWithContext(ctx, "POST", f.url, part)
			require.NoError(t, err)
			r.Header.Set("Content-Type", f.kind)
			r.Header.Set("Te", "trailers")
			go func() {
				resp, err := transport.RoundTrip(r)
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				if ctx.Err() == nil {
					ended.Add(1)
				}
				part.done()
			}()
		}
	}
	arriving.Wait()
	return sent, ended
}

// A partialBody has a part of a request, and then nothing until ctx ends.
type partialBody struct {
	part *bytes.Reader
	ctx  context.Context
	done func()
}

func (b *partialBody) Read(p []byte) (int, error) {
	if b.part.Len() > 0 {
		return b.part.Read(p)
	}
	b.done()
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b *partialBody) Close() error { return nil }

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Each call is within the bounds of a call, but 24 connections with 10 calls of 1 MiB would take 240 MiB.
func TestFloodOfRequestsIsBounded(t *testing.T) {
	const limit = 32 << 20
	n := open(t)
	addr := serve(t, n, etcdapi.WithMaxReceiving(limit))
	put := func() error {
		_, err := pb.NewKVClient(dial(t, addr)).Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1<<20)})
		return err
	}
	part := append(binary.BigEndian.AppendUint32([]byte{0}, 1_500_000), make([]byte, 1<<20)...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := heap()
	f := flood{24, 10, func() []byte { return part }, "http://" + addr + "/etcdserverpb.KV/Put", "application/grpc"}
	sent, ended := f.run(t, ctx)
	require.Less(t, heap()-before, int64(3*limit), "%d of 240 requests were sent", sent.Load())
	require.Eventually(t, func() bool { return ended.Load() > 0 }, 5*time.Second, time.Millisecond)
	require.NoError(t, put(), "another client continues")
	cancel()
	require.Eventually(t, func() bool { return put() == nil }, 5*time.Second, 10*time.Millisecond)
}

func TestFloodOverHTTPIsBounded(t *testing.T) {
	const limit = 16 << 20
	addr := serve(t, open(t), etcdapi.WithMaxReceiving(limit))
	part := append([]byte(`{"key":"aw==","value":"`), bytes.Repeat([]byte("A"), 1<<20)...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := heap()
	f := flood{64, 1, func() []byte { return part }, "http://" + addr + "/v3/kv/put", "application/json"}
	_, ended := f.run(t, ctx)
	require.Less(t, heap()-before, int64(4*limit))
	require.Eventually(t, func() bool { return ended.Load() > 0 }, 5*time.Second, time.Millisecond)
	cancel()
	require.Eventually(t, func() bool {
		code, _, _ := do(t, "POST", "http://"+addr+"/v3/kv/put", `{"key":"aw=="}`)
		return code == http.StatusOK
	}, 5*time.Second, 10*time.Millisecond)
}

// A connection may make many more calls than the bound allows at once, one after another, however they end.
func TestEndedCallsDoNotCount(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxRequestBytes = 64 << 10 })
	conn := dial(t, serve(t, n, etcdapi.WithMaxReceiving(4<<20)))
	kv := pb.NewKVClient(conn)
	for range 1500 {
		_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 10_000)})
		require.NoError(t, err)
		_, err = kv.Put(t.Context(), &pb.PutRequest{})
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
		ctx, cancel := context.WithCancel(t.Context())
		watch, err := pb.NewWatchClient(conn).Watch(ctx)
		require.NoError(t, err)
		require.NoError(t, watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}))
		_, err = watch.Recv()
		require.NoError(t, err)
		cancel()
	}
	for range 100 {
		_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 1<<20)})
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	}
}
