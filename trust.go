// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/state"
)

// errUntrusted: this node does not know what it may have promised in another incarnation.
var errUntrusted = errors.New("coterie: this node may have forgotten what it promised")

// party is this node's side of its handshakes.
func (n *Node) party() rpc.Party {
	p := rpc.Party{Self: n.self, Met: n.met, Terms: func() []byte { return n.terms().append(nil) }, Judge: n.judge}
	if n.cfg.VerifyMember != nil {
		p.Verify = n.verifyMember
	}
	return p
}

// met notes that the cluster is founded: a founder that is on record nowhere is not to found it again.
func (n *Node) met(other rpc.Identity) {
	if other.Since > 0 && n.identity.Load().Since == 0 && !n.cfg.InMemory {
		n.forgotten.Store(true)
	}
}

func (n *Node) self() rpc.Identity {
	id := n.identity.Load()
	return rpc.Identity{
		Cluster: id.Cluster, Epoch: n.view().Epoch, Member: id.Member, Incarnation: id.Incarnation, Since: id.Since, Runs: id.Runs,
	}
}

// judge rejects raft's messages from and to nodes that are no members, and all of them once this node
// has heard that it lost data. Calls check for themselves: a node that joins is no member yet, and one
// that lost its data must be told.
func (n *Node) judge(other rpc.Identity, lane byte) error {
	if lane == rpc.LaneCall {
		return nil
	}
	if n.disputed.Load() {
		return rpc.ErrEarly
	}
	return n.opinion(other)
}

// opinion is what this node knows of another: nil of a member.
func (n *Node) opinion(other rpc.Identity) error {
	if n.losses.has(MemberID(other.Member), other.Incarnation) {
		return rpc.ErrForgotten
	}
	switch n.view().Judge(other.Member, other.Incarnation, other.Since, other.Runs) {
	case state.Forgotten:
		return rpc.ErrForgotten
	case state.Removed:
		return rpc.ErrRemoved
	case state.Stranger:
		return rpc.ErrStranger
	}
	return nil
}

// A node with an empty directory may have had another one, in which it promised things: it may have
// voted in a term that it does not know of, or acknowledged entries that it does not have. So until
// the cluster has it on record, by a majority without it, it answers none of raft's requests, unless
// it has gathered for the founding. Then it votes for founders that are on record nowhere either, and
// takes entries of a leader that it has elected so. With these it is one of those who were there. That
// it hears of later terms, or votes for a founder that is not elected, does not make it one. A founder
// that has met a member on record founds nothing, for then the cluster is founded; a node that keeps
// nothing does not remember that for longer than the member does. Once it is on record, at an index
// and in a term, it
//
//   - follows leaders of that term or later: earlier ones it may have helped to depose;
//   - votes only in later terms, and only when its log has that index, which covers whatever it may
//     have acknowledged.
//
// This is the recovery of Viewstamped Replication Revisited (Liskov and Cowling, 2012, section 4.3),
// with the log in the place of the nonce.

// admitRaft waits until one of raft's requests may be answered, or ctx ends.
func (n *Node) admitRaft(ctx context.Context, from rpc.Identity, r raftnet.Request) error {
	for {
		changed := n.confirmed.Wait()
		if err := n.judge(from, rpc.LaneRaft); err != nil {
			return err
		}
		c := n.raft()
		t := trust{Identity: *n.identity.Load(), forgotten: n.forgotten.Load(), last: c.raft.LastIndex()}
		if t.Since == 0 {
			t.founding, t.elected = c.founding(), c.votedFor(serverID(MemberID(from.Member)), r.Term)
		}
		if t.mayAnswer(from, r) && (n.introduced.Load() || !r.Vote && !r.Elect) {
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

// trust is what a node knows of itself.
type trust struct {
	raftlog.Identity
	founding  bool   // it has nothing beyond the founding entries
	elected   bool   // it voted for who asks, in the term of the request
	forgotten bool   // it was told that the cluster knows it by other data, or has met who is on record
	last      uint64 // of its log
}

func (t trust) mayAnswer(from rpc.Identity, r raftnet.Request) bool {
	switch {
	case t.Since == 0 && t.founding:
		return t.mayFound(from, r)
	case t.Since == 0 || t.Floor == 0:
		return true // it has not begun anew since it took part
	case r.Vote:
		return r.Term > t.Floor && t.last >= t.Since
	case r.Elect:
		return t.last >= t.Since
	}
	return r.Term >= t.Floor
}

// mayFound is mayAnswer of a node that may have forgotten what it promised.
func (t trust) mayFound(from rpc.Identity, r raftnet.Request) bool {
	switch {
	case !t.Gathered || t.forgotten || r.Elect:
		return false
	case r.Vote:
		return from.Since == 0
	}
	return t.elected
}

// confirm notes that the cluster has this node on record.
func (n *Node) confirm(a admission) error {
	id := *n.identity.Load()
	if id.Since > 0 && !n.disputed.Load() {
		return nil
	}
	if id.Cluster != 0 && id.Cluster != a.cluster {
		return ErrClusterMismatch
	}
	if err := raftnet.CheckJoin(a.index, a.term); err != nil {
		return err
	}
	founding := n.raft().founding()
	err := n.identify(func(id *raftlog.Identity) {
		id.Disputed = false
		if id.Since > 0 {
			return
		}
		id.Cluster, id.Since = a.cluster, a.index
		if founding {
			id.Floor = a.term
		}
	})
	if err == nil {
		n.forgotten.Store(false)
		n.disputed.Store(false)
	}
	return err
}

// identify changes what this node's directory says of it, durably.
func (n *Node) identify(change func(*raftlog.Identity)) error {
	n.identifying.Lock()
	defer n.identifying.Unlock()
	id := *n.identity.Load()
	change(&id)
	if err := n.log.Identify(id); err != nil {
		return err
	}
	n.identity.Store(&id)
	n.confirmed.Broadcast()
	return nil
}
