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
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/etcdapi"
)

// A watchStream is a stream of a test.
type watchStream struct {
	testing.TB
	pb.Watch_WatchClient
}

func openWatchStream(t testing.TB, conn grpc.ClientConnInterface) *watchStream {
	t.Helper()
	stream, err := pb.NewWatchClient(conn).Watch(t.Context())
	require.NoError(t, err)
	return &watchStream{t, stream}
}

func (s *watchStream) next() *pb.WatchResponse {
	s.Helper()
	r, err := s.Recv()
	require.NoError(s, err)
	return r
}

func (s *watchStream) create(r *pb.WatchCreateRequest) {
	s.Helper()
	require.NoError(s, s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}))
}

// request asks for a watch and returns the answer.
func (s *watchStream) request(r *pb.WatchCreateRequest) *pb.WatchResponse {
	s.Helper()
	s.create(r)
	created := s.next()
	require.True(s, created.Created)
	return created
}

func (s *watchStream) cancel(id int64) {
	s.Helper()
	require.NoError(s, s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}))
}

func (s *watchStream) askProgress() {
	s.Helper()
	require.NoError(s, s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}))
}

func put(t testing.TB, n *coterie.Node, key, val string) int64 {
	t.Helper()
	r, err := n.Put(t.Context(), key, val)
	require.NoError(t, err)
	return r.Revision
}

// The client of clientv3 sends a request while it does not receive. Then a handler that sends must not hold it up.
func TestRequestsNeedNotWaitForResponses(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		stream, err := pb.NewWatchClient(conn).Watch(ctx)
		require.NoError(t, err)
		s := &watchStream{t, stream}
		for id := range int64(100) {
			s.create(&pb.WatchCreateRequest{WatchId: id + 1, Key: []byte("k")})
		}
		for id := range int64(100) {
			require.Equal(t, id+1, s.next().WatchId)
		}
	})
}

func TestT34_WatchIDs(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		s := openWatchStream(t, conn)
		for _, c := range []struct{ asked, want int64 }{{0, 0}, {2, 2}, {0, 1}, {0, 3}, {-1, -1}} {
			r := s.request(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: c.asked})
			require.Equal(t, c.want, r.WatchId)
			require.False(t, r.Canceled)
		}
		r := s.request(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 2})
		require.True(t, r.Canceled)
		require.EqualValues(t, -1, r.WatchId)
		require.Equal(t, "mvcc: duplicate watch ID provided on the WatchStream", r.CancelReason)
	})
}

func TestWatchesThatAreNotCreated(t *testing.T) {
	conns(t, func(t *testing.T, _ *coterie.Node, conn grpc.ClientConnInterface) {
		s := openWatchStream(t, conn)
		for reason, r := range map[string]*pb.WatchCreateRequest{
			"mvcc: watcher range is empty":  {Key: []byte("b"), RangeEnd: []byte("b")},
			rpctypes.ErrCompacted.Error():   {Key: []byte("b"), StartRevision: -1},
			"mvcc: watcher range is empty ": {RangeEnd: []byte("\x00\x00"), Key: []byte("\x01")},
		} {
			created := s.request(r)
			require.True(t, created.Canceled)
			require.EqualValues(t, -1, created.WatchId)
			require.Equal(t, strings.TrimSpace(reason), created.CancelReason)
			require.EqualValues(t, 1, created.Header.Revision)
		}
	})
}

func TestT35_CompactedWatchIsCreatedFirst(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		for range 4 {
			put(t, n, "k", "v")
		}
		_, err := n.Compact(t.Context(), 4)
		require.NoError(t, err)
		s := openWatchStream(t, conn)
		require.False(t, s.request(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: 3}).Canceled)
		r := s.next()
		require.True(t, r.Canceled)
		require.EqualValues(t, 4, r.CompactRevision)
		require.Zero(t, r.Header.Revision)
		require.Empty(t, r.CancelReason)

		require.False(t, s.request(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: 4}).Canceled)
		for rev := int64(4); rev <= 5; {
			r := s.next()
			require.EqualValues(t, 1, r.WatchId)
			for _, e := range r.Events { // of one revision or of both
				require.Equal(t, rev, e.Kv.ModRevision)
				rev++
			}
			require.Equal(t, rev-1, r.Header.Revision)
		}
	})
}

func TestT36_FutureWatchIsSilentUntilThen(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		s := openWatchStream(t, conn)
		s.request(&pb.WatchCreateRequest{Key: []byte("k"), StartRevision: 4})
		put(t, n, "k", "2")
		put(t, n, "k", "3")
		s.askProgress() // etcd, too, leaves it unanswered
		s.cancel(99)    // so that the node has handled the question
		put(t, n, "k", "4")
		require.Equal(t, "4", string(s.next().Events[0].Kv.Value))
		s.askProgress()
		r := s.next()
		require.EqualValues(t, -1, r.WatchId)
		require.EqualValues(t, 4, r.Header.Revision)
	})
}

func TestT37_ProgressFollowsTheEvents(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		s := openWatchStream(t, conn)
		s.askProgress() // without watches there is no answer
		for id := range int64(3) {
			require.Equal(t, id, s.request(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")}).WatchId)
		}
		for i := range 50 {
			rev := put(t, n, fmt.Sprint("k", i), "v")
			s.askProgress()
			events := map[int64]bool{}
			for len(events) < 3 {
				r := s.next()
				require.Len(t, r.Events, 1)
				require.Equal(t, rev, r.Events[0].Kv.ModRevision)
				events[r.WatchId] = true
			}
			r := s.next()
			require.Empty(t, r.Events)
			require.EqualValues(t, -1, r.WatchId)
			require.Equal(t, rev, r.Header.Revision)
		}
	})
}

func TestT45_CancelOfUnknownWatch(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		s := openWatchStream(t, conn)
		s.request(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 7})
		s.cancel(1)
		s.cancel(7)
		r := s.next()
		require.True(t, r.Canceled)
		require.EqualValues(t, 7, r.WatchId)
		require.Empty(t, r.CancelReason)
		put(t, n, "k", "v")
		require.EqualValues(t, 7, s.request(&pb.WatchCreateRequest{Key: []byte("k"), WatchId: 7}).WatchId, "the ID is free again")
	})
}

func TestWatchOptions(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		s := openWatchStream(t, conn)
		s.request(&pb.WatchCreateRequest{Key: []byte("k"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}, PrevKv: true})
		put(t, n, "k", "1")
		put(t, n, "other", "1")
		_, err := n.Delete(t.Context(), "k")
		require.NoError(t, err)
		e := s.next().Events[0]
		require.Equal(t, mvccpb.Event_DELETE, e.Type)
		require.Equal(t, "1", string(e.PrevKv.Value))
		require.EqualValues(t, 4, e.Kv.ModRevision)
		require.Zero(t, e.Kv.CreateRevision)
		s.cancel(0)
		s.next()
		s.request(&pb.WatchCreateRequest{RangeEnd: []byte{0}, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}})
		_, err = n.Delete(t.Context(), "other")
		require.NoError(t, err)
		put(t, n, "k", "2")
		require.Equal(t, "2", string(s.next().Events[0].Kv.Value), "an empty key is the least one")
	})
}

func TestT39_FragmentsAreMarked(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxRequestBytes = 2 << 20 })
	conn := etcdapi.NewConn(n)
	whole, parts := openWatchStream(t, conn), openWatchStream(t, conn)
	whole.request(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true})
	parts.request(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true, Fragment: true})
	var ops []coterie.Op
	for i := range 6 {
		ops = append(ops, coterie.OpPut(fmt.Sprint("k", i), strings.Repeat("v", 300<<10)))
	}
	for range 2 { // the second time, each event has two values, so that all are larger than a request may be
		_, err := n.Txn(t.Context()).Then(ops...).Commit()
		require.NoError(t, err)
	}
	require.Len(t, whole.next().Events, 6)
	require.Len(t, whole.next().Events, 6)
	require.Len(t, parts.next().Events, 6)
	first, second := parts.next(), parts.next()
	require.True(t, first.Fragment)
	require.False(t, second.Fragment)
	require.Equal(t, first.Header.Revision, second.Header.Revision)
	require.Len(t, append(first.Events, second.Events...), 6)
}

func TestProgressNotifications(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		s := openWatchStream(t, etcdapi.NewConn(c.Leader(), etcdapi.WithProgressInterval(10*time.Second)))
		s.request(&pb.WatchCreateRequest{Key: []byte("k"), ProgressNotify: true})
		s.request(&pb.WatchCreateRequest{Key: []byte("k")})
		s.request(&pb.WatchCreateRequest{Key: []byte("k"), ProgressNotify: true, StartRevision: 99})
		begin := time.Now()
		for range 3 {
			rev := put(t, c.Leader(), "other", "v")
			r := s.next()
			require.Zero(t, r.WatchId)
			require.Empty(t, r.Events)
			require.Equal(t, rev, r.Header.Revision)
		}
		require.GreaterOrEqual(t, time.Since(begin), 30*time.Second)
		require.LessOrEqual(t, time.Since(begin), 34*time.Second)
		put(t, c.Leader(), "k", "v")
		for range 2 {
			require.Len(t, s.next().Events, 1)
		}
		begin = time.Now()
		require.Zero(t, s.next().WatchId)
		require.Greater(t, time.Since(begin), 11*time.Second, "an event takes the place of the next notification")
	})
}

// A client that does not receive costs no memory and delays no other client.
func TestSlowClientMissesNothing(t *testing.T) {
	n := open(t)
	conn := dial(t, serve(t, n))
	slow, quick := openWatchStream(t, conn), openWatchStream(t, conn)
	for _, s := range []*watchStream{slow, quick} {
		s.request(&pb.WatchCreateRequest{Key: []byte("k")})
	}
	const writes = 2000
	for i := range writes {
		put(t, n, "k", fmt.Sprint(strings.Repeat("v", 1000), i))
		require.Len(t, quick.next().Events, 1)
	}
	messages := 0
	for i := 0; i < writes; messages++ {
		for _, e := range slow.next().Events {
			require.Equal(t, fmt.Sprint(strings.Repeat("v", 1000), i), string(e.Kv.Value))
			i++
		}
	}
	require.Less(t, messages, writes, "a message has several revisions if the client is slow")
}
