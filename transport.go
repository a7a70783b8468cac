// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/throttle"
	"github.com/coterie-kv/coterie/internal/usercode"
	"github.com/coterie-kv/coterie/internal/wire"
)

// The calls between nodes. A ping and a join go to any node, the others from a follower to its leader, unless
// they say otherwise.
const (
	methodPing byte = iota + 1 // says where the caller is, and asks which node answers
	methodPropose
	methodReadIndex
	methodRenew
	methodTimeToLive
	methodChange
	methodJoin // as methodChange; the node passes it on to the leader
	methodRead
	methodHash // from any member to any other
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
	codeMemberNotReady
)

// sentinels are the errors that keep their identity between nodes, by their codes.
func sentinels() []error {
	return []error{
		codeNotLeader: errNotLeader, codeLeaseNotFound: ErrLeaseNotFound, codeNoSpace: ErrNoSpace,
		codeClusterMismatch: ErrClusterMismatch, codeDirMismatch: ErrDirMismatch, codeMemberNotFound: ErrMemberNotFound,
		codeMemberExists: ErrMemberExists, codeUnhealthy: ErrUnhealthy, codeInvalidOption: ErrInvalidOption,
		codeDuplicateNode: ErrDuplicateNode, codeMemberNotReady: ErrMemberNotReady,
	}
}

// final reports whether the leader's answer would be the same error again, so that the call is not repeated.
func final(err error) bool {
	for _, kind := range []error{
		ErrLeaseNotFound, ErrClusterMismatch, ErrDirMismatch, ErrDuplicateNode, ErrMemberNotFound, ErrMemberExists, ErrUnhealthy, ErrInvalidOption,
		ErrMemberNotReady,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// errNotLeader: a call that only the leader serves reached another node. No call of a user returns it.
var errNotLeader = fault.ErrNotLeader

// A transport has a node's connections to other nodes, and calls them. Open sets the fields, and no goroutine changes
// them later. The parts guard themselves, so any goroutine may use a transport.
type transport struct {
	cfg      *Config
	identity *identity
	views    *views
	peers    *peers
	meter    *usercode.Meter[Metric]

	client    *rpc.Client
	server    *rpc.Server    // nil without a network
	verifiers usercode.Calls // of Config.VerifyMember

	// Of the log lines about callers, raft's messages and members that this node rejected, or that rejected it.
	callers, messages, dials throttle.Throttle
}

// newTransport makes the client side of a node's network.
func newTransport(n *Node) *transport {
	t := &transport{
		cfg: &n.cfg, identity: n.identity, views: n.views, peers: n.peers, meter: n.meter,
		verifiers: usercode.Calls{Name: "Config.VerifyMember"},
	}
	t.client = rpc.NewClient(t.cfg.Network, t.party())
	t.client.SetPatience(t.cfg.ElectionTimeout / 4)
	t.client.Refused = t.dialRefused
	t.client.Failed = func(err *rpc.DialError) { t.peers.addresses.Failed(err.Peer.ID, err.Peer.Addr) }
	return t
}

// serve begins the server side of a node's network: h answers other nodes.
func (t *transport) serve(l net.Listener, h *handler) {
	t.server = rpc.Serve(l, rpc.ServerConfig{
		Party:   t.party(),
		Raft:    h.serveRaft,
		Call:    h.serveCall,
		Member:  func(id rpc.Identity) bool { return t.peers.judge(id, rpc.LaneRaft) == nil },
		Refused: t.callerRefused,
	})
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

// party returns this node's side of its handshakes.
func (t *transport) party() rpc.Party {
	p := rpc.Party{
		Self: t.hello, Met: t.peers.met, Judge: t.peers.judge,
		Terms: func() []byte { return t.peers.terms().Append(nil, rpc.MaxTerms) },
		Sent:  func(bytes int) { t.meter.Add(MetricPeerSentBytes, bytes) },

		Received: func(bytes int) { t.meter.Add(MetricPeerReceivedBytes, bytes) },
	}
	if t.cfg.VerifyMember != nil {
		p.Verify = t.verifyMember
	}
	return p
}

// hello returns the identity with which this node introduces itself in a handshake.
func (t *transport) hello() rpc.Identity {
	id := t.identity.Load()
	return rpc.Identity{
		Cluster: id.Cluster, Epoch: t.views.Summary().Epoch, Member: id.Member, Incarnation: id.Incarnation, Since: id.Since, Runs: id.Runs,
	}
}

// call calls another member. Errors of the package keep their identity.
func (t *transport) call(ctx context.Context, to MemberID, method byte, req []byte) ([]byte, error) {
	resp, err := t.client.Call(ctx, rpc.Peer{ID: uint64(to), Addr: t.peers.addresses.Find(uint64(to))}, method, req)
	var remote *rpc.RemoteError
	switch {
	case err == nil:
		t.peers.talks(to)
	case !errors.As(err, &remote):
		t.meter.Add(MetricCallsFailed, 1)
	}
	return resp, localError(err)
}

// callChange asks the leader to change the members.
func (t *transport) callChange(ctx context.Context, leader MemberID, c *membership.Change) (membership.Admission, error) {
	resp, err := t.call(ctx, leader, methodChange, c.Append(nil))
	if err != nil {
		return membership.Admission{}, err
	}
	return membership.ReadAdmission(resp)
}

// callPropose asks the leader to append an entry to its log.
func (t *transport) callPropose(ctx context.Context, leader MemberID, entry []byte) error {
	_, err := t.call(ctx, leader, methodPropose, entry)
	return err
}

// callerRefused counts and logs a caller that this node rejected, or that rejected this node.
func (t *transport) callerRefused(remote net.Addr, err error) {
	t.meter.Add(MetricConnectionsRefused, 1)
	// Any stranger can fail at TLS. If a member does, this node dials it as well, and Ready has the outcome of
	// that.
	if !errors.Is(err, rpc.ErrTLS) {
		t.peers.refused(err)
	}
	host, _, splitErr := net.SplitHostPort(remote.String())
	if splitErr != nil {
		host = remote.String()
	}
	if omitted, ok := t.callers.Allow(host); ok {
		t.cfg.Logger.Warn("connection refused", "remote", remote.String(), "err", t.peers.inWords(err), "omitted", omitted)
	}
}

// messageRefused counts and logs one of raft's messages that this node rejected.
func (t *transport) messageRefused(from rpc.Identity, remote net.Addr, err error) {
	t.meter.Add(MetricConnectionsRefused, 1)
	member := MemberID(from.Member).String()
	if omitted, ok := t.messages.Allow(member); ok {
		t.cfg.Logger.Warn("message refused", "member", member, "remote", remote.String(), "err", err, "omitted", omitted)
	}
}

// dialRefused counts and logs a member that rejected this node when this node dialled it, or that this node
// rejected then. The last such reason stands until a leader is known, or that member answers a call.
func (t *transport) dialRefused(err *rpc.DialError) {
	t.meter.Add(MetricConnectionsRefused, 1)
	t.peers.refused(err)
	if omitted, ok := t.dials.Allow(err.Peer.Addr); ok {
		t.cfg.Logger.Warn("connection failed", "remote", err.Peer.Addr, "err", t.peers.inWords(err), "omitted", omitted)
	}
}

// A handler answers the calls of other nodes, and passes their raft messages to raft. Open sets the fields, and no
// goroutine changes them later, so any goroutine may use it.
type handler struct {
	cfg      *Config
	lead     *leadership
	identity *identity
	peers    *peers
	reads    *reader
	leases   *leases
	joiner   *joiner
	roster   *roster
	hasher   *hasher
	raft     func() *consensus
	alive    func(context.Context) error
	room     func() error // why this node cannot write its log, if so
	submit   func(entry []byte)
	change   func(context.Context, *membership.Change) (membership.Admission, error) // makes the leader change the members
}

func newHandler(n *Node) *handler {
	return &handler{
		cfg: &n.cfg, lead: n.lead, identity: n.identity, peers: n.peers, reads: n.reads, leases: n.leases, joiner: n.joiner,
		roster: n.roster, hasher: newHasher(n), raft: n.raft, alive: n.alive, room: n.room, submit: n.supervisor.submit, change: n.askToChange,
	}
}

// serveRaft serves a connection with raft's messages.
func (h *handler) serveRaft(ctx context.Context, c *rpc.Conn) { h.raft().net.Serve(ctx, c) }

// serveCall serves a call of another node.
func (h *handler) serveCall(ctx context.Context, from rpc.Identity, method byte, req []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ElectionTimeout) // the caller waits no longer either
	defer cancel()
	resp, err := h.dispatch(ctx, from, method, req)
	if err != nil && h.alive(ctx) != nil {
		// The caller must not learn why this node has stopped or knows no leader: it would take that for
		// a verdict about itself.
		err = errNotLeader
	}
	return resp, remoteError(err)
}

// dispatch calls the part of the node that answers a method.
func (h *handler) dispatch(ctx context.Context, from rpc.Identity, method byte, req []byte) ([]byte, error) {
	if method != methodPing && method != methodJoin {
		if err := h.peers.judge(from, rpc.LaneRaft); err != nil {
			return nil, err
		}
	}
	switch method {
	case methodPing:
		return h.joiner.answerPing(from, req), nil
	case methodJoin, methodChange:
		a, err := h.answerChange(ctx, from, method, req)
		return a.Append(nil), err
	case methodPropose:
		return nil, h.answerPropose(req)
	case methodReadIndex:
		return h.reads.answerReadIndex(ctx, MemberID(from.Member), req)
	case methodRead:
		return h.reads.answerRead(ctx, req)
	case methodRenew:
		return h.leases.answerRenew(ctx, req)
	case methodTimeToLive:
		return h.leases.answerTimeToLive(ctx, req)
	case methodHash:
		return h.hasher.answer(ctx, req)
	}
	return nil, &rpc.RemoteError{Text: fmt.Sprintf("coterie: unknown method %d", method)}
}

// answerPropose appends an entry of another node to the log of this one, if it leads and its disk has room.
func (h *handler) answerPropose(entry []byte) error {
	if !h.lead.Now().Self {
		return errNotLeader
	}
	if err := command.CheckForeign(entry); err != nil {
		return err
	}
	if err := h.room(); err != nil {
		return err
	}
	h.submit(entry)
	return nil
}

// answerChange changes the members, if this node leads. It passes the request of a node that joins on to the leader.
func (h *handler) answerChange(ctx context.Context, from rpc.Identity, method byte, req []byte) (membership.Admission, error) {
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
		return h.roster.change(ctx, c)
	case c.Kind != membership.Enroll || c.ID != from.Member || c.Incarnation != from.Incarnation:
		return membership.Admission{}, fmt.Errorf("%w: a node joins for itself", ErrInvalidOption)
	case h.identity.Load().Since == 0 && h.lead.Now().Leader == 0:
		return membership.Admission{}, errNotLeader // this node is not let in itself yet: the caller asks others
	}
	return h.change(ctx, c)
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
