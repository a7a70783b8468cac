// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
)

// A watchServer is the service Watch.
type watchServer struct {
	*server
	pb.UnsafeWatchServer
}

// invalidWatch is the ID of a watch that was not created, and of an answer for all watches of a stream.
const invalidWatch = -1

// The errors of etcd for a watch that it does not create. Clients get the text as the reason.
var (
	errEmptyRange  = errors.New("mvcc: watcher range is empty")
	errDuplicateID = errors.New("mvcc: duplicate watch ID provided on the WatchStream")
)

// Watch serves the watches of a stream, each on a goroutine of its own. A watch reads the history of the store at the
// pace at which the client receives. So a stream whose client does not read holds 64 KiB, which gRPC buffers, and a
// message, however many watches it has.
func (s *watchServer) Watch(stream pb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	w := &watchStream{
		server: s.server, stream: stream, user: s.streamUser(stream.Context()), ctx: ctx, fail: cancel, watches: map[int64]*watch{},
	}
	go func() {
		// The end of the client's requests does not end its watches.
		if err := w.receive(); !errors.Is(err, io.EOF) {
			cancel(err)
		}
	}()
	select {
	case <-ctx.Done():
	case <-s.node.Done():
		cancel(coterie.ErrClosed)
	}
	w.close()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return rpctypes.ErrGRPCWatchCanceled
}

// A watchStream is a stream with its watches. The goroutine of receive creates and cancels them; mu guards watches,
// nextID, ticking, closed, and the fields of each watch that say so. No call blocks under mu. sending is held while a
// response is sent.
type watchStream struct {
	*server
	stream pb.Watch_WatchServer
	user   *streamUser // of the goroutine of receive
	ctx    context.Context
	fail   context.CancelCauseFunc // ends ctx, and the stream with it

	sending sync.Mutex
	answer  watchAnswer // the message that is sent; guarded by sending

	mu      sync.Mutex
	watches map[int64]*watch
	nextID  int64
	ticking bool // a goroutine calls tick
	closed  bool
	running sync.WaitGroup
}

// A watch is one watch of a stream.
type watch struct {
	id       int64
	from     int64 // the revision that the client asked for; 0 for the next one
	fragment bool
	progress bool // it wants notifications
	cancel   context.CancelFunc
	done     chan struct{}
	requests chan struct{} // to the node, for progress

	// The stream's mu guards these.
	ended  bool             // by a compaction; its ID stays in use until the client cancels it
	quiet  bool             // nothing was sent since the last tick
	notify bool             // a notification is due as soon as the node reports progress
	asked  []*progressCheck // questions of the client that it has not answered
}

// receive handles the requests of the client, until there are no more or an error.
func (w *watchStream) receive() error {
	for {
		r, err := w.stream.Recv()
		if err != nil {
			return err
		}
		switch {
		case r.GetCreateRequest() != nil:
			err = w.create(r.GetCreateRequest())
		case r.GetCancelRequest() != nil:
			err = w.cancel(r.GetCancelRequest().WatchId)
		case r.GetProgressRequest() != nil:
			err = w.checkProgress()
		}
		if err != nil {
			return err
		}
	}
}

// create begins a watch. The answer that it was created comes before its first event, and answers come in the order of
// the requests.
func (w *watchStream) create(r *pb.WatchCreateRequest) error {
	now := w.header()
	v, events, err := w.begin(r, now.Revision)
	if reason := refusal(err); reason != "" {
		return w.send(&pb.WatchResponse{Header: now, WatchId: invalidWatch, Created: true, Canceled: true, CancelReason: reason})
	}
	if err != nil {
		return err
	}
	if err := w.send(&pb.WatchResponse{Header: now, WatchId: v.id, Created: true}); err != nil {
		w.running.Done()
		return err
	}
	go w.run(v, events)
	return nil
}

// begin adds a watch to the stream. An error that is not a refusal ends the stream.
func (w *watchStream) begin(r *pb.WatchCreateRequest, now int64) (v *watch, events iter.Seq2[coterie.WatchResponse, error], err error) {
	key, end := string(r.Key), string(r.RangeEnd)
	if key == "" {
		key = "\x00" // the least key
	}
	if r.StartRevision < 0 {
		return nil, nil, rpctypes.ErrCompacted
	}
	user, err := w.permitted(key, r.RangeEnd)
	if err != nil {
		return nil, nil, err
	}
	if end != "" && end != "\x00" && end <= key {
		return nil, nil, errEmptyRange
	}
	v = &watch{
		id: r.WatchId, from: r.StartRevision, fragment: r.Fragment, progress: r.ProgressNotify, quiet: true,
		done: make(chan struct{}), requests: make(chan struct{}, 1),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return nil, nil, context.Cause(w.ctx)
	case v.id == 0:
		for w.watches[w.nextID] != nil {
			w.nextID++
		}
		v.id = w.nextID
		w.nextID++
	case w.watches[v.id] != nil:
		return nil, nil, errDuplicateID
	}
	var ctx context.Context
	ctx, v.cancel = context.WithCancel(w.ctx)
	events = user.Watch(ctx, key, watchOptions(r, cmp.Or(v.from, now+1), v.requests)...)
	w.watches[v.id] = v
	w.running.Add(1)
	if v.progress && !w.ticking {
		w.ticking = true
		go w.tick()
	}
	return v, events, nil
}

// permitted returns the user that makes a watch, or why it may not. As in etcd, the end of the range counts as it is in the
// request: a range that is empty needs permission, too.
func (w *watchStream) permitted(key string, end []byte) (*coterie.UserView, error) {
	user, err := w.user.now()
	if err == nil {
		err = user.RequireRead(key, rangeOptions(end)...)
	}
	return user, err
}

// denials are the errors of users that may not watch.
var denials = []error{coterie.ErrInvalidAuthToken, coterie.ErrAuthOldRevision, coterie.ErrUserEmpty, coterie.ErrPermissionDenied}

// denial returns the reason that a client gets if an error is that of a user that may not watch, or "". The text is etcd's:
// that of an error of gRPC.
func denial(err error) string {
	if slices.ContainsFunc(denials, func(e error) bool { return errors.Is(err, e) }) {
		return toStatus(err).Error()
	}
	return ""
}

// refusal returns the reason that a client gets if an error refuses a watch and nothing else, or "".
func refusal(err error) string {
	for _, e := range []error{rpctypes.ErrCompacted, errEmptyRange, errDuplicateID} {
		if err == e {
			return e.Error()
		}
	}
	return denial(err)
}

func watchOptions(r *pb.WatchCreateRequest, from int64, requests <-chan struct{}) []coterie.WatchOption {
	opts := []coterie.WatchOption{coterie.WithRevision(from), coterie.WithProgressRequests(requests)}
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

// run sends the events of a watch until it ends.
func (w *watchStream) run(v *watch, events iter.Seq2[coterie.WatchResponse, error]) {
	defer w.running.Done()
	defer close(v.done)
	for r, err := range events {
		switch {
		case err != nil:
			err = w.end(v, err)
		case len(r.Events) == 0:
			err = w.progressed(v, r)
		default:
			err = w.sendEvents(v, &r)
		}
		if err != nil {
			w.fail(err)
			return
		}
	}
}

// end ends a watch, and the stream as well unless the client has cancelled the watch, its user has lost the permission, or
// a compaction has overtaken it.
func (w *watchStream) end(v *watch, err error) error {
	r := &pb.WatchResponse{Header: w.header(), WatchId: v.id, Canceled: true}
	var compacted *coterie.CompactedError
	switch {
	case errors.Is(err, context.Canceled):
		return nil
	case denial(err) != "":
		r.CancelReason = denial(err)
	case errors.As(err, &compacted):
		r.Header.Revision = 0 // etcd does not set it
		r.CompactRevision = compacted.Revision
	default:
		return err
	}
	if err := w.send(r); err != nil {
		return err
	}
	return w.leave(v, true) // which may answer a question about progress
}

// cancel ends a watch as the client asks. A watch that does not exist gets no answer.
func (w *watchStream) cancel(id int64) error {
	w.mu.Lock()
	v := w.watches[id]
	w.mu.Unlock()
	if v == nil {
		return nil
	}
	v.cancel()
	<-v.done // so that no event follows the answer
	if err := w.leave(v, false); err != nil {
		return err
	}
	return w.send(&pb.WatchResponse{Header: w.header(), WatchId: id, Canceled: true})
}

// leave notes that a watch has ended. Questions about progress no longer wait for it.
func (w *watchStream) leave(v *watch, keepID bool) error {
	w.mu.Lock()
	v.ended = true
	if !keepID {
		delete(w.watches, v.id)
	}
	asked := v.asked
	v.asked = nil
	w.mu.Unlock()
	return w.answered(asked)
}

// close ends the watches of the stream, and waits for that.
func (w *watchStream) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.running.Wait() // ctx has ended
}

func (w *watchStream) send(r *pb.WatchResponse) error {
	w.sending.Lock()
	defer w.sending.Unlock()
	return w.stream.Send(r)
}

// sendEvents sends the events of a revision. The message is made while no other watch of the stream sends: so a client that
// does not receive holds the memory of one message for the stream, and not for each watch.
func (w *watchStream) sendEvents(v *watch, r *coterie.WatchResponse) error {
	if err := w.sendRevision(v, r); err != nil {
		return err
	}
	if v.progress {
		w.mu.Lock()
		v.quiet = false
		w.mu.Unlock()
	}
	return nil
}

func (w *watchStream) sendRevision(v *watch, r *coterie.WatchResponse) error {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.mine(&r.Header)
	if w.direct && (!v.fragment || len(r.Events) == 1) {
		w.answer = watchAnswer{id: v.id, of: r, events: w.encoded}
		defer func() { w.answer.of = nil }()
		return w.stream.SendMsg(&w.answer)
	}
	resp := &pb.WatchResponse{Header: header(r.Header), WatchId: v.id, Events: events(r.Events)}
	for _, part := range fragments(resp, v.fragment, w.limits.MaxRequestBytes+requestOverhead) {
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

// tick asks the watches that have been silent for the interval of notifications for their progress.
func (w *watchStream) tick() {
	interval := w.progressInterval
	ticker := time.NewTicker(interval + rand.N(interval/10)) // so that streams take turns
	defer ticker.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-ticker.C:
		}
		w.mu.Lock()
		for _, v := range w.watches {
			if v.progress && v.quiet && !v.ended && v.from <= w.node.Header().Revision {
				v.notify = true
				v.ask()
			}
			v.quiet = true
		}
		w.mu.Unlock()
	}
}

// ask asks the node for the progress of a watch. A request that waits already covers it.
func (v *watch) ask() {
	select {
	case v.requests <- struct{}{}:
	default:
	}
}

// A progressCheck is the client's question how far all watches of the stream are. mu guards it.
type progressCheck struct {
	header *pb.ResponseHeader // of the moment of the question
	open   int                // watches that have not reached its revision
}

// checkProgress answers, as soon as every watch has reported all events up to now, with a single response. It does not
// answer without watches, nor while one of them waits for a later revision. etcd does not answer either if a watch is
// behind; here the answer waits.
func (w *watchStream) checkProgress() error {
	check := &progressCheck{header: w.header()}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.watches {
		if v.from > check.header.Revision {
			return nil
		}
	}
	for _, v := range w.watches {
		if !v.ended {
			check.open++
			v.asked = append(v.asked, check)
			v.ask()
		}
	}
	return nil
}

// progressed handles a node's report that a watch has sent every event up to a revision.
func (w *watchStream) progressed(v *watch, r coterie.WatchResponse) error {
	w.mu.Lock()
	notify := v.notify
	v.notify = false
	var reached, later []*progressCheck
	for _, check := range v.asked {
		if check.header.Revision <= r.Revision {
			reached = append(reached, check)
		} else {
			later = append(later, check)
		}
	}
	v.asked = later
	w.mu.Unlock()
	if notify {
		if err := w.send(&pb.WatchResponse{Header: w.answerHeader(r.Header), WatchId: v.id}); err != nil {
			return err
		}
	}
	return w.answered(reached)
}

// answered notes that one more watch has answered questions, and sends the answers that are complete.
func (w *watchStream) answered(checks []*progressCheck) error {
	for _, check := range checks {
		w.mu.Lock()
		check.open--
		complete := check.open == 0
		w.mu.Unlock()
		if complete {
			if err := w.send(&pb.WatchResponse{Header: check.header, WatchId: invalidWatch}); err != nil {
				return err
			}
		}
	}
	return nil
}
