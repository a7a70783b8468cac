// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
)

// An observed is everything that an endpoint has sent about a watch, in order, without the limits of responses.
type observed struct {
	said []string
}

// A watchStream is a stream of an endpoint, with the responses to it. The goroutine of receive owns received until ended is
// closed; the test owns alive.
type watchStream struct {
	name      string
	stream    pb.Watch_WatchClient
	created   chan *pb.WatchResponse
	progress  chan int64
	cancelled chan int64
	alive     map[int64]bool      // the IDs of watches that have not ended
	received  map[int64]*observed // by watch ID
	ended     chan struct{}
}

func openStream(ctx context.Context, e *endpoint) (*watchStream, error) {
	stream, err := e.watch.Watch(ctx)
	if err != nil {
		return nil, err
	}
	s := &watchStream{
		name: e.name, stream: stream, created: make(chan *pb.WatchResponse, 100), progress: make(chan int64, 100),
		cancelled: make(chan int64, 100), alive: map[int64]bool{}, received: map[int64]*observed{}, ended: make(chan struct{}),
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
			delete(last, id) // of an earlier watch with this ID
			delete(partial, id)
			s.created <- r
		case r.Canceled:
			// etcd takes up to 100 ms to notice a compaction. Only the reason is comparable.
			o.said = append(o.said, fmt.Sprintf("cancelled: compact revision %d, reason %q, revision 0: %t", r.CompactRevision, r.CancelReason,
				r.Header.Revision == 0))
			s.cancelled <- id
		case len(r.Events) == 0 && id == -1:
			s.progress <- r.Header.Revision
		case len(r.Events) == 0: // the other server may notify at another time
			if r.Header.Revision < last[id] || partial[id] {
				o.said = append(o.said, fmt.Sprintf("WRONG: progress %d after %d", r.Header.Revision, last[id]))
			}
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
	user := c.identity()
	etcd, err := openStream(c.etcd.as(ctx, user), c.etcd)
	if err != nil {
		c.Fatal(err)
	}
	node, err := openStream(c.node.as(ctx, user), c.node)
	if err != nil {
		c.Fatal(err)
	}
	both := []*watchStream{etcd, node}
	var open []*pb.WatchCreateRequest
	for range 1 + c.IntN(2) {
		open = append(open, c.watchRound(ctx, both)...)
		for _, s := range both {
			if err := s.drain(ctx, c.rev); err != nil {
				c.Fatalf("request %d of seed %d: %s: %v; watches %v", c.sent, *seed, s.name, err, open)
			}
		}
		for range c.IntN(3) {
			c.cancel(ctx, int64(c.IntN(5))-1, both)
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

// watchRound creates watches between writes, and goes on until the last of them has begun.
func (c *comparison) watchRound(ctx context.Context, both []*watchStream) (open []*pb.WatchCreateRequest) {
	future := int64(0)
	for range 1 + c.IntN(3) {
		for range c.IntN(3) {
			c.do(c.write())
		}
		q := c.watch()
		open = append(open, q)
		id := c.create(ctx, q, both)
		if q.StartRevision > c.rev+100 { // it never begins
			c.cancel(ctx, id, both)
		} else {
			future = max(future, q.StartRevision)
		}
	}
	for range c.IntN(8) {
		c.do(c.write())
	}
	// Loop at least once, because an earlier answer may be older than the watches.
	for again := true; again || c.rev < future; again = false {
		c.doAs(c.freshRoot(), to("Put", &pb.PutRequest{Key: []byte("a")}, kv, pb.KVClient.Put))
	}
	return open
}

// create creates a watch on both streams, compares the answers, and returns the ID of the watch.
func (c *comparison) create(ctx context.Context, q *pb.WatchCreateRequest, both []*watchStream) (id int64) {
	c.sent++
	var answers []string
	for _, s := range both {
		if err := s.stream.Send(createWatch(q)); err != nil {
			c.Fatal(err)
		}
		select {
		case r := <-s.created:
			id = r.WatchId
			if !r.Canceled {
				s.alive[id] = true
			}
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
	return id
}

// cancel cancels a watch on both streams. A watch that does not exist gets no answer.
func (c *comparison) cancel(ctx context.Context, id int64, both []*watchStream) {
	c.sent++
	for _, s := range both {
		if err := s.cancel(id); err != nil {
			c.Fatal(err)
		}
		if !s.alive[id] {
			continue
		}
		delete(s.alive, id)
		if err := s.awaitCancelled(ctx, id); err != nil {
			c.Errorf("request %d of seed %d: %s does not cancel watch %d: %v", c.sent, *seed, s.name, id, err)
		}
	}
}

// awaitCancelled waits until a watch was cancelled. At the same time a compaction may end others, which drain handles.
func (s *watchStream) awaitCancelled(ctx context.Context, id int64) error {
	var others []int64
	for {
		select {
		case cancelled := <-s.cancelled:
			if cancelled != id {
				others = append(others, cancelled)
				continue
			}
			for _, other := range others {
				s.cancelled <- other
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ended:
			return io.EOF
		}
	}
}

func (s *watchStream) cancel(id int64) error {
	return s.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

// drain waits until the stream has reported every event up to a revision. etcd answers no question about progress while
// a watch is behind, never again after a compaction has ended one, unless the client cancels it, and not without watches.
func (s *watchStream) drain(ctx context.Context, rev int64) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	ended := map[int64]int{} // the answers by which a watch has ended: for a compaction, and for the client
	reported, ending := false, 0
	for len(s.alive) > 0 && !reported || ending > 0 || len(s.cancelled) > 0 {
		ask := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
		if err := s.stream.Send(ask); err != nil {
			return err
		}
		select {
		case reached := <-s.progress:
			reported = reported || reached >= rev
		case id := <-s.cancelled:
			delete(s.alive, id)
			if ended[id]++; ended[id] == 2 {
				ending--
				ended[id] = 0
				continue
			}
			ending++
			if err := s.cancel(id); err != nil {
				return err
			}
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
