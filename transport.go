// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/wire"
)

// The calls between nodes, all but the first from a follower to its leader.
const (
	methodPing byte = iota + 1
	methodPropose
	methodReadIndex
	methodRenew
	methodTimeToLive
)

// The codes of errors that a node answers another's call with.
const (
	codeOther byte = iota
	codeNotLeader
	codeLeaseNotFound
	codeNoSpace
)

// errNotLeader: a call that only the leader serves came elsewhere. It never leaves the package.
var errNotLeader = errors.New("coterie: not the leader")

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
	n.client = rpc.NewClient(n.cfg.Network, rpc.Identity{Cluster: n.cluster, Member: uint64(n.id)})
	n.client.Refused = n.refusedAt(&refusals{})
}

// newTransport makes what carries raft's messages.
func (n *Node) newTransport(term func() uint64) *raftnet.Transport {
	return raftnet.New(raftnet.Config{
		Self: serverID(n.id), Addr: raft.ServerAddress(n.cfg.Advertise), Client: n.client, Timeout: n.cfg.ElectionTimeout,
		Resolve: n.peerAddress,
		Log:     n.log,
		Applied: func() uint64 { return n.view().Index },
		Term:    term,
	})
}

// serve answers other nodes.
func (n *Node) serve(l net.Listener) {
	n.server = rpc.Serve(l, rpc.ServerConfig{
		Identity: rpc.Identity{Cluster: n.cluster, Member: uint64(n.id)},
		Known:    func(member uint64) bool { return n.raft().knows(member) },
		Raft:     func(ctx context.Context, c *rpc.Conn) { n.raft().net.Serve(ctx, c) },
		Call:     n.answerCall,
		Refused:  n.refusedHere(&refusals{}),
	})
}

// peerAddress is where Config.Peers has a member, or nothing: then it is where the log has it.
func (n *Node) peerAddress(id uint64) string {
	for _, p := range n.cfg.Peers {
		if uint64(n.cfg.memberID(p.Name)) == id {
			return p.Addr
		}
	}
	return ""
}

// answerCall serves the calls of other nodes.
func (n *Node) answerCall(ctx context.Context, from uint64, method byte, req []byte) ([]byte, error) {
	// Whoever asked waits no longer either.
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
	defer cancel()
	switch method {
	case methodPing:
		return nil, nil
	case methodPropose:
		if !n.leadership().Self {
			return nil, remoteError(errNotLeader)
		}
		if err := command.CheckForeign(req); err != nil {
			return nil, remoteError(err)
		}
		return nil, remoteError(n.accept(req))
	case methodReadIndex:
		if !n.leadership().Self {
			return nil, remoteError(errNotLeader)
		}
		p, err := n.reads.point(ctx)
		return binary.AppendUvarint(nil, p.index), remoteError(err)
	case methodRenew:
		ttl, err := n.leases.renew(ctx, leaseFrom(req))
		return binary.AppendUvarint(nil, uint64(ttl)), remoteError(err)
	case methodTimeToLive:
		l, err := n.leases.timeToLive(ctx, leaseFrom(req))
		return l.append(nil), remoteError(err)
	}
	return nil, &rpc.RemoteError{Text: fmt.Sprintf("coterie: unknown method %d", method)}
}

// remoteError gives an error the form in which it travels.
func remoteError(err error) error {
	code := codeOther
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNotLeader):
		code = codeNotLeader
	case errors.Is(err, ErrLeaseNotFound):
		code = codeLeaseNotFound
	case errors.Is(err, ErrNoSpace):
		code = codeNoSpace
	}
	return &rpc.RemoteError{Code: code, Text: err.Error()}
}

// call asks another node, and gives its errors their identity back.
func (n *Node) call(ctx context.Context, to MemberID, method byte, req []byte) ([]byte, error) {
	addr := cmp.Or(n.peerAddress(uint64(to)), n.raft().members[serverID(to)])
	resp, err := n.client.Call(ctx, rpc.Peer{ID: uint64(to), Addr: addr}, method, req)
	if err == nil {
		n.talks(to)
		return resp, nil
	}
	var remote *rpc.RemoteError
	if errors.As(err, &remote) {
		switch remote.Code {
		case codeNotLeader:
			return nil, errNotLeader
		case codeLeaseNotFound:
			return nil, ErrLeaseNotFound
		case codeNoSpace:
			return nil, ErrNoSpace
		}
	}
	return nil, err
}

func (n *Node) callPropose(ctx context.Context, leader MemberID, entry []byte) error {
	_, err := n.call(ctx, leader, methodPropose, entry)
	return err
}

func (n *Node) callReadIndex(ctx context.Context, leader MemberID) (readPoint, error) {
	index, err := uvarint(n.call(ctx, leader, methodReadIndex, nil))
	return readPoint{index: index}, err
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

// awaitPeers waits until that many of the other founders answer.
func (n *Node) awaitPeers(ctx context.Context, enough int) bool {
	if enough == 0 {
		return true
	}
	answers := make(chan struct{}, len(n.cfg.Peers))
	for _, p := range n.cfg.Peers {
		id := n.cfg.memberID(p.Name)
		if id == n.id {
			continue
		}
		n.start(func() {
			for ctx.Err() == nil {
				if _, err := n.call(ctx, id, methodPing, nil); err == nil {
					answers <- struct{}{}
					return
				}
				select {
				case <-time.After(pingInterval):
				case <-ctx.Done():
				}
			}
		})
	}
	for range enough {
		select {
		case <-answers:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// pingInterval is how often a founder looks for the others before the first election.
const pingInterval = 10 * time.Millisecond
