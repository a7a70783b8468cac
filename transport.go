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
	"github.com/coterie-kv/coterie/internal/throttle"
	"github.com/coterie-kv/coterie/internal/usercode"
	"github.com/coterie-kv/coterie/internal/wire"
)

// The calls between nodes. A ping and a join go to any node, the others from a follower to its leader.
const (
	methodPing byte = iota + 1 // says where the caller is, and asks which node answers
	methodPropose
	methodReadIndex
	methodRenew
	methodTimeToLive
	methodChange
	methodJoin // as methodChange; the node passes it on to the leader
	methodRead
)

// The codes of the errors with which a node answers another's call.
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

// final reports whether the leader's answer would be the same error again, so that the call is not repeated.
func final(err error) bool {
	for _, kind := range []error{
		ErrLeaseNotFound, ErrClusterMismatch, ErrDirMismatch, ErrDuplicateNode, ErrMemberNotFound, ErrMemberExists, ErrUnhealthy, ErrInvalidOption,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// errNotLeader: a call that only the leader serves reached another node. No call of a user returns it.
var errNotLeader = fault.ErrNotLeader

// A transport has a node's connections to other nodes. Any goroutine may use it once Open has made it.
type transport struct {
	client    *rpc.Client
	server    *rpc.Server       // nil without a network
	rejected  throttle.Throttle // of the log lines about raft messages that this node rejected
	verifiers usercode.Calls    // of Config.VerifyMember
}

// close closes all connections.
func (t *transport) close() error {
	if t.server == nil {
		return t.client.Close()
	}
	return errors.Join(t.client.Close(), t.server.Close())
}

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

// connect makes the node's client side of the network.
func (n *Node) connect() {
	n.transport.client = rpc.NewClient(n.cfg.Network, n.party())
	n.transport.client.SetPatience(n.cfg.ElectionTimeout / 4)
	n.transport.client.Refused = n.dialRefused(&throttle.Throttle{})
	n.transport.client.Failed = func(err *rpc.DialError) { n.peers.addresses.Failed(err.Peer.ID, err.Peer.Addr) }
}

// party is this node's side of its handshakes.
func (n *Node) party() rpc.Party {
	p := rpc.Party{
		Self: n.hello, Met: n.peers.met, Judge: n.peers.judge,
		Terms: func() []byte { return n.peers.terms().Append(nil, rpc.MaxTerms) },
	}
	if n.cfg.VerifyMember != nil {
		p.Verify = n.verifyMember
	}
	return p
}

// hello returns the identity with which this node introduces itself in a handshake.
func (n *Node) hello() rpc.Identity {
	id := n.identity.Load()
	return rpc.Identity{
		Cluster: id.Cluster, Epoch: n.views.Load().Epoch, Member: id.Member, Incarnation: id.Incarnation, Since: id.Since, Runs: id.Runs,
	}
}

// newTransport makes the transport of raft's messages. Raft tells candidates apart by their addresses, but
// two members may have the same address one after the other. So to raft, a member's address is its ID.
func (n *Node) newTransport(term, committed func() uint64) *raftnet.Transport {
	return raftnet.New(raftnet.Config{
		Self: serverID(n.id), Addr: raft.ServerAddress(serverID(n.id)), Client: n.transport.client, Timeout: n.cfg.ElectionTimeout,
		Resolve: n.peers.addresses.Find,
		Admit:   n.admitRaft,
		Newest:  func() uint64 { return max(n.log.Term(), n.identity.Load().Floor) },
		Check:   command.Check,
		Refused: n.messageRefused,
		Stand:   n.joiner.mayStand,
		Turn:    n.turnToStand,
		Lost:    n.lostData,
		Log:     n.log,
		Applied: func() uint64 { return n.views.Load().Index },
		Term:    term,

		Committed: committed,
	})
}

// admitRaft waits until this node may answer one of raft's requests, or ctx ends.
func (n *Node) admitRaft(ctx context.Context, from rpc.Identity, r raftnet.Request) error {
	for {
		changed := n.identity.Changed()
		if err := n.peers.judge(from, rpc.LaneRaft); err != nil {
			return err
		}
		c, id := n.raft(), n.identity.Load()
		t := membership.Trust{
			Since: id.Since, Floor: id.Floor, Last: c.raft.LastIndex(), Gathered: id.Gathered, Forgotten: n.identity.forgotten.Load(),
		}
		if t.Since == 0 {
			t.Founding, t.Elected = c.founding(), c.votedFor(serverID(MemberID(from.Member)), r.Term)
		}
		mayVote := n.identity.runChecked.Load() || !r.Vote && !r.Elect
		if mayVote && t.MayAnswer(membership.Request{Since: from.Since, Term: r.Term, Vote: r.Vote, Elect: r.Elect}) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errUntrusted
		case <-n.life.Closing():
			return n.life.Err()
		}
	}
}

// errUntrusted: this node does not know its promises in an earlier incarnation.
var errUntrusted = errors.New("coterie: this node may have forgotten its promises")

// lostData notes that a member's log ends at last, though the member had acknowledged more to this leader.
// This node rejects the member from now on. When the member asks to be on record again, every other node
// rejects it as well.
func (n *Node) lostData(member rpc.Identity, acknowledged, last uint64) {
	if n.peers.losses.Add(member.Member, member.Incarnation) {
		n.cfg.Logger.Error("a member has lost entries that it had acknowledged", "member", MemberID(member.Member).String(),
			"acknowledged", acknowledged, "last", last)
	}
}

// serve answers other nodes.
func (n *Node) serve(l net.Listener) {
	n.transport.server = rpc.Serve(l, rpc.ServerConfig{
		Party:   n.party(),
		Raft:    func(ctx context.Context, c *rpc.Conn) { n.raft().net.Serve(ctx, c) },
		Call:    n.serveCall,
		Member:  func(id rpc.Identity) bool { return n.peers.judge(id, rpc.LaneRaft) == nil },
		Refused: n.callerRefused(&throttle.Throttle{}),
	})
}

// serveCall serves a call of another node.
func (n *Node) serveCall(ctx context.Context, from rpc.Identity, method byte, req []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout) // the caller waits no longer either
	defer cancel()
	resp, err := n.dispatch(ctx, from, method, req)
	if err != nil && n.alive(ctx) != nil {
		// The caller must not learn why this node has stopped or knows no leader: it would take that for
		// a verdict about itself.
		err = errNotLeader
	}
	return resp, remoteError(err)
}

func (n *Node) dispatch(ctx context.Context, from rpc.Identity, method byte, req []byte) ([]byte, error) {
	if method != methodPing && method != methodJoin {
		if err := n.peers.judge(from, rpc.LaneRaft); err != nil {
			return nil, err
		}
	}
	switch method {
	case methodPing:
		return n.joiner.answerPing(from, req), nil
	case methodJoin, methodChange:
		a, err := n.answerChange(ctx, from, method, req)
		return a.Append(nil), err
	case methodPropose:
		if !n.lead.Now().Self {
			return nil, errNotLeader
		}
		if err := command.CheckForeign(req); err != nil {
			return nil, err
		}
		return nil, n.accept(req)
	case methodReadIndex:
		return n.reads.answerReadIndex(ctx)
	case methodRead:
		return n.reads.answerRead(ctx, req)
	case methodRenew:
		return n.leases.answerRenew(ctx, req)
	case methodTimeToLive:
		return n.leases.answerTimeToLive(ctx, req)
	}
	return nil, &rpc.RemoteError{Text: fmt.Sprintf("coterie: unknown method %d", method)}
}

// remoteError returns an error in the form in which it goes to another node.
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

// call calls another member. Errors of the package keep their identity.
func (n *Node) call(ctx context.Context, to MemberID, method byte, req []byte) ([]byte, error) {
	resp, err := n.transport.client.Call(ctx, rpc.Peer{ID: uint64(to), Addr: n.peers.addresses.Find(uint64(to))}, method, req)
	var remote *rpc.RemoteError
	switch {
	case err == nil:
		n.peers.talks(to)
	case !errors.As(err, &remote):
		n.meter.Add(MetricCallsFailed, 1)
	}
	return resp, localError(err)
}

func (n *Node) callChange(ctx context.Context, leader MemberID, c *membership.Change) (membership.Admission, error) {
	resp, err := n.call(ctx, leader, methodChange, c.Append(nil))
	if err != nil {
		return membership.Admission{}, err
	}
	return membership.ReadAdmission(resp)
}

func (n *Node) answerChange(ctx context.Context, from rpc.Identity, method byte, req []byte) (membership.Admission, error) {
	c, err := membership.ReadChange(req)
	if err == nil && (c.Addr != "" || c.Kind == membership.Update) {
		if bad := checkDialable(c.Addr); bad != nil {
			err = fmt.Errorf("%w: the address of member %v: %w", ErrInvalidOption, MemberID(c.ID), bad)
		}
	}
	switch {
	case err != nil:
		return membership.Admission{}, err
	case method == methodChange:
		return n.roster.change(ctx, c)
	case c.Kind != membership.Enroll || c.ID != from.Member || c.Incarnation != from.Incarnation:
		return membership.Admission{}, fmt.Errorf("%w: a node joins for itself", ErrInvalidOption)
	case n.identity.Load().Since == 0 && n.lead.Now().Leader == 0:
		return membership.Admission{}, errNotLeader // this node is not let in itself yet: the caller asks others
	}
	return n.askToChange(ctx, c)
}

func (n *Node) callPropose(ctx context.Context, leader MemberID, entry []byte) error {
	_, err := n.call(ctx, leader, methodPropose, entry)
	return err
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

// callerRefused returns a function that hears of each caller that this node refused, or that refused it.
func (n *Node) callerRefused(t *throttle.Throttle) func(remote net.Addr, err error) {
	return func(remote net.Addr, err error) {
		n.meter.Add(MetricConnectionsRefused, 1)
		// Any stranger can fail at TLS. If a member does, this node dials it as well, and Ready has the
		// outcome of that.
		if !errors.Is(err, rpc.ErrTLS) {
			n.peers.refused(err)
		}
		host, _, splitErr := net.SplitHostPort(remote.String())
		if splitErr != nil {
			host = remote.String()
		}
		if unsaid, ok := t.Allow(host); ok {
			n.cfg.Logger.Warn("connection refused", "remote", remote.String(), "err", n.peers.inWords(err), "unsaid", unsaid)
		}
	}
}

// messageRefused hears of each of raft's messages that this node refused.
func (n *Node) messageRefused(from rpc.Identity, remote net.Addr, err error) {
	n.meter.Add(MetricConnectionsRefused, 1)
	member := MemberID(from.Member).String()
	if unsaid, ok := n.transport.rejected.Allow(member); ok {
		n.cfg.Logger.Warn("message refused", "member", member, "remote", remote.String(), "err", err, "unsaid", unsaid)
	}
}

// dialRefused returns a function that hears of each member that refused this node when it dialled, or that
// it refused then. The last such reason stands until a leader is known, or that member answers a call.
func (n *Node) dialRefused(t *throttle.Throttle) func(*rpc.DialError) {
	return func(err *rpc.DialError) {
		n.meter.Add(MetricConnectionsRefused, 1)
		n.peers.refused(err)
		if unsaid, ok := t.Allow(err.Peer.Addr); ok {
			n.cfg.Logger.Warn("connection failed", "remote", err.Peer.Addr, "err", n.peers.inWords(err), "unsaid", unsaid)
		}
	}
}
