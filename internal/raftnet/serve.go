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
		// While it waits here, a new node can learn the current term, which check uses.
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

// admit waits until a request may be answered, for at most as long as its sender does.
func (t *Transport) admit(ctx context.Context, from rpc.Identity, req *inbound) error {
	if t.cfg.Admit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	return t.cfg.Admit(ctx, from, describe(req.command))
}

// An inbound is a request from a peer.
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

// serve answers one request. After an error the caller closes the connection.
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
		body = &installation{transport: t, conn: c, request: m, rest: m.Size, answer: answer}
		req.Reader = body
	}

	// A main loop that accepts nothing for so long is stuck, and the peer has given up.
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
				// The wait is by position, since an older entry may have had the same index.
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

// acknowledges reports whether an answer acknowledges entries: those in the request, or earlier ones.
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
