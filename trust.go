// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/state"
)

// errUntrusted: this node does not know what it may have promised in another incarnation.
var errUntrusted = errors.New("coterie: this node may have forgotten what it promised")

// party is this node's side of its handshakes.
func (n *Node) party() rpc.Party {
	p := rpc.Party{Self: n.self, Met: n.met, Terms: func() []byte { return n.terms().Append(nil, rpc.MaxTerms) }, Judge: n.judge}
	if n.cfg.VerifyMember != nil {
		p.Verify = n.verifyMember
	}
	return p
}

// met notes that the cluster exists: a founder that is on record nowhere must not found it again. A node
// in memory does not note it, since it remembers the meeting no longer than the other node does.
func (n *Node) met(other rpc.Identity) {
	if other.Since > 0 && n.identity.Load().Since == 0 && !n.cfg.InMemory {
		n.forgotten.Store(true)
	}
}

func (n *Node) self() rpc.Identity {
	id := n.identity.Load()
	return rpc.Identity{
		Cluster: id.Cluster, Epoch: n.views.Load().Epoch, Member: id.Member, Incarnation: id.Incarnation, Since: id.Since, Runs: id.Runs,
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
	if n.losses.Has(other.Member, other.Incarnation) {
		return rpc.ErrForgotten
	}
	switch n.views.Load().Judge(other.Member, other.Incarnation, other.Since, other.Runs) {
	case state.Forgotten:
		return rpc.ErrForgotten
	case state.Removed:
		return rpc.ErrRemoved
	case state.Stranger:
		return rpc.ErrStranger
	}
	return nil
}

// admitRaft waits until one of raft's requests may be answered, or ctx ends.
func (n *Node) admitRaft(ctx context.Context, from rpc.Identity, r raftnet.Request) error {
	for {
		changed := n.confirmed.Wait()
		if err := n.judge(from, rpc.LaneRaft); err != nil {
			return err
		}
		c := n.raft()
		id := n.identity.Load()
		t := membership.Trust{Since: id.Since, Floor: id.Floor, Last: c.raft.LastIndex(), Gathered: id.Gathered, Forgotten: n.forgotten.Load()}
		if t.Since == 0 {
			t.Founding, t.Elected = c.founding(), c.votedFor(serverID(MemberID(from.Member)), r.Term)
		}
		if t.MayAnswer(membership.Request{Since: from.Since, Term: r.Term, Vote: r.Vote, Elect: r.Elect}) && (n.introduced.Load() || !r.Vote && !r.Elect) {
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
