// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// A leader holds what is known about the leader that this node follows. The transport's mu guards it.
type leader struct {
	id     raft.ServerID
	addr   []byte    // as raft has it
	at     time.Time // when it was last heard
	inHand int       // number of its unanswered requests
}

// hear notes the arrival of a request from a leader. The caller calls answered when it has answered the
// request. A leader with an unanswered request waits for it, so it counts as heard for as long, even if
// this node's own disk delays the answer.
func (t *Transport) hear(command any) (answered func()) {
	var header *raft.RPCHeader
	var term uint64
	switch m := command.(type) {
	case *raft.AppendEntriesRequest:
		header, term = &m.RPCHeader, m.Term
	case *raft.InstallSnapshotRequest:
		header, term = &m.RPCHeader, m.Term
	}
	if header == nil || t.cfg.Term != nil && term < t.cfg.Term() {
		return func() {}
	}
	arrived := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &t.leader
	if string(l.id) != string(header.ID) {
		l.id = raft.ServerID(header.ID)
	}
	l.addr, l.at = header.Addr, arrived
	l.inHand++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		l.inHand--
		if now := time.Now(); now.Sub(arrived) < t.cfg.Timeout {
			l.at = now
		}
	}
}

// Heard returns the leader that this node heard last, and when.
func (t *Transport) Heard() (raft.ServerID, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leader.id, t.heard()
}

// heard returns when the leader was last heard. The caller holds t.mu.
func (t *Transport) heard() time.Time {
	at := t.leader.at
	if t.leader.inHand == 0 {
		return at
	}
	if given, now := at.Add(t.cfg.Timeout), time.Now(); given.Before(now) {
		return given // the leader no longer waits
	}
	return time.Now()
}

// unbind lets raft answer a candidate although raft has a leader, if that leader has been silent for half
// an election timeout. Raft rejects all candidates until it notices the silence itself, up to two
// election timeouts after the candidate. Raft still checks the candidate's term and log.
func (t *Transport) unbind(candidate any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.leader.addr) == 0 || time.Since(t.heard()) < t.cfg.Timeout/2 {
		return
	}
	switch m := candidate.(type) {
	case *raft.RequestPreVoteRequest:
		m.Addr = t.leader.addr // raft rejects all but its leader, and uses the ID for everything else
	case *raft.RequestVoteRequest:
		m.LeadershipTransfer = true // makes raft vote although it has a leader
	}
}

// errYields: this node would vote for another candidate, or hears a leader again.
var errYields = errors.New("raftnet: it is not this node's turn to stand for election")

// grant records an answer to a candidate. A node that would vote for a candidate does not stand itself
// for half an election timeout: two simultaneous candidates split the votes, and both wait for another
// timeout.
func (t *Transport) grant(resp raft.RPCResponse) {
	if answer, ok := resp.Response.(*raft.RequestPreVoteResponse); ok && resp.Error == nil && answer.Granted {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.yields = time.Now().Add(t.cfg.Timeout / 2)
	}
}

// awaitTurn waits until this node may ask for an election. It returns errYields if another candidate is
// first, or if the leader was heard again.
func (t *Transport) awaitTurn() error {
	if t.cfg.Turn != nil {
		turn := time.NewTimer(time.Until(t.cfg.Turn()))
		defer turn.Stop()
		select {
		case <-turn.C:
		case <-t.ctx.Done():
			return context.Cause(t.ctx)
		}
		if t.cfg.Turn().After(time.Now()) {
			return errYields
		}
	}
	if t.Yields().After(time.Now()) {
		return errYields
	}
	return nil
}

// Yields returns until when this node leaves elections to another candidate.
func (t *Transport) Yields() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.yields
}
