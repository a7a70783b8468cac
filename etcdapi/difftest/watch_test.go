// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
)

// An observed watch is everything that an endpoint has said about a watch, in order, except for the limits of responses.
type observed struct {
	said []string
}

// A watchStream is a stream of an endpoint, and what was received.
type watchStream struct {
	name      string
	stream    pb.Watch_WatchClient
	created   chan *pb.WatchResponse
	progress  chan int64
	cancelled chan int64
	received  map[int64]*observed // by watch ID; valid once the stream has ended
	ended     chan struct{}
}

func openStream(ctx context.Context, e *endpoint) (*watchStream, error) {
	stream, err := e.watch.Watch(ctx)
	if err != nil {
		return nil, err
	}
	s := &watchStream{
		name: e.name, stream: stream, created: make(chan *pb.WatchResponse, 100), progress: make(chan int64, 100),
		cancelled: make(chan int64, 100), received: map[int64]*observed{}, ended: make(chan struct{}),
	}
	go s.receive()
	return s, nil
}

// receive notes the responses. A response with events must not have a header before the last of them, nor split a
// revision.
func (s *watchStream) receive() {
	defer close(s.ended)
	last := map[int64]int64{}
	partial := map[int64]bool{}
	for {
		r, err := s.stream.Recv()
		if err != nil {
			return
		}
		normalize(r)
		id := r.WatchId
		if s.received[id] == nil {
			s.received[id] = &observed{}
		}
		o := s.received[id]
		switch {
		case r.Created:
			s.created <- r
		case r.Canceled:
			// etcd takes up to 100 ms to notice a compaction. Only the reason is comparable.
			o.said = append(o.said, fmt.Sprintf("cancelled: compact revision %d, reason %q, revision 0: %t", r.CompactRevision, r.CancelReason,
				r.Header.Revision == 0))
			s.cancelled <- id
		case len(r.Events) == 0:
			s.progress <- r.Header.Revision
		default:
			for _, e := range r.Events {
				o.said = append(o.said, prototext.MarshalOptions{}.Format(e))
			}
			first, newest := r.Events[0].Kv.ModRevision, r.Events[len(r.Events)-1].Kv.ModRevision
			if r.Header.Revision < newest || first <= last[id] && !partial[id] {
				o.said = append(o.said, fmt.Sprintf("WRONG: header %d, events from %d to %d, after %d", r.Header.Revision, first, newest, last[id]))
			}
			last[id], partial[id] = newest, r.Fragment
		}
	}
}

// watchEpisode opens a stream with watches, executes writes, and compares everything that the watches have reported.
func (c *comparison) watchEpisode() {
	ctx, cancel := context.WithTimeout(c.Context(), 20*time.Second)
	defer cancel()
	etcd, err := openStream(ctx, c.etcd)
	if err != nil {
		c.Fatal(err)
	}
	node, err := openStream(ctx, c.node)
	if err != nil {
		c.Fatal(err)
	}
	both := []*watchStream{etcd, node}
	var open []*pb.WatchCreateRequest
	watches, future := 0, int64(0)
	for range 1 + c.IntN(4) {
		for range c.IntN(3) {
			c.do(c.write())
		}
		q := c.watch()
		open = append(open, q)
		future = max(future, q.StartRevision)
		if c.create(ctx, q, both) {
			watches++
		}
	}
	for range c.IntN(8) {
		c.do(c.write())
	}
	for c.rev < future {
		c.do(to("Put", &pb.PutRequest{Key: []byte("a")}, kv, pb.KVClient.Put))
	}
	for _, s := range both {
		if watches == 0 {
			break // and no answer to a question about progress
		}
		if err := s.drain(ctx, c.rev, watches); err != nil {
			c.Fatalf("request %d of seed %d: %s: %v; watches %v", c.sent, *seed, s.name, err, open)
		}
	}
	cancel()
	<-etcd.ended
	<-node.ended
	for id, o := range etcd.received {
		other := node.received[id]
		if other == nil {
			other = &observed{}
		}
		if a, b := strings.Join(o.said, "\n"), strings.Join(other.said, "\n"); a != b {
			c.differ(fmt.Sprintf("watch %d of %v", id, open), a, b)
		}
	}
	for id := range node.received {
		if etcd.received[id] == nil {
			c.differ(fmt.Sprintf("watch %d of %v", id, open), "nothing", strings.Join(node.received[id].said, "\n"))
		}
	}
}

// create creates a watch on both streams, compares the answers, and reports whether there is a watch now.
func (c *comparison) create(ctx context.Context, q *pb.WatchCreateRequest, both []*watchStream) (created bool) {
	c.sent++
	var answers []string
	for _, s := range both {
		if err := s.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: q}}); err != nil {
			c.Fatal(err)
		}
		select {
		case r := <-s.created:
			created = !r.Canceled
			answers = append(answers, prototext.Format(r))
		case <-ctx.Done():
			answers = append(answers, "no answer")
		case <-s.ended:
			answers = append(answers, "the stream has ended")
		}
	}
	if answers[0] != answers[1] {
		c.differ("Watch "+q.String(), answers[0], answers[1])
	}
	return created
}

// drain waits until the stream has reported every event up to a revision. etcd answers no question about progress while
// a watch is behind, and never again after a compaction has ended one, unless the client cancels it.
func (s *watchStream) drain(ctx context.Context, rev int64, watches int) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	ended := map[int64]int{} // the answers by which a watch has ended: for a compaction, and for the client
	reported, ending := false, 0
	for !reported || ending > 0 || len(s.cancelled) > 0 {
		ask := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
		if err := s.stream.Send(ask); err != nil {
			return err
		}
		select {
		case reached := <-s.progress:
			reported = reported || reached >= rev
		case id := <-s.cancelled:
			if ended[id]++; ended[id] == 2 {
				ending--
				if watches--; watches == 0 {
					return nil
				}
				continue
			}
			ending++
			cancel := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
			if err := s.stream.Send(cancel); err != nil {
				return err
			}
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
