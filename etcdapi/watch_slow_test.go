// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// slowWatchers opens streams with watches of a key, on connections of their own. The client reads only the answers that
// the watches were created.
func slowWatchers(t *testing.T, addr string, streams, watches int) (slow []*watchStream) {
	for range streams {
		s := openWatchStream(t, dial(t, addr))
		for range watches {
			s.request(&pb.WatchCreateRequest{Key: []byte("key")})
		}
		slow = append(slow, s)
	}
	return slow
}

// If its client does not read, a stream of watches holds 64 KiB and a message: gRPC accepts no more, and the watches
// wait.
func TestSlowWatchesHoldBoundedMemory(t *testing.T) {
	n := open(t)
	addr := serve(t, n)
	const streams, watches, puts, size = 20, 5, 1000, 3 << 10
	value := strings.Repeat("v", size)
	write := func() {
		for i := range puts {
			_, err := n.Put(t.Context(), "key", fmt.Sprint(i, value))
			require.NoError(t, err)
		}
	}
	before := heap()
	write()
	history := heap() - before // of the store, and of the log in memory
	slow := slowWatchers(t, addr, streams, watches)
	reader := openWatchStream(t, dial(t, addr))
	reader.request(&pb.WatchCreateRequest{Key: []byte("key")})
	before = heap()
	write()
	for i := 0; i < puts; { // the other client gets every event meanwhile
		for _, e := range reader.next().Events {
			require.True(t, strings.HasPrefix(string(e.Kv.Value), fmt.Sprint(i, "v")))
			i++
		}
	}
	held := heap() - before - history
	t.Logf("%d bytes a stream; without a bound, %d", held/streams, watches*puts*size)
	// The clients are in this process, too, and hold as much as the window of a stream: 64 KiB. The rest is for the
	// history, because its size in memory varies.
	require.Less(t, held, int64(streams*(2<<20)))

	// The events wait: each watch gets all of them in order.
	next := map[int64]int{}
	for left := watches * puts; left > 0; {
		r := slow[0].next()
		for _, e := range r.Events {
			require.True(t, strings.HasPrefix(string(e.Kv.Value), fmt.Sprint(next[r.WatchId], "v")))
			next[r.WatchId]++
			left--
		}
	}
	// A compaction overtakes the others. Each of their watches ends with an answer that has the reason.
	_, err := n.Compact(t.Context(), n.Header().Revision)
	require.NoError(t, err)
	ended := map[int64]bool{}
	for len(ended) < watches {
		if r := slow[1].next(); r.Canceled {
			require.Equal(t, n.Status().CompactRevision, r.CompactRevision)
			ended[r.WatchId] = true
		}
	}
}

// A response refers to the values of the store, so that many slow readers of large values share them.
func TestSlowRangesShareLargeValues(t *testing.T) {
	n := open(t)
	addr := serve(t, n)
	const keys, size, calls = 16, 1 << 20, 10
	value := strings.Repeat("v", size)
	for i := range keys {
		_, err := n.Put(t.Context(), fmt.Sprint("key", i), value)
		require.NoError(t, err)
	}
	before := heap()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range calls {
		// RangeStream is a stream, so its client decides when it reads.
		stream, err := pb.NewKVClient(dial(t, addr)).RangeStream(ctx, &pb.RangeRequest{Key: []byte("key"), RangeEnd: []byte("kez")})
		require.NoError(t, err)
		_, err = stream.Header() // the first response is on its way
		require.NoError(t, err)
	}
	held := heap() - before
	t.Logf("%d bytes a call, of %d", held/calls, keys*size)
	require.Less(t, held, int64(calls*keys*size/2))
}

func TestRequestsOverTheLimitAreRejected(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxRequestBytes = 64 << 10 })
	kv := pb.NewKVClient(dial(t, serve(t, n)))
	_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("key"), Value: make([]byte, 60<<10)})
	require.NoError(t, err)
	_, err = kv.Put(t.Context(), &pb.PutRequest{Key: []byte("key"), Value: make([]byte, 70<<10)})
	require.ErrorContains(t, err, "request is too large")
	_, err = kv.Put(t.Context(), &pb.PutRequest{Key: []byte("key"), Value: make([]byte, 1<<20)}) // the server does not read it
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

func TestStreamsOverTheLimitWait(t *testing.T) {
	addr := serve(t, open(t), etcdapi.WithMaxStreams(2))
	conn := dial(t, addr)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		stream, err := pb.NewWatchClient(conn).Watch(ctx)
		require.NoError(t, err)
		s := &watchStream{t, stream}
		s.request(&pb.WatchCreateRequest{Key: []byte("key")})
	}
	read := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("key")})
		return err
	}
	require.Equal(t, codes.DeadlineExceeded, status.Code(read(100*time.Millisecond)))
	cancel()
	require.NoError(t, read(10*time.Second))
}
