// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/rpc"
)

// A message appends its encoding to b.
type message interface{ encode(b []byte) []byte }

// An encoder is a message that is encoded by a function.
type encoder func(b []byte) []byte

func (e encoder) encode(b []byte) []byte { return e(b) }

// An appendMessage is an append as a message. Unlike an encoder, it needs no memory of its own.
type appendMessage raft.AppendEntriesRequest

func (m *appendMessage) encode(b []byte) []byte {
	return encodeAppend(b, (*raft.AppendEntriesRequest)(m))
}

// An outbound is one of raft's requests to a member.
type outbound struct {
	peer    rpc.Peer
	method  byte
	message message
	limit   time.Duration // how long a reply may take
	again   time.Duration // after this time without a reply the request is sent again; never if it is not less than limit
}

// A reply is the reply to a request, with its connection, or an error.
type reply struct {
	conn    *rpc.Conn
	kind    byte
	payload []byte
	err     error
}

// A call sends a request on an idle connection and waits for the reply. If there is none for a while, it sends the
// request again on a new connection, and the first reply counts. A connection can die silently, and everything sent
// on it is lost; then the second request is answered. A peer that waits for its disk answers neither yet and loses
// nothing: both connections stay open.
//
// Almost every request is answered at once. So the first request needs neither a goroutine nor a context, and a
// transport uses a call and its timer for one request after the other.
type call struct {
	transport *Transport
	timer     *time.Timer // calls late
	request   outbound
	begin     time.Time
	second    chan reply // receives one reply if the timer has fired

	mu        sync.Mutex         // guards the fields below it; the others belong to ask, and late may read them
	conn      *rpc.Conn          // waits for the reply to the first request
	endDial   context.CancelFunc // ends the attempt to connect for the first request
	cause     error              // why the first request was given up
	endSecond context.CancelFunc // ends the second request, and late
	over      bool               // ask needs no second reply any more
}

// call sends a request and decodes its reply. It returns the identity of the node that replied.
func (t *Transport) call(req outbound, decode func([]byte) error) (rpc.Identity, error) {
	r := t.ask(req)
	if r.err != nil {
		return rpc.Identity{}, r.err
	}
	err := decodeReply(r.kind, r.payload, decode)
	if errors.Is(err, ErrMalformed) {
		t.refused(r.conn, err)
		r.conn.Close()
	} else {
		r.conn.Release()
	}
	return r.conn.Peer(), err
}

func decodeReply(kind byte, payload []byte, decode func([]byte) error) error {
	switch kind {
	case replyDone:
		if err := decode(payload); err != nil {
			return fmt.Errorf("%w: reply: %w", ErrMalformed, err)
		}
		return nil
	case replyError:
		return errors.New(string(payload))
	}
	return fmt.Errorf("%w: reply of kind %d", ErrMalformed, kind)
}

// ask sends a request and returns the first reply.
func (t *Transport) ask(req outbound) reply {
	c := t.beginCall(req)
	if c == nil {
		return reply{err: raft.ErrTransportShutdown}
	}
	first := c.first()
	if c.timer.Stop() {
		t.endCall(c, true)
		return first
	}
	defer t.endCall(c, false)
	if first.err == nil {
		c.finish()
	}
	r := <-c.second
	c.finish()
	switch {
	case r.err != nil: // the first error says more: a broken connection may have consumed raft's data
		return first
	case first.err != nil:
		return r
	}
	r.conn.Release()
	return first
}

// beginCall registers a call, for Close to end it, and starts its timer. It returns nil after Close.
func (t *Transport) beginCall(req outbound) *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return nil
	}
	var c *call
	if n := len(t.spare); n > 0 {
		c, t.spare = t.spare[n-1], t.spare[:n-1]
	} else {
		c = &call{transport: t, second: make(chan reply, 1)}
	}
	c.request, c.begin = req, time.Now()
	t.calls[c] = struct{}{}
	wait := min(req.again, req.limit)
	if c.timer == nil {
		c.timer = time.AfterFunc(wait, c.late)
	} else {
		c.timer.Reset(wait)
	}
	return c
}

// endCall ends the registration of a call. If its timer has not fired, the call can serve another request.
func (t *Transport) endCall(c *call, again bool) {
	c.request = outbound{}
	c.mu.Lock()
	c.endDial = nil
	given := c.cause != nil
	c.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.calls, c)
	if again && !given {
		t.spare = append(t.spare, c)
	}
}

// first sends the request for the first time.
func (c *call) first() reply {
	for {
		conn, err := c.open()
		if err != nil {
			return reply{err: err}
		}
		kind, payload, err := c.exchange(conn)
		if err == nil {
			return reply{conn, kind, payload, nil}
		}
		if cause := c.givenUp(); cause != nil {
			conn.Abandon(c.begin)
			return reply{err: cause}
		}
		conn.Release()
		if !conn.Reused() || errors.Is(err, rpc.ErrTooLarge) {
			return reply{err: err}
		}
		// The peer has restarted since the connection was last used. All of raft's requests may be
		// repeated.
	}
}

// open returns an idle connection or a new one.
func (c *call) open() (*rpc.Conn, error) {
	client, peer := c.transport.cfg.Client, c.request.peer
	if conn := client.Idle(peer, rpc.LaneRaft); conn != nil {
		return conn, nil
	}
	ctx, cancel := context.WithDeadline(c.transport.ctx, c.begin.Add(c.request.limit))
	defer cancel()
	c.mu.Lock()
	cause := c.cause
	c.endDial = cancel
	c.mu.Unlock()
	if cause != nil {
		return nil, cause
	}
	return client.Open(ctx, peer, rpc.LaneRaft)
}

// exchange sends the request on a connection and receives the reply.
func (c *call) exchange(conn *rpc.Conn) (kind byte, payload []byte, err error) {
	c.mu.Lock()
	if err = c.cause; err == nil {
		c.conn = conn
	}
	c.mu.Unlock()
	if err != nil {
		return 0, nil, err
	}
	kind, payload, err = conn.RoundTrip(c.request.method, c.request.message.encode)
	c.mu.Lock()
	c.conn = nil
	c.mu.Unlock()
	return kind, payload, err
}

// giveUp ends the first request if it has no reply yet.
func (c *call) giveUp(cause error) {
	c.mu.Lock()
	c.cause = cmp.Or(c.cause, cause)
	conn, endDial := c.conn, c.endDial
	c.mu.Unlock()
	if endDial != nil {
		endDial()
	}
	if conn != nil {
		conn.Close()
	}
}

func (c *call) givenUp() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// late sends the request for the second time, and gives up the first one when the limit is over. It runs in a goroutine
// of its own when the timer has fired.
func (c *call) late() {
	t, req := c.transport, c.request
	ctx, cancel := context.WithDeadline(t.ctx, c.begin.Add(req.limit))
	defer cancel()
	defer context.AfterFunc(ctx, func() { c.giveUp(context.Cause(ctx)) })()
	c.mu.Lock()
	over := c.over
	c.endSecond = cancel
	c.mu.Unlock()
	if over || req.again >= req.limit {
		c.second <- reply{err: context.DeadlineExceeded}
	} else {
		r := t.resend(ctx, &req, c.begin)
		c.second <- r
		if r.err == nil {
			c.giveUp(context.Canceled)
		}
	}
	<-ctx.Done() // finish cancels it
}

// finish ends the second request and late, if the timer has fired.
func (c *call) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.endSecond != nil {
		c.endSecond()
	}
}

// resend sends a request once more, on a connection that has been in use since the first attempt began, or a new one.
func (t *Transport) resend(ctx context.Context, req *outbound, begin time.Time) reply {
	t.cfg.Client.Distrust(req.peer, begin)
	r := t.exchange(ctx, req)
	for t.away(ctx, r.err, math.MaxUint64) {
		r = t.exchange(ctx, req)
	}
	return r
}

// exchange sends a request and receives its reply, until ctx ends.
func (t *Transport) exchange(ctx context.Context, req *outbound) reply {
	for {
		conn, err := t.cfg.Client.Open(ctx, req.peer, rpc.LaneRaft)
		if err != nil {
			return reply{err: err}
		}
		kind, payload, err := conn.Exchange(ctx, req.method, req.message.encode)
		if err == nil {
			return reply{conn, kind, payload, nil}
		}
		conn.Release()
		if !conn.Reused() || ctx.Err() != nil || errors.Is(err, rpc.ErrTooLarge) {
			return reply{err: err}
		}
		// As in first.
	}
}

// peer returns the peer to dial for a raft server.
func (t *Transport) peer(id raft.ServerID, target raft.ServerAddress) (rpc.Peer, error) {
	member, err := strconv.ParseUint(string(id), 16, 64)
	if err != nil || t.cfg.Client == nil {
		return rpc.Peer{}, fmt.Errorf("raftnet: no way to reach %q at %q", id, target)
	}
	addr := string(target)
	if t.cfg.Resolve != nil {
		addr = cmp.Or(t.cfg.Resolve(member), addr)
	}
	return rpc.Peer{ID: member, Addr: addr}, nil
}
