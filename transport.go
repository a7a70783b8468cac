// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/wire"
)

// The calls between nodes: two to whoever it is, the others from a follower to its leader.
const (
	methodPing byte = iota + 1 // here I am, and who are you
	methodPropose
	methodReadIndex
	methodRenew
	methodTimeToLive
	methodChange
	methodJoin // as methodChange, wherever the leader is
	methodRead
)

// The codes of errors that a node answers another's call with.
const (
	codeOther byte = iota
	codeNotLeader
	codeLeaseNotFound
	codeNoSpace
	codeClusterMismatch
	codeDirMismatch
	codeMemberNotFound
	codeMemberExists
	codeUnhealthy
	codeInvalidOption
	codeDuplicateNode
)

// sentinels are the errors that keep their identity between nodes, by their codes.
func sentinels() []error {
	return []error{
		codeNotLeader: errNotLeader, codeLeaseNotFound: ErrLeaseNotFound, codeNoSpace: ErrNoSpace,
		codeClusterMismatch: ErrClusterMismatch, codeDirMismatch: ErrDirMismatch, codeMemberNotFound: ErrMemberNotFound,
		codeMemberExists: ErrMemberExists, codeUnhealthy: ErrUnhealthy, codeInvalidOption: ErrInvalidOption,
		codeDuplicateNode: ErrDuplicateNode,
	}
}

// errNotLeader: a call that only the leader serves came elsewhere. No call of a user returns it.
var errNotLeader = fault.ErrNotLeader

// listen opens the node's one port, if it has one.
func listen(cfg *Config) (net.Listener, error) {
	if cfg.Addr == "" {
		return nil, nil
	}
	l, err := cfg.Network.Listen(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("coterie: listening on %s: %w", cfg.Addr, err)
	}
	return l, nil
}

// connect makes the node's own side of the network.
func (n *Node) connect() {
	n.client = rpc.NewClient(n.cfg.Network, n.party())
	n.client.SetPatience(n.cfg.ElectionTimeout / 4)
	n.client.Refused = n.refusedAt(&throttle{})
	n.client.Failed = func(err *rpc.DialError) { n.addresses.Failed(err.Peer.ID, err.Peer.Addr) }
}

// newTransport makes what carries raft's messages. Raft tells candidates apart by their addresses, but
// those of members change hands: to raft, a member's own address is its ID.
func (n *Node) newTransport(term, committed func() uint64) *raftnet.Transport {
	return raftnet.New(raftnet.Config{
		Self: serverID(n.id), Addr: raft.ServerAddress(serverID(n.id)), Client: n.client, Timeout: n.cfg.ElectionTimeout,
		Resolve: n.addresses.Find,
		Admit:   n.admitRaft,
		Newest:  func() uint64 { return max(n.log.Term(), n.identity.Load().Floor) },
		Check:   command.Check,
		Refused: n.refusedMessage(&n.messages),
		Stand:   n.mayStand,
		Turn:    n.turnToStand,
		Lost:    n.lostData,
		Log:     n.log,
		Applied: func() uint64 { return n.views.Load().Index },
		Term:    term,

		Committed: committed,
	})
}

// serve answers other nodes.
func (n *Node) serve(l net.Listener) {
	n.server = rpc.Serve(l, rpc.ServerConfig{
		Party:   n.party(),
		Raft:    func(ctx context.Context, c *rpc.Conn) { n.raft().net.Serve(ctx, c) },
		Call:    n.answerCall,
		Member:  func(id rpc.Identity) bool { return n.judge(id, rpc.LaneRaft) == nil },
		Refused: n.refusedHere(&throttle{}),
	})
}

// answerCall serves the calls of other nodes.
func (n *Node) answerCall(ctx context.Context, from rpc.Identity, method byte, req []byte) ([]byte, error) {
	// Whoever asked waits no longer either.
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
	defer cancel()
	resp, err := n.answer(ctx, from, method, req)
	if err != nil && n.alive(ctx) != nil {
		// Why this node has stopped, or hears of no leader, is its own affair: the caller would take it
		// for a verdict about itself.
		err = errNotLeader
	}
	return resp, remoteError(err)
}

func (n *Node) answer(ctx context.Context, from rpc.Identity, method byte, req []byte) ([]byte, error) {
	if method != methodPing && method != methodJoin {
		if err := n.judge(from, rpc.LaneRaft); err != nil {
			return nil, err
		}
	}
	switch method {
	case methodPing:
		return n.answerPing(from, req), nil
	case methodJoin, methodChange:
		a, err := n.answerChange(ctx, from, method, req)
		return a.append(nil), err
	case methodPropose:
		if !n.lead.Now().Self {
			return nil, errNotLeader
		}
		if err := command.CheckForeign(req); err != nil {
			return nil, err
		}
		return nil, n.accept(req)
	case methodReadIndex:
		if !n.lead.Now().Self {
			return nil, errNotLeader
		}
		p, err := n.reads.point(ctx)
		return binary.AppendUvarint(binary.AppendUvarint(nil, p.index), p.leader), err
	case methodRead:
		return n.answerRead(ctx, req)
	case methodRenew:
		return n.answerRenew(ctx, req)
	case methodTimeToLive:
		return n.answerTimeToLive(ctx, req)
	}
	return nil, &rpc.RemoteError{Text: fmt.Sprintf("coterie: unknown method %d", method)}
}

// remoteError gives an error the form in which it travels.
func remoteError(err error) error {
	if err == nil {
		return nil
	}
	remote := &rpc.RemoteError{Text: err.Error()}
	for code, kind := range sentinels() {
		if kind != nil && errors.Is(err, kind) {
			remote.Code, remote.Text = byte(code), strings.TrimPrefix(remote.Text, kind.Error())
		}
	}
	return remote
}

// localError is the reverse of remoteError.
func localError(err error) error {
	var remote *rpc.RemoteError
	kinds := sentinels()
	if !errors.As(err, &remote) || int(remote.Code) >= len(kinds) || kinds[remote.Code] == nil {
		return err
	}
	kind := kinds[remote.Code]
	if remote.Text == "" {
		return kind
	}
	return fmt.Errorf("%w%s", kind, remote.Text)
}

// call asks another node, and gives its errors their identity back.
func (n *Node) call(ctx context.Context, to MemberID, method byte, req []byte) ([]byte, error) {
	resp, err := n.client.Call(ctx, rpc.Peer{ID: uint64(to), Addr: n.addresses.Find(uint64(to))}, method, req)
	var answered *rpc.RemoteError
	switch {
	case err == nil:
		n.talks(to)
	case !errors.As(err, &answered):
		n.count(MetricCallsFailed, 1)
	}
	return resp, localError(err)
}

func (n *Node) callChange(ctx context.Context, leader MemberID, c *change) (admission, error) {
	resp, err := n.call(ctx, leader, methodChange, c.append(nil))
	if err != nil {
		return admission{}, err
	}
	return readAdmission(resp)
}

// callJoin asks whoever is at an address to have this node let in.
func (n *Node) callJoin(ctx context.Context, addr string, c *change) (admission, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
	defer cancel()
	resp, err := n.client.Call(ctx, rpc.Peer{Addr: addr}, methodJoin, c.append(nil))
	err = localError(err)
	n.tried(addr, err)
	if err != nil {
		return admission{}, err
	}
	return readAdmission(resp)
}

func (n *Node) answerChange(ctx context.Context, from rpc.Identity, method byte, req []byte) (admission, error) {
	c, err := readChange(req)
	if err == nil && (c.addr != "" || c.kind == changeUpdate) {
		if bad := checkDialable(c.addr); bad != nil {
			err = fmt.Errorf("%w: the address of member %v: %w", ErrInvalidOption, c.id, bad)
		}
	}
	switch {
	case err != nil:
		return admission{}, err
	case method == methodChange:
		return n.roster.change(ctx, c)
	case c.kind != changeEnroll || uint64(c.id) != from.Member || c.incarnation != from.Incarnation:
		return admission{}, fmt.Errorf("%w: a node joins for itself", ErrInvalidOption)
	case n.identity.Load().Since == 0 && n.lead.Now().Leader == 0:
		return admission{}, errNotLeader // it wants to be let in itself: others are to be asked
	}
	return n.askToChange(ctx, c)
}

func (n *Node) callPropose(ctx context.Context, leader MemberID, entry []byte) error {
	_, err := n.call(ctx, leader, methodPropose, entry)
	return err
}

func (n *Node) callReadIndex(ctx context.Context, leader MemberID) (readPoint, error) {
	b, err := n.call(ctx, leader, methodReadIndex, nil)
	if err != nil {
		return readPoint{}, err
	}
	index, size := binary.Uvarint(b)
	if size <= 0 {
		return readPoint{}, wire.ErrMalformed
	}
	term, _ := binary.Uvarint(b[size:]) // an earlier version does not tell
	return readPoint{index: index, leader: term}, nil
}

// uvarint reads a reply that is a number.
func uvarint(b []byte, err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	v, size := binary.Uvarint(b)
	if size <= 0 {
		return 0, wire.ErrMalformed
	}
	return v, nil
}

// A pong is the answer to a ping.
type pong struct {
	member      uint64
	founding    bool // it is new: see isNew
	gathered    bool // see gathered
	incarnation uint64
	run         run.Number
	forgotten   bool // the node that asked has lost data, as far as this one knows
}

// ping tells a member, 0 for whoever it is, where this node is, and learns where it is itself.
func (n *Node) ping(ctx context.Context, to MemberID, addr string) (pong, error) {
	p, err := n.ask(ctx, to, addr, n.cfg.Advertise)
	if err == nil {
		n.heed(p, addr)
	}
	return p, err
}

// ask asks a member, 0 for whoever it is, about itself and what it knows of this node. If own is not
// empty, the member takes it for this node's address.
func (n *Node) ask(ctx context.Context, to MemberID, addr, own string) (p pong, err error) {
	resp, err := n.client.Call(ctx, rpc.Peer{ID: uint64(to), Addr: addr}, methodPing, wire.Text(nil, 1, own))
	n.tried(addr, err)
	if err != nil {
		return pong{}, err
	}
	r := wire.NewReader(resp)
	for r.Next() {
		switch r.Field() {
		case 1:
			p.member = r.Uint()
		case 2:
			p.founding = r.Bool()
		case 3:
			p.gathered = r.Bool()
		case 4:
			p.incarnation = r.Uint()
		case 5:
			p.run.Count = r.Uint()
		case 6:
			p.run.Draw = r.Uint()
		case 7:
			p.forgotten = r.Bool()
		}
	}
	if r.Err() == nil && !p.founding && n.gathers() {
		n.attempts.Note(addr, membership.ErrFounded)
	}
	return p, r.Err()
}

func (n *Node) answerPing(from rpc.Identity, req []byte) []byte {
	r := wire.NewReader(req)
	for r.Next() {
		if r.Field() != 1 || from.Member == uint64(n.id) || n.judge(from, rpc.LaneRaft) != nil {
			continue
		}
		if addr := r.Text(); checkDialable(addr) == nil {
			n.addresses.Learn(from.Member, addr)
		}
	}
	b := wire.Uint(nil, 1, uint64(n.id))
	b = wire.Bool(b, 2, n.isNew())
	b = wire.Bool(b, 3, n.gathered())
	id := n.identity.Load()
	now := id.Runs.Now()
	b = wire.Uint(wire.Uint(wire.Uint(b, 4, id.Incarnation), 5, now.Count), 6, now.Draw)
	return wire.Bool(b, 7, errors.Is(n.opinion(from), rpc.ErrForgotten))
}
