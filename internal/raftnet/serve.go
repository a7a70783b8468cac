// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// errApplied: a snapshot would move the state machine back. Raft gets this error, but the leader gets a
// success: it need not send the contents of the snapshot. After an error it would send the snapshot again
// and again if it had nothing else to send.
var errApplied = errors.New("raftnet: the snapshot is older than the applied state")

// Serve passes the requests of a connection to raft, one after the other, and sends the answers back. It
// returns when ctx ends, when the connection breaks, when a message is not a valid request of the
// connection's member, or after Close. The caller closes the connection.
func (t *Transport) Serve(ctx context.Context, c *rpc.Conn) {
	if !t.begin() {
		return
	}
	defer t.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	defer c.Guard(ctx)(nil)

	serving := &connection{transport: t, conn: c, answer: make(chan raft.RPCResponse, 1), timer: time.NewTimer(t.cfg.Timeout)}
	defer serving.timer.Stop()
	peer := fmt.Appendf(nil, "%016x", c.Peer().Member)
	for {
		method, payload, err := c.Receive()
		if err != nil {
			return
		}
		command, err := decodeRequest(method, payload)
		if err == nil {
			if id := command.GetRPCHeader().ID; !bytes.Equal(id, peer) {
				err = fmt.Errorf("%w: %s speaks for %q", ErrMalformed, peer, id)
			}
		}
		// While it waits here, a new node can learn the current term, which check uses.
		if err == nil && t.cfg.Admit != nil && t.cfg.Admit(ctx, c.Peer(), describe(command)) != nil {
			return
		}
		if err == nil {
			err = t.check(command)
		}
		if err != nil {
			t.refused(c, err)
			_ = c.Send(replyError, func(b []byte) []byte { return append(b, err.Error()...) })
			return
		}
		answered := t.hear(command)
		err = serving.serve(ctx, command)
		answered()
		if err != nil {
			return
		}
	}
}

// decodeRequest decodes a request of a peer, and rejects messages that raft would fail on.
func decodeRequest(method byte, b []byte) (command raft.WithRPCHeader, err error) {
	switch method {
	case methodAppend:
		return decodeAppend(b)
	case methodVote:
		return decodeVote(b)
	case methodPreVote:
		return decodePreVote(b)
	case methodTimeoutNow:
		return decodeTimeoutNow(b)
	case methodSnapshot:
		return decodeSnapshot(b)
	}
	return nil, fmt.Errorf("%w: method %d", ErrMalformed, method)
}

// encodeResponse appends raft's response to a request. A response that is missing counts as a zero one.
func encodeResponse(b []byte, command raft.WithRPCHeader, response any) []byte {
	switch command.(type) {
	case *raft.AppendEntriesRequest:
		return encodeAppendResponse(b, orZero[raft.AppendEntriesResponse](response))
	case *raft.RequestVoteRequest:
		return encodeVoteResponse(b, orZero[raft.RequestVoteResponse](response))
	case *raft.RequestPreVoteRequest:
		return encodePreVoteResponse(b, orZero[raft.RequestPreVoteResponse](response))
	case *raft.TimeoutNowRequest:
		return encodeTimeoutNowResponse(b, orZero[raft.TimeoutNowResponse](response))
	}
	return encodeSnapshotResponse(b, orZero[raft.InstallSnapshotResponse](response))
}

func orZero[Response any](response any) *Response {
	if r, _ := response.(*Response); r != nil {
		return r
	}
	return new(Response)
}

func describe(command any) Request {
	switch m := command.(type) {
	case *raft.AppendEntriesRequest:
		return Request{Term: m.Term}
	case *raft.InstallSnapshotRequest:
		return Request{Term: m.Term}
	case *raft.RequestVoteRequest:
		return Request{Vote: true, Term: m.Term}
	case *raft.RequestPreVoteRequest:
		return Request{Vote: true, Term: m.Term}
	}
	return Request{Elect: true}
}

// A connection serves the requests of a peer, one after the other. All of them use one channel and one timer: after a
// request that raft has not answered, the connection is closed.
type connection struct {
	transport *Transport
	conn      *rpc.Conn
	answer    chan raft.RPCResponse
	timer     *time.Timer
	followed  uint64    // the term in which raft last answered an append with success
	at        time.Time // when it did
}

// serve answers one request. After an error the caller closes the connection.
func (s *connection) serve(ctx context.Context, command raft.WithRPCHeader) error {
	t := s.transport
	req := raft.RPC{Command: command, RespChan: s.answer}
	var body *installation
	limit := t.cfg.Timeout
	switch m := command.(type) {
	case *raft.AppendEntriesRequest:
		t.mu.Lock()
		t.enter(m.Term)
		following := t.install.answersFor(m)
		t.mu.Unlock()
		if following || s.follows(m) {
			resp := &raft.AppendEntriesResponse{RPCHeader: t.header, Term: m.Term, Success: true}
			return s.conn.Send(replyDone, func(b []byte) []byte { return encodeAppendResponse(b, resp) })
		}
		if len(m.Entries) > 0 {
			limit *= patience
			if err := t.cfg.Log.AwaitRoom(ctx); err != nil {
				return err
			}
		}
		err := t.compare(raftlog.Claim{Leader: m.Term, Index: m.PrevLogEntry, Term: m.PrevLogTerm, Entries: m.Entries})
		if err != nil {
			return err
		}
		rebase(m, t.cfg.Log.Base)
		// With this bound raft applies only durable entries, so the disk never holds up its queue to the
		// state machine.
		m.LeaderCommitIndex = min(m.LeaderCommitIndex, t.cfg.Log.Durable())
	case *raft.RequestPreVoteRequest, *raft.RequestVoteRequest:
		t.unbind(m)
	case *raft.InstallSnapshotRequest:
		if err := t.compare(raftlog.Claim{Leader: m.Term, Index: m.LastLogIndex, Term: m.LastLogTerm}); err != nil {
			return err
		}
		limit *= patience
		body = &installation{transport: t, conn: s.conn, request: m, rest: m.Size, answer: s.answer}
		req.Reader = body
	}

	// A main loop that accepts nothing for so long is stuck, and the peer has given up.
	s.timer.Reset(limit)
	select {
	case t.consumer <- req:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.timer.C:
		return context.DeadlineExceeded
	}

	for {
		s.timer.Reset(t.cfg.Timeout)
		select {
		case resp := <-s.answer:
			return s.respond(ctx, command, resp, body)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.timer.C:
			if body != nil && body.received.Load() {
				if err := s.conn.Send(replyWorking, nil); err != nil {
					return err
				}
			}
		}
	}
}

// follows reports whether raft need not see a heartbeat, because it followed the leader a moment ago. Linearizable reads send
// many heartbeats, which ask only whether this node knows a later term. Raft records a term before it votes in it, so the term
// that it has now is the answer, without a wait for raft's main loop. A heartbeat now and then still tells raft that the
// leader lives.
func (s *connection) follows(m *raft.AppendEntriesRequest) bool {
	t := s.transport
	return heartbeat(m) && t.cfg.Term != nil && m.Term == s.followed && time.Since(s.at) < t.cfg.Timeout/followedFor &&
		m.Term == t.cfg.Term()
}

// followedFor is the part of Config.Timeout for which raft need not see another heartbeat. Raft's own heartbeats have
// intervals of about a tenth.
const followedFor = 20

// respond sends raft's answer to a request, when the entries that it acknowledges are durable. body is the snapshot of
// the request, or nil.
func (s *connection) respond(ctx context.Context, command raft.WithRPCHeader, resp raft.RPCResponse, body *installation) error {
	t := s.transport
	t.grant(resp)
	if body != nil {
		body.finish()
		if errors.Is(resp.Error, errApplied) {
			resp = raft.RPCResponse{
				Response: &raft.InstallSnapshotResponse{RPCHeader: t.header, Term: body.request.Term, Success: true},
			}
		}
	}
	if m := accepted(command, resp); m != nil {
		s.followed, s.at = m.Term, time.Now()
		// Any other append acknowledges entries: its own, or earlier ones. The wait is by position, since an older entry may have
		// had the same index.
		if !heartbeat(m) {
			if err := t.cfg.Log.Await(ctx, t.cfg.Log.Position()); err != nil {
				return err
			}
		}
	}
	err := send(s.conn, command, resp, body)
	if errors.Is(resp.Error, raftlog.ErrSnapshot) {
		t.refused(s.conn, resp.Error)
		return resp.Error
	}
	return err
}

// compare ends the log and returns an error if a leader's claim contradicts it. Raft compares no more
// than it needs to find where the two logs diverge, and drops this node's entries after that point.
func (t *Transport) compare(c raftlog.Claim) error {
	if t.cfg.Term == nil {
		return nil
	}
	if t.cfg.Committed != nil {
		c.Committed = t.cfg.Committed()
	}
	err := t.cfg.Log.Contradiction(c)
	// The term is checked last: an earlier leader may lack entries that were committed since, and raft
	// rejects it.
	if err == nil || c.Leader < t.cfg.Term() {
		return nil
	}
	t.cfg.Log.Diverge(err)
	return err
}

// rebase moves the start of an append to the end of a snapshot that covers it. The contents of a snapshot
// are committed, so a leader has the same entries; compare has verified that. Raft itself looks for the
// previous entry in its log and rejects the append if it is not there. The leader then tries earlier
// entries, finally sends a snapshot, and begins again, for ever.
func rebase(m *raft.AppendEntriesRequest, base func() (index, term uint64)) {
	if heartbeat(m) {
		return
	}
	index, term := base()
	if m.PrevLogEntry >= index {
		return
	}
	covered := 0
	for covered < len(m.Entries) && m.Entries[covered].Index <= index {
		covered++
	}
	m.Entries = m.Entries[covered:]
	m.PrevLogEntry, m.PrevLogTerm = index, term
}

// accepted returns the append that raft has answered with success, or nil if the answer is another one.
func accepted(command any, resp raft.RPCResponse) *raft.AppendEntriesRequest {
	m, _ := command.(*raft.AppendEntriesRequest)
	if answer, _ := resp.Response.(*raft.AppendEntriesResponse); m == nil || answer == nil || resp.Error != nil || !answer.Success {
		return nil
	}
	return m
}

func send(c *rpc.Conn, command raft.WithRPCHeader, resp raft.RPCResponse, body *installation) error {
	err := resp.Error
	if err != nil {
		err = c.Send(replyError, func(b []byte) []byte { return append(b, resp.Error.Error()...) })
	} else {
		err = c.Send(replyDone, func(b []byte) []byte { return encodeResponse(b, command, resp.Response) })
	}
	if err == nil && body != nil && !body.received.Load() {
		return io.ErrUnexpectedEOF // the rest of the body would be decoded as requests
	}
	return err
}

// An installation is a snapshot that raft is installing. Raft's main loop reads the body and does nothing
// else until it answers.
type installation struct {
	transport *Transport
	conn      *rpc.Conn
	request   *raft.InstallSnapshotRequest
	answer    chan raft.RPCResponse
	received  atomic.Bool // the whole body has arrived

	// The fields below belong to raft's main loop.
	begun bool
	rest  int64
	chunk []byte
	err   error
}

// answersFor reports whether a heartbeat comes from the sender of the snapshot that raft is copying. Raft
// follows that leader but cannot answer before the copy is complete. The caller holds the transport's mu.
func (i *installation) answersFor(m *raft.AppendEntriesRequest) bool {
	return i != nil && len(i.answer) == 0 && heartbeat(m) && m.Term == i.request.Term && bytes.Equal(m.ID, i.request.ID)
}

// Read implements io.Reader. Raft calls it.
func (i *installation) Read(p []byte) (int, error) {
	if !i.begun {
		i.begun = true
		if err := i.begin(); err != nil {
			return 0, err // only once: raft goes on to read the body and discards it
		}
	}
	for i.err == nil && len(i.chunk) == 0 {
		i.err = i.next()
	}
	if i.err != nil {
		return 0, i.err
	}
	n := copy(p, i.chunk)
	i.chunk = i.chunk[n:]
	return n, nil
}

// begin makes the transport answer the leader's heartbeats. Raft also reads the body of a snapshot that
// it has rejected, and may be in a later term then: in that case it must not appear to follow the sender.
func (i *installation) begin() error {
	t := i.transport
	if t.cfg.Term != nil {
		if t.cfg.Term() != i.request.Term {
			return nil
		}
		t.mu.Lock()
		t.install = i
		t.mu.Unlock()
	}
	if t.cfg.Applied != nil && t.cfg.Applied() >= i.request.LastLogIndex {
		return errApplied
	}
	return nil
}

// next receives a chunk. It returns io.EOF after the last one.
func (i *installation) next() error {
	if i.rest == 0 {
		i.received.Store(true)
		return io.EOF
	}
	stalled := time.AfterFunc(patience*i.transport.cfg.Timeout, func() { i.conn.Close() })
	method, chunk, err := i.conn.Receive()
	stalled.Stop()
	if err != nil {
		return err
	}
	if method != methodChunk || len(chunk) == 0 || int64(len(chunk)) > i.rest {
		return fmt.Errorf("%w: snapshot chunk", ErrMalformed)
	}
	i.rest -= int64(len(chunk))
	i.chunk = chunk
	return nil
}

// finish ends the installation after raft has answered.
func (i *installation) finish() {
	t := i.transport
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.install == i {
		t.install = nil
	}
}
