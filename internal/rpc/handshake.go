// SPDX-License-Identifier: Apache-2.0

// Package rpc carries the calls between nodes: one port per node, connections in lanes, a handshake
// that tells clusters and members apart, and length-prefixed frames.
//
// A connection begins with a byte for its lane and the caller's hello, which the accepting side
// answers with its own, or with why it refuses. Then frames follow in both directions. On LaneCall
// each request is followed by its reply; what goes on on LaneRaft is the business of package
// raftnet.
package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/coterie-kv/coterie/internal/wire"
)

// The lanes, which are the first byte of a connection.
const (
	LaneRaft byte = 'R'
	LaneCall byte = 'C'
)

// What a handshake can fail with, on both sides.
var (
	// ErrClusterMismatch: the other node belongs to another cluster.
	ErrClusterMismatch = errors.New("rpc: another cluster")
	// ErrMemberMismatch: the node that was reached is another member than the one meant.
	ErrMemberMismatch = errors.New("rpc: another member")
	// ErrVersion: the other node speaks another version of the protocol.
	ErrVersion = errors.New("rpc: another protocol version")
	// ErrMalformed: what came is not this protocol.
	ErrMalformed = errors.New("rpc: malformed message")
	// ErrTLS: one of the two wants TLS and the other has none, or they do not trust each other. A
	// Network that encrypts has its connections fail with it.
	ErrTLS = errors.New("rpc: no agreement on TLS")
)

// An Identity is who a node is: its cluster and its member ID.
type Identity struct{ Cluster, Member uint64 }

// A verdict is the answer to a hello.
type verdict uint64

const (
	accepted verdict = iota
	refusedCluster
	refusedMember
	refusedVersion
	refusedTLS
)

// hello is what each side says first.
type hello struct {
	version byte
	id      Identity
	to      uint64  // the member that the caller means; unused in an answer
	verdict verdict // of an answer
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
	b[start-1] = byte(len(b) - start)
	return b
}

// readHello reads a hello. One of another version is read as far as its version, which is all that
// this node can know of it.
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
		}
	}
	if fields.Err() != nil {
		return hello{}, fmt.Errorf("%w: hello", ErrMalformed)
	}
	return h, nil
}

// RefuseTLS appends to b what tells the other node, which has TLS or has none, that this one
// differs: a hello in the clear, without an identity.
func RefuseTLS(b []byte) []byte { return hello{version: version, verdict: refusedTLS}.append(b) }

// InTheClear reports whether a connection that should begin with TLS begins as that of a node
// without: with a lane and a hello, or with the hello that answers them. Five bytes are enough.
func InTheClear(start []byte) bool {
	if len(start) > 0 && (start[0] == LaneRaft || start[0] == LaneCall) {
		start = start[1:]
	}
	return bytes.HasPrefix(start, []byte(magic))
}

// recordTLS is the first byte of a connection whose caller begins with TLS.
const recordTLS = 0x16

// judge is the accepting side's view of a caller's hello.
func (id Identity) judge(caller hello) (verdict, error) {
	switch {
	case caller.version != version:
		return refusedVersion, fmt.Errorf("%w: the caller speaks %d, this node %d", ErrVersion, caller.version, version)
	case caller.id.Cluster != id.Cluster:
		return refusedCluster, fmt.Errorf("%w: the caller %016x is of cluster %016x, this node of %016x",
			ErrClusterMismatch, caller.id.Member, caller.id.Cluster, id.Cluster)
	case caller.to != id.Member:
		return refusedMember, fmt.Errorf("%w: the caller %016x means %016x, this node is %016x",
			ErrMemberMismatch, caller.id.Member, caller.to, id.Member)
	}
	return accepted, nil
}

// judgeAnswer is the caller's view of the answer. It trusts the identity that was told more than
// the verdict.
func (id Identity) judgeAnswer(answer hello, to uint64) error {
	switch {
	case answer.verdict == refusedTLS:
		return fmt.Errorf("%w: the node has TLS, this one has none", ErrTLS)
	case answer.version != version || answer.verdict == refusedVersion:
		return fmt.Errorf("%w: the node speaks %d, this one %d", ErrVersion, answer.version, version)
	case answer.id.Cluster != id.Cluster || answer.verdict == refusedCluster:
		return fmt.Errorf("%w: the node is of cluster %016x, this one of %016x", ErrClusterMismatch, answer.id.Cluster, id.Cluster)
	case answer.id.Member != to || answer.verdict == refusedMember:
		return fmt.Errorf("%w: meant %016x, reached %016x", ErrMemberMismatch, to, answer.id.Member)
	case answer.verdict != accepted:
		return fmt.Errorf("%w: refused for reason %d", ErrMalformed, answer.verdict)
	}
	return nil
}
