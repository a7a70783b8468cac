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

// errApplied: a snapshot would move the state machine back. Raft is told so, and its leader that
// all is well: it need not send what is in the snapshot. Told of an error, it would send the
// snapshot again, and again, when it has nothing else to send.
var errApplied = errors.New("raftnet: the snapshot is older than what has been applied")

// Serve hands the requests of a connection to raft, one after the other, and sends the answers
// back. It returns when ctx ends, the connection breaks or brings what is no request of its member,
// or on Close. The connection is left to the caller to close.
func (t *Transport) Serve(ctx context.Context, c *rpc.Conn) {
	if !t.begin() {
		return
	}
	defer t.running.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	defer c.Guard(ctx)(nil)

	peer := fmt.Appendf(nil, "%016x", c.Peer().Member)
	for {
		method, payload, err := c.Receive()
		if err != nil {
			return
		}
		req, err := decodeRequest(method, payload)
		if err == nil && !bytes.Equal(req.header.ID, peer) {
			err = fmt.Errorf("%w: %s speaks for %q", ErrMalformed, peer, req.header.ID)
		}
		// A node that is new learns what the term is before it is to answer.
		if err == nil && t.admit(ctx, c.Peer(), req) != nil {
			return
		}
		if err == nil {
			err = t.check(req.command)
		}
		if err != nil {
			t.refused(c, err)
			_ = c.Send(replyError, func(b []byte) []byte { return append(b, err.Error()...) })
			return
		}
		answered := t.hear(req.command)
		err = t.serve(ctx, c, req)
		answered()
		if err != nil {
			return
		}
	}
}

// admit waits until a request may be answered, for as long as its sender does.
func (t *Transport) admit(ctx context.Context, from rpc.Identity, req *inbound) error {
	if t.cfg.Admit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	return t.cfg.Admit(ctx, from, describe(req.command))
}

// An inbound is a request on its way to raft and back.
type inbound struct {
	command any
	header  *raft.RPCHeader
	encode  func(b []byte, response any) []byte
}

func decodeRequest(method byte, b []byte) (*inbound, error) {
	switch method {
	case methodAppend:
		m, err := decodeAppend(b)
		return request(m, err, encodeAppendResponse)
	case methodVote:
		m, err := decodeVote(b)
		return request(m, err, encodeVoteResponse)
	case methodPreVote:
		m, err := decodePreVote(b)
		return request(m, err, encodePreVoteResponse)
	case methodTimeoutNow:
		m, err := decodeTimeoutNow(b)
		return request(m, err, encodeTimeoutNowResponse)
	case methodSnapshot:
		m, err := decodeSnapshot(b)
		return request(m, err, encodeSnapshotResponse)
	}
	return nil, fmt.Errorf("%w: method %d", ErrMalformed, method)
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

func request[Response any](command raft.WithRPCHeader, err error, encode func([]byte, *Response) []byte) (*inbound, error) {
	if err != nil {
		return nil, err
	}
	header := command.GetRPCHeader()
	return &inbound{
		command: command,
		header:  &header,
		encode: func(b []byte, response any) []byte {
			r, _ := response.(*Response)
			if r == nil {
				r = new(Response)
			}
			return encode(b, r)
		},
	}, nil
}

// serve answers one request. An error ends the connection.
func (t *Transport) serve(ctx context.Context, c *rpc.Conn, in *inbound) error {
	answer := make(chan raft.RPCResponse, 1)
	req := raft.RPC{Command: in.command, RespChan: answer}
	var body *installation
	limit := t.cfg.Timeout
	switch m := in.command.(type) {
	case *raft.AppendEntriesRequest:
		t.mu.Lock()
		t.enter(m.Term)
		following := t.install.answersFor(m)
		t.mu.Unlock()
		if following {
			resp := &raft.AppendEntriesResponse{RPCHeader: t.header, Term: m.Term, Success: true}
			return c.Send(replyDone, func(b []byte) []byte { return encodeAppendResponse(b, resp) })
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
		// So raft applies nothing that is not durable here, and its queue to the state machine is never
		// held up by the disk.
		m.LeaderCommitIndex = min(m.LeaderCommitIndex, t.cfg.Log.Durable())
	case *raft.RequestPreVoteRequest, *raft.RequestVoteRequest:
		t.unbind(m)
	case *raft.InstallSnapshotRequest:
		if err := t.compare(raftlog.Claim{Leader: m.Term, Index: m.LastLogIndex, Term: m.LastLogTerm}); err != nil {
			return err
		}
		limit *= patience
		body = &installation{transport: t, conn: c, request: m, rest: m.Size, answer: answer}
		req.Reader = body
	}

	// A main loop that takes nothing for so long is stuck, and whoever asked has given up.
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case t.consumer <- req:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return context.DeadlineExceeded
	}

	for {
		timer.Reset(t.cfg.Timeout)
		select {
		case resp := <-answer:
			t.grant(resp)
			if body != nil {
				body.finish()
				if errors.Is(resp.Error, errApplied) {
					resp = raft.RPCResponse{
						Response: &raft.InstallSnapshotResponse{RPCHeader: t.header, Term: body.request.Term, Success: true},
					}
				}
			}
			if acknowledges(in.command, resp) {
				// By position: an older entry may stand at the index.
				if err := t.cfg.Log.Await(ctx, t.cfg.Log.Position()); err != nil {
					return err
				}
			}
			err := send(c, in, resp, body)
			if errors.Is(resp.Error, raftlog.ErrSnapshot) {
				t.refused(c, resp.Error)
				return resp.Error
			}
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			if body != nil && body.received.Load() {
				if err := c.Send(replyWorking, nil); err != nil {
					return err
				}
			}
		}
	}
}

// compare ends the log, and returns why, if what a leader says of its own contradicts it. Raft compares
// no more than it needs to find where the two logs part, and drops what this node has behind that.
func (t *Transport) compare(c raftlog.Claim) error {
	if t.cfg.Term == nil {
		return nil
	}
	if t.cfg.Committed != nil {
		c.Committed = t.cfg.Committed()
	}
	err := t.cfg.Log.Contradiction(c)
	// The term is looked at last: an earlier leader may lack what was committed since, and raft refuses it.
	if err == nil || c.Leader < t.cfg.Term() {
		return nil
	}
	t.cfg.Log.Diverge(err)
	return err
}

// rebase has an append go on from a snapshot that covers what it goes on from. What a snapshot has is
// committed, so a leader has the same: compare has seen to that. Raft itself looks
// for the entry in its log, refuses what it does not find there, and the leader tries the one before; at
// the beginning it sends a snapshot, and begins again, for ever.
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

// acknowledges reports whether an answer says that this node has entries: those that came, or those
// that it had before.
func acknowledges(command any, resp raft.RPCResponse) bool {
	m, ok := command.(*raft.AppendEntriesRequest)
	if !ok || heartbeat(m) {
		return false
	}
	answer, ok := resp.Response.(*raft.AppendEntriesResponse)
	return ok && resp.Error == nil && answer.Success
}

func send(c *rpc.Conn, in *inbound, resp raft.RPCResponse, body *installation) error {
	err := resp.Error
	if err != nil {
		err = c.Send(replyError, func(b []byte) []byte { return append(b, resp.Error.Error()...) })
	} else {
		err = c.Send(replyDone, func(b []byte) []byte { return in.encode(b, resp.Response) })
	}
	if err == nil && body != nil && !body.received.Load() {
		return io.ErrUnexpectedEOF // what is left of the body would be taken for requests
	}
	return err
}

// An installation is a snapshot on its way into raft, whose main loop reads the body and does
// nothing else until it answers.
type installation struct {
	transport *Transport
	conn      *rpc.Conn
	request   *raft.InstallSnapshotRequest
	answer    chan raft.RPCResponse
	received  atomic.Bool // all of the body

	// The rest is raft's main loop's alone.
	begun bool
	rest  int64
	chunk []byte
	err   error
}

// answersFor reports whether the heartbeat's sender is who sent the snapshot that raft is copying.
// Raft follows it, but cannot say so before the end. It is called with the transport's mu held.
func (i *installation) answersFor(m *raft.AppendEntriesRequest) bool {
	return i != nil && len(i.answer) == 0 && heartbeat(m) && m.Term == i.request.Term && bytes.Equal(m.ID, i.request.ID)
}

// Read is called by raft.
func (i *installation) Read(p []byte) (int, error) {
	if !i.begun {
		i.begun = true
		if err := i.begin(); err != nil {
			return 0, err // for once: raft goes on to read the body, and drops it
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

// begin makes the transport answer the leader's heartbeats. Raft reads the body also of a snapshot
// that it has refused, and then as one of a later term: it must not seem to follow the sender.
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

// next receives a chunk, or returns io.EOF after the last.
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

// finish is called when raft has answered.
func (i *installation) finish() {
	t := i.transport
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.install == i {
		t.install = nil
	}
}
