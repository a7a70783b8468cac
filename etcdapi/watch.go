// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/coterie-kv/coterie"
)

// A watchServer is the service Watch.
type watchServer struct {
	*server
	pb.UnsafeWatchServer
}

// invalidWatch is the ID of a watch that was not created, and of an answer for all watches of a stream.
const invalidWatch = -1

// The errors of etcd for a watch that the server does not create. Clients get the text as the reason.
var (
	errEmptyRange  = errors.New("mvcc: watcher range is empty")
	errDuplicateID = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
)

// Watch serves the watches of a stream on one goroutine, beside the one that receives the requests. The watches read the
// history of the store at the pace at which the client receives. So if its client does not read, a stream holds 64 KiB,
// which gRPC buffers, and a message, however many watches it has.
func (s *watchServer) Watch(stream pb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	w := &watchStream{
		server: s.server, stream: stream, set: coterie.NewWatchSet(s.node), watches: map[int64]*watch{},
		requests: make(chan watchRequest), handled: make(chan struct{}),
	}
	defer w.set.Close()
	user := s.streamUser(stream.Context())
	go func() {
		// If the client ends its requests, its watches continue.
		if err := w.receive(ctx, user); !errors.Is(err, io.EOF) {
			cancel(err)
		}
	}()
	if err := w.run(ctx); err != nil {
		cancel(err)
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return rpctypes.ErrGRPCWatchCanceled
}

// A watchStream is a stream with its watches. The goroutine of run owns all fields, except that the goroutine of receive
// receives from stream.
type watchStream struct {
	*server
	stream pb.Watch_WatchServer
	set    *coterie.WatchSet

	requests chan watchRequest
	handled  chan struct{} // receives a value after each request

	watches map[int64]*watch
	nextID  int64
	ticker  *time.Ticker // for the notifications of progress; nil while no watch wants them
	answer  watchAnswer  // the message that deliver makes
}

// A watch is one watch of a stream.
type watch struct {
	id       int64
	from     int64 // the revision that the client asked for; 0 for the next one
	fragment bool
	progress bool             // it wants notifications
	ended    bool             // by a compaction; its ID stays in use until the client cancels it
	quiet    bool             // nothing was sent since the last tick
	notify   bool             // a notification is due as soon as the node reports progress
	asked    []*progressCheck // requests for progress that the watch has not answered
}

// A watchRequest is a request of the client. A request that creates a watch has the user of the request, or the error
// of the user's credentials.
type watchRequest struct {
	*pb.WatchRequest
	user *coterie.UserView
	err  error
}

// receive passes the requests of the client to run, until there are no more or one fails. It receives the next request
// after run has handled the previous one. It looks up the user, which may take time, while run delivers events.
func (w *watchStream) receive(ctx context.Context, user *streamUser) error {
	for {
		r, err := w.stream.Recv()
		if err != nil {
			return err
		}
		request := watchRequest{WatchRequest: r}
		if r.GetCreateRequest() != nil {
			request.user, request.err = user.now()
		}
		select {
		case w.requests <- request:
			<-w.handled
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// maxDelivery is how many responses of watches are sent before a request of the client has its turn.
const maxDelivery = 256

// run handles the requests of the client and sends the events of its watches until ctx or the node ends, or the stream
// fails.
func (w *watchStream) run(ctx context.Context) error {
	defer func() {
		if w.ticker != nil {
			w.ticker.Stop()
		}
	}()
	always := make(chan struct{})
	close(always)
	for {
		drained, err := w.deliver(maxDelivery)
		if err != nil {
			return err
		}
		more := w.set.Ready()
		if !drained {
			more = always
		}
		var tick <-chan time.Time
		if w.ticker != nil {
			tick = w.ticker.C
		}
		select {
		case <-more:
		case r := <-w.requests:
			err := w.handle(r)
			w.handled <- struct{}{}
			if err != nil {
				return err
			}
		case <-tick:
			w.tick()
		case <-ctx.Done():
			return nil
		case <-w.node.Done():
			return coterie.ErrClosed
		}
	}
}

func (w *watchStream) handle(r watchRequest) error {
	switch {
	case r.GetCreateRequest() != nil:
		return w.create(r)
	case r.GetCancelRequest() != nil:
		return w.cancel(r.GetCancelRequest().WatchId)
	case r.GetProgressRequest() != nil:
		w.checkProgress()
	}
	return nil
}

// create begins a watch. The client gets the answer that the watch was created before its first event, and answers in
// the order of the requests.
func (w *watchStream) create(r watchRequest) error {
	now := w.header()
	id, err := w.begin(r, now.Revision)
	if reason := refusal(err); reason != "" {
		return w.stream.Send(&pb.WatchResponse{Header: now, WatchId: invalidWatch, Created: true, Canceled: true, CancelReason: reason})
	}
	if err != nil {
		return err
	}
	return w.stream.Send(&pb.WatchResponse{Header: now, WatchId: id, Created: true})
}

// begin adds a watch to the stream, and returns its ID. An error that is not a refusal ends the stream.
func (w *watchStream) begin(by watchRequest, now int64) (id int64, err error) {
	r := by.GetCreateRequest()
	key, end := string(r.Key), string(r.RangeEnd)
	if key == "" {
		key = "\x00" // the least key
	}
	if r.StartRevision < 0 {
		return 0, rpctypes.ErrCompacted
	}
	if by.err != nil {
		return 0, by.err
	}
	// As in etcd, the permission is checked for the range in the request, even if that range is empty.
	if err := by.user.RequireRead(key, rangeOptions(r.RangeEnd)...); err != nil {
		return 0, err
	}
	if end != "" && end != "\x00" && end <= key {
		return 0, errEmptyRange
	}
	v := &watch{id: r.WatchId, from: r.StartRevision, fragment: r.Fragment, progress: r.ProgressNotify, quiet: true}
	switch {
	case v.id == 0:
		for w.watches[w.nextID] != nil {
			w.nextID++
		}
		v.id = w.nextID
		w.nextID++
	case w.watches[v.id] != nil:
		return 0, errDuplicateID
	}
	if err := w.set.Add(by.user, v.id, key, watchOptions(r, cmp.Or(v.from, now+1))...); err != nil {
		return 0, err
	}
	w.watches[v.id] = v
	if v.progress && w.ticker == nil {
		w.ticker = time.NewTicker(w.progressInterval + rand.N(w.progressInterval/10)) // random, so that streams do not notify at the same time
	}
	return v.id, nil
}

// denials are the errors for users that may not watch.
var denials = []error{coterie.ErrInvalidAuthToken, coterie.ErrAuthOldRevision, coterie.ErrUserEmpty, coterie.ErrPermissionDenied}

// denial returns the reason that a client gets if err means that the user may not watch, and "" for other errors. As in
// etcd, the text is that of an error of gRPC.
func denial(err error) string {
	if slices.ContainsFunc(denials, func(e error) bool { return errors.Is(err, e) }) {
		return toStatus(err).Error()
	}
	return ""
}

// refusal returns the reason that a client gets if err rejects only this watch, and "" if it ends the stream.
func refusal(err error) string {
	for _, e := range []error{rpctypes.ErrCompacted, errEmptyRange, errDuplicateID} {
		if err == e {
			return e.Error()
		}
	}
	return denial(err)
}

func watchOptions(r *pb.WatchCreateRequest, from int64) []coterie.WatchOption {
	opts := []coterie.WatchOption{coterie.WithRevision(from)}
	if len(r.RangeEnd) > 0 {
		opts = append(opts, coterie.WithRange(string(r.RangeEnd)))
	}
	if r.PrevKv {
		opts = append(opts, coterie.WithPrevKV())
	}
	for _, filter := range r.Filters {
		switch filter {
		case pb.WatchCreateRequest_NOPUT:
			opts = append(opts, coterie.WithFilterPut())
		case pb.WatchCreateRequest_NODELETE:
			opts = append(opts, coterie.WithFilterDelete())
		}
	}
	return opts
}

// cancel ends a watch at the request of the client. It does not answer if there is no such watch.
func (w *watchStream) cancel(id int64) error {
	v := w.watches[id]
	if v == nil {
		return nil
	}
	w.set.Remove(id)
	delete(w.watches, id)
	if err := w.leave(v); err != nil {
		return err
	}
	return w.stream.Send(&pb.WatchResponse{Header: w.header(), WatchId: id, Canceled: true})
}

// end handles the end of a watch by the set. If its user has lost the permission, or a compaction has overtaken the
// watch, only the watch ends. Otherwise the stream ends.
func (w *watchStream) end(v *watch, err error) error {
	r := &pb.WatchResponse{Header: w.header(), WatchId: v.id, Canceled: true}
	var compacted *coterie.CompactedError
	switch {
	case denial(err) != "":
		r.CancelReason = denial(err)
	case errors.As(err, &compacted):
		r.Header.Revision = 0 // etcd does not set it
		r.CompactRevision = compacted.Revision
	default:
		return err
	}
	v.ended = true
	if err := w.stream.Send(r); err != nil {
		return err
	}
	return w.leave(v) // this may answer a request for progress
}

// leave notes that a watch has ended. Requests for progress no longer wait for it.
func (w *watchStream) leave(v *watch) error {
	asked := v.asked
	v.asked = nil
	return w.answered(asked)
}
