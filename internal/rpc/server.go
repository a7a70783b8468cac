// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/wire"
)

// A Handler answers a call of the node from. ctx ends when the server closes. The Handler may keep the
// request, and must not change the reply after it returns. An error is sent instead of the reply: see
// RemoteError.
type Handler func(ctx context.Context, from Identity, method byte, req []byte) (resp []byte, err error)

// ServerConfig configures a Server.
type ServerConfig struct {
	Party
	// Call answers the requests on LaneCall, concurrently.
	Call Handler
	// Raft serves a connection of LaneRaft until it returns. It must return soon after the connection
	// breaks or ctx ends.
	Raft func(ctx context.Context, c *Conn)
	// Refused is called for callers that were rejected in the handshake, or that rejected this node
	// there: with an error of the handshake, or with ErrMalformed if the caller is not a node. It may be
	// called concurrently. nil: not called.
	Refused func(remote net.Addr, err error)
	// Member reports whether a caller is a known member of the cluster. Other callers can use only small
	// frames and few connections. It may be called concurrently, for each frame. nil: all are members.
	Member func(Identity) bool
	// Limits bound the resources that callers can use.
	Limits Limits
}

// A Server accepts the connections of other nodes. mu guards the fields below it.
type Server struct {
	listener net.Listener
	cfg      ServerConfig
	ctx      context.Context
	end      context.CancelFunc
	running  sync.WaitGroup
	guests   guests
	receipts map[byte]*receipt // by lane

	mu      sync.Mutex
	open    map[net.Conn]*list.Element // with its place in pending, nil after the handshake
	pending list.List                  // of net.Conn, oldest first
	known   map[string]bool            // the hosts from which members have connected
}

// Serve accepts connections from l until Close.
func Serve(l net.Listener, cfg ServerConfig) *Server {
	cfg.Limits = cfg.Limits.withDefaults()
	s := &Server{listener: l, cfg: cfg, open: map[net.Conn]*list.Element{}}
	s.ctx, s.end = context.WithCancel(context.Background())
	s.guests.most = cfg.Limits.Guests
	s.receipts = map[byte]*receipt{}
	for _, lane := range []byte{LaneRaft, LaneCall} {
		s.receipts[lane] = &receipt{free: int64(cfg.Limits.Receipt)}
	}
	s.running.Go(s.accept)
	return s
}

// Close closes the listener and every connection, and waits for every goroutine, including each Handler.
// It is idempotent.
func (s *Server) Close() error {
	s.end()
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	s.mu.Lock()
	open := make([]net.Conn, 0, len(s.open))
	for nc := range s.open {
		open = append(open, nc)
	}
	s.mu.Unlock()
	for _, nc := range open {
		nc.Close()
	}
	s.running.Wait()
	return err
}

func (s *Server) accept() {
	for {
		nc, err := s.listener.Accept()
		if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil {
			// Most likely the process has no descriptors left: give others the time to close theirs.
			s.pause(50 * time.Millisecond)
			continue
		}
		if s.admit(nc) {
			s.running.Go(func() {
				defer s.dismiss(nc)
				s.serve(nc)
			})
		}
	}
}

func (s *Server) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// admit registers a connection that has yet to shake hands. If there are too many, it closes another one.
func (s *Server) admit(nc net.Conn) bool {
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		nc.Close()
		return false
	}
	s.open[nc] = s.pending.PushBack(nc)
	var displaced net.Conn
	if s.pending.Len() > s.cfg.Limits.Pending {
		displaced = s.pending.Remove(s.displaced()).(net.Conn)
		s.open[displaced] = nil
	}
	s.mu.Unlock()
	if displaced != nil {
		displaced.Close()
	}
	return true
}

// welcome notes that a connection has shaken hands.
func (s *Server) welcome(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if place := s.open[nc]; place != nil {
		s.pending.Remove(place)
		s.open[nc] = nil
	}
}

func (s *Server) dismiss(nc net.Conn) {
	nc.Close()
	s.welcome(nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, nc)
}

func (s *Server) serve(nc net.Conn) {
	c, lane, err := s.receive(nc)
	if err != nil {
		if refusal(err) && s.cfg.Refused != nil {
			s.cfg.Refused(nc.RemoteAddr(), err)
		}
		return
	}
	s.welcome(nc)
	c.host = &host{
		receipt: s.receipts[lane], done: s.ctx.Done(), limits: &s.cfg.Limits,
		guest: func() bool { return lane == LaneCall && s.cfg.Member != nil && !s.cfg.Member(c.peer) },
	}
	defer c.settle()
	if lane == LaneRaft { // only members get here
		s.know(nc)
		s.cfg.Raft(s.ctx, c)
		return
	}
	s.answerAll(c)
}

// answerAll serves requests until the connection ends.
func (s *Server) answerAll(c *Conn) {
	var place *list.Element // among the guests
	if c.host.guest() {
		place = s.guests.enter(c.net)
	}
	defer func() { s.guests.leave(place) }()
	for {
		method, req, err := c.Receive()
		if err != nil {
			return
		}
		s.guests.heard(place, true)
		if s.answer(c, method, req) != nil {
			return
		}
		s.guests.heard(place, false)
		if place != nil && !c.host.guest() {
			s.guests.leave(place)
			place = nil
		}
	}
}

// refusal reports whether a handshake failed because the nodes must not communicate. ErrEarly is
// temporary and does not count.
func refusal(err error) bool {
	if errors.Is(err, ErrMalformed) {
		return true
	}
	for v := refusedCluster; v <= refusedCertificate; v++ {
		if v != refusedEarly && errors.Is(err, v.reason()) {
			return true
		}
	}
	return false
}

// receive is the accepting side's part of the handshake.
func (s *Server) receive(nc net.Conn) (*Conn, byte, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Limits.Handshake)
	defer cancel()
	deadline, _ := ctx.Deadline()
	nc.SetDeadline(deadline)
	var lane [1]byte
	if _, err := nc.Read(lane[:]); err != nil {
		return nil, 0, err
	}
	if lane[0] == recordTLS {
		nc.Write(RefuseTLS(nil))
		return nil, 0, fmt.Errorf("%w: the caller begins with TLS, this node has none", ErrTLS)
	}
	if lane[0] == LaneRaft && s.cfg.Raft == nil || lane[0] == LaneCall && s.cfg.Call == nil ||
		lane[0] != LaneRaft && lane[0] != LaneCall {
		return nil, 0, fmt.Errorf("%w: lane %q", ErrMalformed, lane[0])
	}
	c := newConn(nc, lane[0], s.cfg.Limits)
	c.sent, c.received = s.cfg.Sent, s.cfg.Received
	caller, err := readHello(c.reader)
	if err != nil {
		return nil, 0, err
	}
	refused := s.cfg.judge(caller, lane[0])
	if refused == nil {
		refused = s.cfg.verify(ctx, nc, caller.id)
		nc.SetDeadline(time.Now().Add(s.cfg.Limits.Handshake)) // for the answer
	}
	ours := hello{version: version, id: s.cfg.Self(), verdict: verdictOf(refused)}
	if ours.verdict == refusedCluster && s.cfg.Terms != nil {
		ours.terms = s.cfg.Terms()
	}
	if _, err := nc.Write(ours.append(nil)); refused == nil && err != nil {
		return nil, 0, err
	}
	if refused != nil {
		return nil, 0, refused
	}
	c.peer = caller.id
	return c, lane[0], nc.SetDeadline(time.Time{})
}

const (
	statusOK byte = iota
	statusError
)

// answer answers one request. After an error the caller closes the connection.
func (s *Server) answer(c *Conn, method byte, req []byte) error {
	resp, err := s.cfg.Call(s.ctx, c.peer, method, req)
	if err == nil {
		err = c.Send(statusOK, func(b []byte) []byte { return append(b, resp...) })
		if !errors.Is(err, ErrTooLarge) {
			return err
		}
	}
	return c.Send(statusError, func(b []byte) []byte { return appendRemoteError(b, err) })
}

func appendRemoteError(b []byte, err error) []byte {
	remote := &RemoteError{Text: err.Error()}
	errors.As(err, &remote)
	b = wire.Uint(b, 1, uint64(remote.Code))
	return wire.Text(b, 2, remote.Text)
}

func decodeRemoteError(payload []byte) error {
	e := &RemoteError{}
	fields := wire.NewReader(payload)
	for fields.Next() {
		switch fields.Field() {
		case 1:
			e.Code = byte(fields.Uint())
		case 2:
			e.Text = fields.Text()
		}
	}
	if fields.Err() != nil {
		return fmt.Errorf("%w: error reply", ErrMalformed)
	}
	return e
}
