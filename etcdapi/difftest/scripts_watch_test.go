// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func createWatch(q *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: q}}
}

// fragments makes revisions that are larger than a response with previous values, and watches them with and without
// fragments.
func (g *generator) fragments() request {
	name, value := []byte(pick(g, "a", "x")), []byte(strings.Repeat("z", 600<<10))
	end := append(name[:1:1], 0xff)
	txn := &pb.TxnRequest{}
	for i := range 2 {
		put := &pb.PutRequest{Key: fmt.Appendf(nil, "%s%d", name, i), Value: value}
		txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
	}
	return scripted("fragments", &pb.DeleteRangeRequest{Key: name, RangeEnd: end}, func(ctx context.Context, e *endpoint, s *script) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for _, fragment := range []bool{false, true} {
			stream, err := e.watch.Watch(ctx)
			if err == nil {
				err = sent(stream.Send(createWatch(&pb.WatchCreateRequest{Key: name, RangeEnd: end, PrevKv: true, Fragment: fragment})))
			}
			receive(s, stream, err)
			for range 3 {
				_, err := e.kv.Txn(ctx, txn)
				s.say(err)
				for more := true; more && err == nil; {
					var r *pb.WatchResponse
					r, err = stream.Recv()
					s.say(err)
					more = r.GetFragment()
					for _, event := range r.GetEvents() {
						s.said = append(s.said, fmt.Sprintf("fragment %t: %s %q, %d bytes after %d", more, event.Type, event.Kv.Key,
							len(event.Kv.Value), len(event.GetPrevKv().GetValue())))
					}
				}
			}
		}
		ask(ctx, s, e.kv.DeleteRange, &pb.DeleteRangeRequest{Key: name, RangeEnd: end})
	})
}

// notifications waits for the progress of one watch on each of three streams: from the present, from the past, and from
// the future. The last one gets no notification.
func (g *generator) notifications() request {
	from := pick(g, 0, g.rev, g.rev+5)
	q := &pb.WatchCreateRequest{Key: []byte("none"), StartRevision: from, ProgressNotify: true}
	return scripted("notifications", q, func(ctx context.Context, e *endpoint, s *script) {
		ctx, cancel := context.WithTimeout(ctx, 3*progressInterval)
		if from <= g.rev {
			ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
		}
		defer cancel()
		stream, err := e.watch.Watch(ctx)
		if err == nil {
			err = sent(stream.Send(createWatch(q)))
		}
		receive(s, stream, err)
		receive(s, stream, err)
	})
}
