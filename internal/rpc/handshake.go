// SPDX-License-Identifier: Apache-2.0

// Package rpc carries the calls between nodes: one port per node, connections in lanes, a handshake that
// tells clusters and members apart, and length-prefixed frames.
//
// A connection begins with a byte for its lane and the caller's hello. The accepting side answers with
// its own hello, or with the reason why it rejects the caller. Frames in both directions follow. On
// LaneCall each request is followed by its reply. Package raftnet defines the messages on LaneRaft.
package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/wire"
)

// The lanes. A connection begins with the byte of its lane.
const (
	LaneRaft byte = 'R'
	LaneCall byte = 'C'
)

// Errors of a handshake, on both sides.
var (
	// ErrClusterMismatch: the other node belongs to another cluster.
	ErrClusterMismatch = errors.New("rpc: another cluster")
	// ErrMemberMismatch: the node at the address is another member than the intended one.
	ErrMemberMismatch = errors.New("rpc: another member")
	// ErrVersion: the other node speaks another version of the protocol. A *wire.FormatError names both
	// versions.
	ErrVersion = errors.New("rpc: another protocol version")
	// ErrMalformed: a message does not follow this protocol.
	ErrMalformed = errors.New("rpc: malformed message")
	// ErrTLS: one of the two requires TLS and the other has none, or they do not trust each other.
	// Connections of a Network that encrypts fail with this error.
	ErrTLS = errors.New("rpc: no agreement on TLS")
	// ErrForgotten: the cluster has other data on record for the member, or a later run of the same data:
	// data was lost, or two nodes use the same identity.
	ErrForgotten = errors.New("rpc: the cluster has other data on record for the member")
	// ErrRemoved: the node was a member and has been removed.
	ErrRemoved = errors.New("rpc: no longer a member")
	// ErrStranger: the node is not a member.
	ErrStranger = errors.New("rpc: not a member")
	// ErrCertificate: the other node's certificate does not belong to the member that it claims to be.
	ErrCertificate = errors.New("rpc: the certificate belongs to another member")
	// ErrEarly: the node is not in a cluster yet, or may not take part in it for now.
	ErrEarly = errors.New("rpc: not in a cluster yet")
)

// MaxTerms bounds the result of Party.Terms.
const MaxTerms = 4 << 10

// A MismatchError says that the other node belongs to another cluster. It matches ErrClusterMismatch.
type MismatchError struct {
	Self, Other Identity
	Terms       []byte // of the other node, if it sent them
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: the node %016x is of cluster %016x/%x, this one of %016x/%x", ErrClusterMismatch,
		e.Other.Member, e.Other.Cluster, e.Other.Epoch, e.Self.Cluster, e.Self.Epoch)
}

// Is reports whether target is ErrClusterMismatch.
func (e *MismatchError) Is(target error) bool { return target == ErrClusterMismatch }

// An Identity identifies a node.
type Identity struct {
	Cluster uint64 // 0: not in a cluster yet
	Epoch   uint64 // tells two foundings of a cluster apart; 0: not known
	Member  uint64
	// Incarnation belongs to the node's data: it is drawn with the directory. Since is the log index at
	// or after which the cluster has it on record; 0: the node does not know that it has.
	Incarnation, Since uint64
	Runs               run.Line // of its directory; empty: the node does not number them
}

// A Party is a node's side of its handshakes.
type Party struct {
	// Self returns the node's current identity.
	Self func() Identity
	// Met is called for each node of the same cluster that introduces itself, even if it is rejected
	// afterwards. nil: not called.
	Met func(other Identity)
	// Terms returns the data sent to a caller of another cluster, which can find out how the two differ:
	// at most MaxTerms bytes that this package does not interpret. nil: none is sent.
	Terms func() []byte
	// Judge returns ErrForgotten, ErrRemoved or ErrStranger for a node of the same cluster that must not
	// take part, and ErrEarly while this node may not communicate at all. nil: all nodes are accepted.
	Judge func(other Identity, lane byte) error
	// Verify returns ErrCertificate if the certificate does not belong to the member that the node
	// claims to be. It is called last, and returns when ctx ends. nil: certificates are not compared with
	// members.
	Verify func(ctx context.Context, nc net.Conn, other Identity) error
	// Sent and Received are called with the size of each frame. Calls may be concurrent, and must return soon. nil: not
	// called.
	Sent, Received func(bytes int)
}

// Always returns the Party of a node that never changes and accepts every node of its cluster.
func Always(id Identity) Party { return Party{Self: func() Identity { return id }} }

func (p Party) met(other Identity) {
	if p.Met != nil && other.Cluster != 0 && other.Cluster == p.Self().Cluster {
		p.Met(other)
	}
}

func (p Party) verify(ctx context.Context, nc net.Conn, other Identity) error {
	if p.Verify == nil {
		return nil
	}
	return p.Verify(ctx, nc, other)
}

func (p Party) opinion(other Identity, lane byte) error {
	if p.Judge == nil {
		return nil
	}
	return p.Judge(other, lane)
}

// A verdict is the outcome of a hello.
type verdict uint64

const (
	accepted verdict = iota
	refusedCluster
	refusedMember
	refusedVersion
	refusedTLS
	refusedForgotten
	refusedRemoved
	refusedStranger
	refusedEarly
	refusedCertificate
)

// reason returns the error for a verdict, and verdictOf the verdict for an error.
func (v verdict) reason() error {
	reasons := [...]error{
		refusedCluster: ErrClusterMismatch, refusedMember: ErrMemberMismatch, refusedVersion: ErrVersion, refusedTLS: ErrTLS,
		refusedForgotten: ErrForgotten, refusedRemoved: ErrRemoved, refusedStranger: ErrStranger, refusedEarly: ErrEarly,
		refusedCertificate: ErrCertificate,
	}
	if v == accepted {
		return nil
	}
	if v < verdict(len(reasons)) {
		return reasons[v]
	}
	return fmt.Errorf("%w: rejected for reason %d", ErrMalformed, v)
}

func verdictOf(err error) verdict {
	for v := accepted; v <= refusedCertificate; v++ {
		if errors.Is(err, v.reason()) {
			return v
		}
	}
	return refusedStranger
}

// hello is the first message of each side.
type hello struct {
	version byte
	id      Identity
	to      uint64  // the intended member, 0 for any; unused in an answer
	verdict verdict // of an answer
	terms   []byte  // follow the hello in an answer that rejects a node of another cluster
}

const (
	version    = 1
	magic      = "cot\xe9"
	helloStart = len(magic) + 2 // magic, version, length of the rest
)

func (h hello) append(b []byte) []byte {
	b = append(b, magic...)
	b = append(b, h.version, 0)
	start := len(b)
	b = wire.Uint(b, 1, h.id.Cluster)
	b = wire.Uint(b, 2, h.id.Member)
	b = wire.Uint(b, 3, h.to)
	b = wire.Uint(b, 4, uint64(h.verdict))
	b = wire.Uint(b, 5, h.id.Epoch)
	b = wire.Uint(b, 6, h.id.Incarnation)
	b = wire.Uint(b, 7, h.id.Since)
	b = wire.Uint(b, 8, uint64(len(h.terms)))
	if h.id.Runs != (run.Line{}) {
		b = wire.Message(b, 9, h.id.Runs.Append)
	}
	b[start-1] = byte(len(b) - start)
	return append(b, h.terms...)
}

// readHello reads a hello. If it has another version, only the version is decoded: this node cannot know
// the rest.
func readHello(r io.Reader) (hello, error) {
	var start [helloStart]byte
	if _, err := io.ReadFull(r, start[:]); err != nil {
		return hello{}, err
	}
	if string(start[:len(magic)]) != magic {
		return hello{}, fmt.Errorf("%w: not a node", ErrMalformed)
	}
	h := hello{version: start[len(magic)]}
	body := make([]byte, start[len(magic)+1])
	if _, err := io.ReadFull(r, body); err != nil {
		return hello{}, err
	}
	if h.version != version {
		return h, nil
	}
	var terms uint64
	fields := wire.NewReader(body)
	for fields.Next() {
		switch fields.Field() {
		case 1:
			h.id.Cluster = fields.Uint()
		case 2:
			h.id.Member = fields.Uint()
		case 3:
			h.to = fields.Uint()
		case 4:
			h.verdict = verdict(fields.Uint())
		case 5:
			h.id.Epoch = fields.Uint()
		case 6:
			h.id.Incarnation = fields.Uint()
		case 7:
			h.id.Since = fields.Uint()
		case 8:
			terms = fields.Uint()
		case 9:
			var err error
			if h.id.Runs, err = run.ReadLine(fields.Bytes()); err != nil {
				return hello{}, fmt.Errorf("%w: hello: runs", ErrMalformed)
			}
		}
	}
	if fields.Err() != nil || terms > MaxTerms {
		return hello{}, fmt.Errorf("%w: hello", ErrMalformed)
	}
	if terms == 0 || h.verdict != refusedCluster {
		return h, nil
	}
	h.terms = make([]byte, terms)
	_, err := io.ReadFull(r, h.terms)
	return h, err
}

// RefuseTLS appends a message to b which tells the other node that only one of the two has TLS: a hello
// in the clear, without an identity.
func RefuseTLS(b []byte) []byte { return hello{version: version, verdict: refusedTLS}.append(b) }

// InTheClear reports whether a connection that should begin with TLS begins without: with a lane and a
// hello, or with a hello in reply. Five bytes are enough.
func InTheClear(start []byte) bool {
	if len(start) > 0 && (start[0] == LaneRaft || start[0] == LaneCall) {
		start = start[1:]
	}
	return bytes.HasPrefix(start, []byte(magic))
}

// recordTLS is the first byte of a TLS connection.
const recordTLS = 0x16

// judge is the accepting side's check of a caller's hello, on a lane.
func (p Party) judge(caller hello, lane byte) error {
	self := p.Self()
	switch {
	case caller.version != version:
		return fmt.Errorf("%w: %w", ErrVersion, &wire.FormatError{What: "the hello of the caller", Version: uint64(caller.version), Reads: version})
	case lane == LaneCall && caller.id.Cluster == 0: // the caller wants to join, or asks where the cluster is
	case self.Cluster == 0:
		return ErrEarly
	case !self.meets(caller.id):
		return &MismatchError{Self: self, Other: caller.id}
	}
	p.met(caller.id)
	if caller.to != self.Member && (lane != LaneCall || caller.to != 0) {
		return fmt.Errorf("%w: the caller %016x means %016x, this node is %016x",
			ErrMemberMismatch, caller.id.Member, caller.to, self.Member)
	}
	if err := p.opinion(caller.id, lane); err != nil {
		return fmt.Errorf("%w: the caller %016x", err, caller.id.Member)
	}
	return nil
}

// meets reports whether two nodes are in the same cluster, as far as both know.
func (id Identity) meets(other Identity) bool {
	return id.Cluster == other.Cluster && (id.Epoch == other.Epoch || id.Epoch == 0 || other.Epoch == 0)
}

// accepts reports whether an earlier connection may still be used.
func (p Party) accepts(other Identity, lane byte) bool {
	self := p.Self()
	return (self.Cluster == 0 || self.meets(other)) && p.opinion(other, lane) == nil
}

// judgeAnswer is the caller's check of the answer. to is the intended member, 0 for any. The identity in
// the answer counts more than its verdict.
func (p Party) judgeAnswer(answer hello, to uint64, lane byte) error {
	self := p.Self()
	reason := answer.verdict.reason()
	switch {
	case answer.verdict == refusedTLS:
		return fmt.Errorf("%w: the node has TLS, this one has none", ErrTLS)
	case answer.version != version || answer.verdict == refusedVersion:
		return fmt.Errorf("%w: %w", ErrVersion, &wire.FormatError{What: "the hello of the node", Version: uint64(answer.version), Reads: version})
	case answer.verdict == refusedEarly:
		return ErrEarly
	case self.Cluster != 0 && !self.meets(answer.id) || answer.verdict == refusedCluster:
		return &MismatchError{self, answer.id, answer.terms}
	}
	p.met(answer.id)
	switch {
	case to != 0 && answer.id.Member != to || answer.verdict == refusedMember:
		return fmt.Errorf("%w: meant %016x, reached %016x", ErrMemberMismatch, to, answer.id.Member)
	case reason != nil:
		return fmt.Errorf("%w: reported by %016x about this node", reason, answer.id.Member)
	}
	if err := p.opinion(answer.id, lane); err != nil {
		return fmt.Errorf("%w: the node %016x", err, answer.id.Member)
	}
	return nil
}
