// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Like etcd, a stream sends several revisions of a watch that is behind in one message. These constants bound such a
// message; a message of one revision may be larger.
const (
	maxAnswerEvents = 1000
	maxAnswerBytes  = 64 << 10
)

// deliver sends responses of the set, up to a number. It returns true if the set has no more.
func (w *watchStream) deliver(responses int) (drained bool, err error) {
	defer func() { w.answer.clear() }()
	for range responses {
		id, r, ok := w.set.Next()
		// The message so far is complete if the next response does not fit.
		if a := &w.answer; len(a.revisions) > 0 && (!ok || !a.fits(id, &r) || w.watches[id].fragment) {
			if err := w.sendAnswer(); err != nil {
				return false, err
			}
		}
		if !ok {
			return true, nil
		}
		switch v := w.watches[id]; {
		case r.Err != nil:
			err = w.end(v, r.Err)
		case len(r.Events) == 0:
			err = w.progressed(v, r.Header)
		default:
			v.quiet = false
			w.answer.add(id, &r.WatchResponse)
		}
		if err != nil {
			return false, err
		}
	}
	if len(w.answer.revisions) > 0 {
		err = w.sendAnswer()
	}
	return false, err
}

// sendAnswer sends the message that deliver has made.
func (w *watchStream) sendAnswer() error {
	a := &w.answer
	defer a.clear()
	w.mine(a.header())
	fragment := w.watches[a.id].fragment
	if w.direct && (!fragment || a.count == 1) {
		a.events = w.encoded
		return w.stream.SendMsg(a)
	}
	resp := &pb.WatchResponse{Header: header(*a.header()), WatchId: a.id}
	for i := range a.revisions {
		resp.Events = append(resp.Events, events(a.revisions[i].Events)...)
	}
	for _, part := range fragments(resp, fragment, w.limits.MaxRequestBytes+requestOverhead) {
		if err := w.stream.Send(part); err != nil {
			return err
		}
	}
	return nil
}

// fragments splits a response that is too large, if the client has asked for that. Every part but the last is marked.
func fragments(r *pb.WatchResponse, split bool, limit int) (parts []*pb.WatchResponse) {
	if !split || len(r.Events) < 2 || proto.Size(r) < limit {
		return []*pb.WatchResponse{r}
	}
	empty := proto.Size(&pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true})
	part, size := (*pb.WatchResponse)(nil), 0
	for i, e := range r.Events {
		one := proto.Size(&pb.WatchResponse{Events: r.Events[i : i+1]})
		if part == nil || size+one >= limit {
			part = &pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true}
			parts, size = append(parts, part), empty
		}
		part.Events = append(part.Events, e)
		size += one
	}
	part.Fragment = false
	return parts
}
