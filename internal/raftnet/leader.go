// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// A leader is what is known of the leader that this node follows.
type leader struct {
	id     raft.ServerID
	addr   []byte    // as raft has it
	at     time.Time // when it was last heard
	inHand int       // its requests that are not answered yet
}

// hear notes that a request arrives, if it is of a leader, and returns what notes that it is answered. A
// leader with a request in hand waits for the answer: it is heard for as long, though this node's own
// disk holds up the answer.
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
	l.id, l.addr, l.at = raft.ServerID(header.ID), header.Addr, arrived
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

// heard returns when the leader was heard last. It is called with t.mu held.
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

// unbind lets raft answer a candidate as if it followed nobody, if its leader has been silent for half an
// election timeout. Raft refuses all candidates until it notices itself that its leader is silent, which
// it does up to two election timeouts after the candidate. What else a candidate needs for a vote is
// raft's affair: its term and its log.
func (t *Transport) unbind(candidate any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.leader.addr) == 0 || time.Since(t.heard()) < t.cfg.Timeout/2 {
		return
	}
	switch m := candidate.(type) {
	case *raft.RequestPreVoteRequest:
		m.Addr = t.leader.addr // raft refuses all but its leader, and goes by the ID for the rest
	case *raft.RequestVoteRequest:
		m.LeadershipTransfer = true // which is what makes raft vote though it has a leader
	}
}

// errYields: this node would vote for another candidate, or has a leader again.
var errYields = errors.New("raftnet: it is not this node's turn to stand for election")

// grant notes an answer to a candidate. A node that would vote for one leaves the election to it for half
// an election timeout: two candidates at once split the votes, and both wait for another timeout.
func (t *Transport) grant(resp raft.RPCResponse) {
	if answer, ok := resp.Response.(*raft.RequestPreVoteResponse); ok && resp.Error == nil && answer.Granted {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.yields = time.Now().Add(t.cfg.Timeout / 2)
	}
}

// awaitTurn waits until it is this node's turn to ask for an election. It returns errYields if the turn has
// gone to another candidate by then, or if the leader was heard.
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
