// SPDX-License-Identifier: Apache-2.0

// Package raftnet carries raft's messages between nodes, over connections of package rpc. In addition to
// the functions of raft's own transport, it bounds the commit index of every append by the entries that
// the append covers, notifies followers of a new commit index at once, and tracks which followers have
// confirmed a leader. Heartbeats go through raft's main loop, because hashicorp/raft's shortcut past it
// modifies raft's state while the loop uses it.
package raftnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/signal"
)

// The methods of requests and the kinds of replies.
const (
	methodAppend byte = iota + 1
	methodVote
	methodPreVote
	methodTimeoutNow
	methodSnapshot // followed by its body in methodChunk frames
	methodChunk

	replyDone    byte = 0
	replyError   byte = 1 // with a text
	replyWorking byte = 2 // the answer to a snapshot takes longer: keep waiting
)

const (
	// patience is how many times Config.Timeout a request may take if the peer may have to wait for its
	// disk.
	patience = 10
	// appendBytes is the maximum size of one append, unless a single entry is larger. Larger requests of
	// raft are split, so that neither side needs memory for the whole.
	appendBytes = 4 << 20
	chunkBytes  = 256 << 10
)

// Config describes a Transport.
type Config struct {
	// Self and Addr are this node's ID and address in raft. A ServerID is the member ID as 16 hex digits.
	Self raft.ServerID
	Addr raft.ServerAddress
	// Client connects to the peers; nil: there are none.
	Client *rpc.Client
	// Timeout bounds a request that needs no disk: the election timeout. A request that needs a disk may
	// take ten times as long, and one more second per MiB. The default is 1 s.
	Timeout time.Duration
	// Resolve returns the address to dial for a member, or "" to use the address that raft has. nil:
	// always use raft's.
	Resolve func(member uint64) string
	// Admit decides whether a request is answered: not if it returns an error. It may wait for that to
	// change, for at most Timeout, since the sender waits no longer, and until ctx ends. nil: all requests are
	// answered.
	Admit func(ctx context.Context, from rpc.Identity, r Request) error
	// Newest returns the newest term that this node knows. Messages with terms that elections cannot have
	// reached since are rejected. nil: every term is accepted.
	Newest func() uint64
	// Check validates the data of a command. An append with an entry for which it returns an error is
	// rejected. nil: all data is accepted.
	Check func(entry []byte) error
	// Refused is called for each rejected message, with ErrMalformed, ErrTerm, raftlog.ErrSnapshot or an
	// error of Check. The connection is closed. Calls may be concurrent. nil: not called.
	Refused func(from rpc.Identity, remote net.Addr, err error)
	// Stand waits until this node may ask for votes, or returns why it may not. nil: it always may.
	Stand func(ctx context.Context) error
	// Turn returns when this node may ask for an election because its leader is silent. Earlier requests
	// of raft wait. nil: at once.
	Turn func() time.Time
	// Lost is called when a member's log turns out to end at last, before an entry that the member has
	// acknowledged in this term. It is called without locks, and raft does not receive the member's
	// answer. nil: not called.
	Lost func(peer rpc.Identity, acknowledged, last uint64)
	// Log reports which entries are durable here. Nothing that may still be lost leaves the node. nil:
	// everything is durable at once.
	Log Log
	// Applied returns the index that the state machine has reached. A snapshot that would move it back is
	// rejected. nil: no snapshot is.
	Applied func() uint64
	// Term returns raft's current term without waiting for its main loop. With it the Transport answers
	// the leader's heartbeats while that loop installs a snapshot, and those that follow another append at once. It also
	// compares the logs of leaders with Log. nil: heartbeats wait, and logs are not compared.
	Term func() uint64
	// Committed returns raft's commit index without waiting for its main loop. nil: unknown.
	Committed func() uint64
	// Heartbeat is called for each heartbeat that this node has sent as the leader, with the time until the follower's
	// answer or until the error. Calls may be concurrent. nil: not called.
	Heartbeat func(took time.Duration, err error)
}

// A Request describes one of raft's requests for Admit.
type Request struct {
	Vote  bool // a vote or a pre-vote
	Elect bool // a request to stand for election
	Term  uint64
}

// A Log is a raft log that becomes durable in the background.
type Log interface {
	// Position returns the position of the newest change of the log. Await waits until all changes up to
	// a position are durable. After an error they may never be.
	Position() uint64
	Await(ctx context.Context, position uint64) error
	// AwaitRoom waits until the log accepts more entries.
	AwaitRoom(ctx context.Context) error
	// Durable returns the index up to which everything is durable.
	Durable() uint64
	// Base returns the last entry of a snapshot that has replaced all entries up to it; 0 if there is
	// none.
	Base() (index, term uint64)
	// Contradiction returns how a leader's claim contradicts this log, or nil. Diverge ends the log
	// because of a contradiction.
	Contradiction(c raftlog.Claim) error
	Diverge(reason error)
}

// A durableLog treats everything as durable at once.
type durableLog struct{}

func (durableLog) Position() uint64                    { return 0 }
func (durableLog) Await(context.Context, uint64) error { return nil }
func (durableLog) AwaitRoom(context.Context) error     { return nil }
func (durableLog) Durable() uint64                     { return math.MaxUint64 }
func (durableLog) Base() (index, term uint64)          { return 0, 0 }
func (durableLog) Contradiction(raftlog.Claim) error   { return nil }
func (durableLog) Diverge(error)                       {}

// A Transport is a raft.Transport. All methods may be called concurrently. mu guards the fields below it.
type Transport struct {
	cfg      Config
	header   raft.RPCHeader
	consumer chan raft.RPC
	ctx      context.Context // canceled by Close
	end      context.CancelCauseFunc
	running  sync.WaitGroup // calls of Serve, and goroutines that send nudges

	unheard   signal.Signal // broadcast when a TimeoutNow fails
	muted     atomic.Bool
	decoded   atomic.Pointer[raft.ServerAddress] // see DecodePeer
	mu        sync.Mutex
	term      uint64    // the newest term in which this node sent or received an append
	entered   time.Time // when that term began here
	commit    uint64    // of that term, from Committed
	led       uint64    // the newest term of a Beat
	sent      uint64    // number of appends sent: see Mark
	followers map[raft.ServerID]*follower
	confirmed chan struct{}      // closed at the next confirmation; nil if nothing waits for it
	leader    leader             // the leader that this node follows
	yields    time.Time          // see Yields
	install   *installation      // the snapshot that raft's main loop is copying, or nil
	calls     map[*call]struct{} // requests that wait for a reply
	spare     []*call            // for further requests
}

// Without these methods raft would silently skip pre-votes, or not close the transport.
var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// New returns a Transport. It starts nothing.
func New(cfg Config) *Transport {
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Second)
	if cfg.Log == nil {
		cfg.Log = durableLog{}
	}
	t := &Transport{
		cfg: cfg,
		header: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax,
			ID:              []byte(cfg.Self),
			Addr:            []byte(cfg.Addr),
		},
		consumer:  make(chan raft.RPC),
		followers: map[raft.ServerID]*follower{},
		calls:     map[*call]struct{}{},
	}
	t.ctx, t.end = context.WithCancelCause(context.Background())
	return t
}

// Close ends every request in either direction with raft.ErrTransportShutdown and waits until all calls
// of Serve have returned. It is idempotent.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.end(raft.ErrTransportShutdown)
	calls := slices.Collect(maps.Keys(t.calls))
	t.mu.Unlock()
	for _, c := range calls {
		c.giveUp(raft.ErrTransportShutdown)
	}
	t.running.Wait()
	return nil
}

// begin registers a goroutine for Close to wait for. It returns false after Close.
func (t *Transport) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	t.running.Add(1)
	return true
}

// Consumer returns the channel of inbound requests.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consumer }

// Self returns this node's ID.
func (t *Transport) Self() raft.ServerID { return t.cfg.Self }

// LocalAddr returns this node's address.
func (t *Transport) LocalAddr() raft.ServerAddress { return t.cfg.Addr }

// EncodePeer returns the address as bytes. Raft calls it for each request, almost always with the address of this node.
func (t *Transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte {
	if addr == t.cfg.Addr {
		return t.header.Addr // raft does not change it
	}
	return []byte(addr)
}

// DecodePeer is the reverse of EncodePeer. Raft calls it for each append, so the last result is kept.
func (t *Transport) DecodePeer(b []byte) raft.ServerAddress {
	if last := t.decoded.Load(); last != nil && string(*last) == string(b) {
		return *last
	}
	addr := raft.ServerAddress(b)
	t.decoded.Store(&addr)
	return addr
}

// SetHeartbeatHandler does nothing: heartbeats that raft has to see go to Consumer like every other request.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline returns raft.ErrPipelineReplicationNotSupported.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// errMuted: a muted leader sends nothing.
var errMuted = errors.New("raftnet: this leader waits for its disk")

// Mute controls whether this node is silent as a leader: while on, it sends neither appends nor
// snapshots. So its followers elect another leader even if its own raft cannot hand over.
func (t *Transport) Mute(on bool) { t.muted.Store(on) }

// Elect makes this node's own raft stand for election at once. It blocks until raft has accepted the
// request, or until Close.
func (t *Transport) Elect() {
	req := raft.RPC{
		Command:  &raft.TimeoutNowRequest{RPCHeader: t.header},
		RespChan: make(chan raft.RPCResponse, 1),
	}
	select {
	case t.consumer <- req:
	case <-t.ctx.Done():
	}
}

// AppendEntries sends entries to a follower, in several appends if they are large, or a heartbeat. It
// does not change args or its entries.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress,
	args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse,
) error {
	part := *args
	for rest := args.Entries; ; {
		n, size := fitting(rest)
		part.Entries, rest = rest[:n], rest[n:]
		// Raft at the other end commits up to this index whatever the append covers, possibly including
		// entries that no other node has. Nor may the index cover entries that a crash here could undo.
		part.LeaderCommitIndex = min(args.LeaderCommitIndex, part.PrevLogEntry+uint64(n), t.cfg.Log.Durable())
		err := t.append(id, target, &part, size, resp)
		for !heartbeat(args) && t.away(t.ctx, err, args.Term) {
			err = t.append(id, target, &part, size, resp)
		}
		if err != nil {
			return err
		}
		if !heartbeat(args) {
			t.replicated(id)
		}
		if len(rest) == 0 || !resp.Success {
			return nil
		}
		last := part.Entries[n-1]
		part.PrevLogEntry, part.PrevLogTerm = last.Index, last.Term
	}
}

// heartbeat reports whether an append is one of raft's heartbeats.
func heartbeat(m *raft.AppendEntriesRequest) bool {
	return len(m.Entries) == 0 && m.PrevLogEntry == 0 && m.LeaderCommitIndex == 0
}

// away reports whether a request must be sent again because its peer could not be reached, after waiting
// for the next attempt. Raft itself waits longer after each failure, up to ten seconds, and would ignore
// a returning peer for as long.
func (t *Transport) away(ctx context.Context, err error, term uint64) bool {
	if err == nil {
		return false
	}
	var dial *rpc.DialError
	if !errors.As(err, &dial) {
		return false
	}
	retry := time.NewTimer(t.cfg.Timeout / redials)
	defer retry.Stop()
	select {
	case <-retry.C:
	case <-ctx.Done():
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.term <= term // otherwise this node no longer leads in the term
}

// redials is the number of attempts to reach an absent peer within Config.Timeout.
const redials = 20

// fitting returns how many of the entries fit into one append, and their approximate size.
func fitting(entries []*raft.Log) (n, size int) {
	for _, entry := range entries {
		next := size + len(entry.Data) + len(entry.Extensions)
		if n > 0 && next > appendBytes {
			break
		}
		n, size = n+1, next
	}
	return n, size
}

// append sends one append and records the result.
func (t *Transport) append(id raft.ServerID, target raft.ServerAddress,
	req *raft.AppendEntriesRequest, size int, resp *raft.AppendEntriesResponse,
) error {
	if t.muted.Load() {
		return errMuted
	}
	mark, begin := t.sending(id, target, req), time.Now()
	to, err := t.peer(id, target)
	var peer rpc.Identity
	if err == nil {
		out := outbound{peer: to, method: methodAppend, message: (*appendMessage)(req), limit: t.cfg.Timeout, again: t.cfg.Timeout / 2}
		switch {
		case heartbeat(req):
			out.again = t.cfg.Timeout / 4
		case len(req.Entries) > 0:
			out.limit, out.again = patience*out.limit+rpc.Transfer(size), out.again+rpc.Transfer(size)
		}
		peer, err = t.call(out, func(b []byte) error {
			return errors.Join(decodeAppendResponse(b, resp), t.checkTerm(resp.Term))
		})
	}
	if t.cfg.Heartbeat != nil && heartbeat(req) {
		t.cfg.Heartbeat(time.Since(begin), err)
	}
	if lost := t.answered(id, peer, req, resp, mark, err); lost > 0 {
		if t.cfg.Lost != nil {
			t.cfg.Lost(peer, lost, resp.LastLog)
		}
		return errLost
	}
	return err
}

// RequestVote asks a member for its vote.
func (t *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress,
	args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse,
) error {
	if err := t.stand(); err != nil {
		return err
	}
	return t.quick(id, target, methodVote,
		func(b []byte) []byte { return encodeVote(b, args) },
		func(b []byte) error { return errors.Join(decodeVoteResponse(b, resp), t.checkTerm(resp.Term)) })
}

// RequestPreVote asks a member whether it would vote.
func (t *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress,
	args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse,
) error {
	if err := t.stand(); err != nil {
		return err
	}
	if err := t.awaitTurn(); err != nil {
		return err
	}
	return t.quick(id, target, methodPreVote,
		func(b []byte) []byte { return encodePreVote(b, args) },
		func(b []byte) error { return errors.Join(decodePreVoteResponse(b, resp), t.checkTerm(resp.Term)) })
}

// stand waits until this node may ask for votes, for as long as raft waits for a majority.
func (t *Transport) stand() error {
	if t.cfg.Stand == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.ctx, 2*t.cfg.Timeout)
	defer cancel()
	return t.cfg.Stand(ctx)
}

// TimeoutNow makes a member stand for election at once.
func (t *Transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress,
	args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse,
) error {
	err := t.quick(id, target, methodTimeoutNow,
		func(b []byte) []byte { return encodeTimeoutNow(b, args) },
		func(b []byte) error { return decodeTimeoutNowResponse(b, resp) })
	if err != nil {
		t.unheard.Broadcast()
	}
	return err
}

// Unheard returns a channel that is closed when the next TimeoutNow fails: the member will not take over.
func (t *Transport) Unheard() <-chan struct{} { return t.unheard.Wait() }

func (t *Transport) quick(id raft.ServerID, target raft.ServerAddress, method byte,
	encode func([]byte) []byte, decode func([]byte) error,
) error {
	again := t.cfg.Timeout / 4
	if method == methodTimeoutNow {
		again = t.cfg.Timeout // never: after a second request a node might stand for election although it already leads
	}
	peer, err := t.peer(id, target)
	if err != nil {
		return err
	}
	req := outbound{peer: peer, method: method, message: encoder(encode), limit: t.cfg.Timeout, again: again}
	if _, err = t.call(req, decode); err == nil {
		t.contact(id)
	}
	return err
}

func (t *Transport) open(ctx context.Context, id raft.ServerID, target raft.ServerAddress) (*rpc.Conn, error) {
	peer, err := t.peer(id, target)
	if err != nil {
		return nil, err
	}
	return t.cfg.Client.Open(ctx, peer, rpc.LaneRaft)
}

// InstallSnapshot sends a snapshot, which is args.Size bytes of data. It continues for as long as the
// peer makes progress.
func (t *Transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress,
	args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader,
) error {
	if t.muted.Load() {
		return errMuted
	}
	ctx, cancel := context.WithCancelCause(t.ctx)
	defer cancel(nil)
	limit := patience*t.cfg.Timeout + rpc.Transfer(chunkBytes)
	stalled := time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) })
	defer stalled.Stop()

	conn, err := t.open(ctx, id, target)
	for t.away(t.ctx, err, args.Term) {
		stalled.Reset(limit)
		conn, err = t.open(ctx, id, target)
	}
	if err != nil {
		return err
	}
	defer conn.Release()
	release := conn.Guard(ctx)
	kind, payload, err := stream(conn, args, data, func() { stalled.Reset(limit) })
	if err = release(err); err != nil {
		conn.Close()
		return err
	}
	t.contact(id)
	err = decodeReply(kind, payload, func(b []byte) error {
		return errors.Join(decodeSnapshotResponse(b, resp), t.checkTerm(resp.Term))
	})
	if errors.Is(err, ErrMalformed) {
		t.refused(conn, err)
		conn.Close()
	}
	return err
}

// stream sends a snapshot and waits for the reply. It calls progress at each step.
func stream(conn *rpc.Conn, args *raft.InstallSnapshotRequest, data io.Reader, progress func()) (byte, []byte, error) {
	if err := conn.Send(methodSnapshot, func(b []byte) []byte { return encodeSnapshot(b, args) }); err != nil {
		return 0, nil, err
	}
	chunk := make([]byte, min(args.Size, chunkBytes))
	for rest := args.Size; rest > 0; rest -= int64(len(chunk)) {
		chunk = chunk[:min(rest, chunkBytes)]
		if _, err := io.ReadFull(data, chunk); err != nil {
			return 0, nil, fmt.Errorf("raftnet: reading the snapshot: %w", err)
		}
		if err := conn.Send(methodChunk, func(b []byte) []byte { return append(b, chunk...) }); err != nil {
			return 0, nil, err
		}
		progress()
	}
	for {
		kind, payload, err := conn.Receive()
		if err != nil || kind != replyWorking {
			return kind, payload, err
		}
		progress()
	}
}
