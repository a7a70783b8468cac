// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 raft still reads the fields that it calls deprecated

package raftnet

import (
	"errors"
	"maps"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/rpc"
)

// errLost: a follower's log ends before an entry that it has acknowledged in this term.
var errLost = errors.New("raftnet: the follower has lost what it had acknowledged")

// A follower is what is known of a peer. All but target, contacted and incarnation is of the
// transport's term, and forgotten when that changes.
type follower struct {
	target      raft.ServerAddress // where raft last sent an append
	contacted   time.Time          // when it last answered anything
	incarnation uint64             // of the data of the node that last answered an append

	// index and term are the highest entry that the peer has acknowledged: its log and ours are the
	// same up to there for as long as this term lasts.
	index, term uint64
	asked       uint64 // the newest mark when index was noted
	told        uint64 // the highest commit index that it was sent, had the entries of, and did not fail to take
	nudging     bool   // a goroutine sends it nudges
	mark        uint64 // of the newest append that it answered with success
	replies     uint64 // how often raft's replication had an answer from it
}

// follower returns the books on a peer. It is called with t.mu held.
func (t *Transport) follower(id raft.ServerID) *follower {
	f := t.followers[id]
	if f == nil {
		f = &follower{}
		t.followers[id] = f
	}
	return f
}

// enter begins a term, if it is a new one. It is called with t.mu held.
func (t *Transport) enter(term uint64) {
	if term <= t.term {
		return
	}
	t.term, t.commit, t.entered = term, 0, time.Now()
	for _, f := range t.followers {
		// A goroutine that sends nudges sees the new term and ends by itself.
		*f = follower{target: f.target, contacted: f.contacted, incarnation: f.incarnation, nudging: f.nudging}
	}
}

// sending notes that an append is about to go out and returns its mark.
func (t *Transport) sending(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest) (mark uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enter(req.Term)
	f := t.follower(id)
	f.target = target
	if req.Term == t.term {
		// Of what it has not acknowledged, it may have to make something durable before it commits it.
		f.told = max(f.told, min(req.LeaderCommitIndex, f.index))
	}
	t.sent++
	return t.sent
}

// answered notes how an append to peer ended. If the answer shows that the follower has lost what it
// had acknowledged, answered returns up to where that was.
func (t *Transport) answered(id raft.ServerID, peer rpc.Identity, req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse, mark uint64, err error,
) (lost uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.follower(id)
	if err == nil {
		f.contacted = time.Now()
		t.enter(resp.Term)
		if f.incarnation != peer.Incarnation { // other data takes the place of the follower's
			*f = follower{
				target: f.target, contacted: f.contacted, incarnation: peer.Incarnation, nudging: f.nudging, replies: f.replies,
			}
		}
	}
	if req.Term != t.term {
		return 0
	}
	if err != nil || !resp.Success {
		f.told = 0
		// An answer to an append that was sent before the acknowledgement came may be older than that.
		if err == nil && resp.Term == t.term && resp.LastLog < f.index && mark > f.asked {
			return f.index
		}
		return 0
	}
	index, term := req.PrevLogEntry, req.PrevLogTerm
	if n := len(req.Entries); n > 0 {
		index, term = req.Entries[n-1].Index, req.Entries[n-1].Term
	}
	if index > f.index {
		f.index, f.term, f.asked = index, term, t.sent
	}
	if mark > f.mark {
		f.mark = mark
		if t.confirmed != nil {
			close(t.confirmed)
			t.confirmed = nil
		}
	}
	t.nudge(id, f)
	return 0
}

func (t *Transport) replicated(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.follower(id).replies++
}

// Replies returns how often raft's replication to a member has had an answer in this term.
func (t *Transport) Replies(id raft.ServerID) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.follower(id).replies
}

func (t *Transport) contact(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.follower(id).contacted = time.Now()
}

// Committed says that this node, leading in term, may tell its followers to commit up to index.
// Each follower that has acknowledged enough of the log hears of it at once, or as soon as it has.
// It does not block.
func (t *Transport) Committed(term, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enter(term)
	if term != t.term || index <= t.commit {
		return
	}
	t.commit = index
	for id, f := range t.followers {
		t.nudge(id, f)
	}
}

// nudge sees to it that the follower hears of the commit index. It is called with t.mu held.
func (t *Transport) nudge(id raft.ServerID, f *follower) {
	if f.nudging || t.ctx.Err() != nil {
		return
	}
	req := t.due(f)
	if req == nil {
		return
	}
	f.nudging = true
	t.running.Go(func() {
		for req != nil {
			req = t.sendNudge(id, req)
		}
	})
}

// due returns the nudge that the follower needs, or nil. It is called with t.mu held.
func (t *Transport) due(f *follower) *raft.AppendEntriesRequest {
	commit := min(t.commit, f.index)
	if commit <= f.told {
		return nil
	}
	// Without an entry that the follower has acknowledged in this term as the previous one, raft at
	// the other end would compare nothing, and commit whatever it has.
	return &raft.AppendEntriesRequest{
		RPCHeader:         t.header,
		Term:              t.term,
		Leader:            t.header.Addr,
		PrevLogEntry:      f.index,
		PrevLogTerm:       f.term,
		LeaderCommitIndex: commit,
	}
}

// sendNudge sends a nudge and returns the next, or nil when none is due or this one failed: then
// the follower's next success tries again.
func (t *Transport) sendNudge(id raft.ServerID, req *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	t.mu.Lock()
	target := t.followers[id].target
	t.mu.Unlock()
	var resp raft.AppendEntriesResponse
	err := t.append(id, target, req, 0, &resp)
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.followers[id]
	if err == nil && resp.Success && t.ctx.Err() == nil {
		if next := t.due(f); next != nil {
			return next
		}
	}
	f.nudging = false
	return nil
}

// Mark returns the present as Confirmed counts it: appends that are sent later have a later mark.
func (t *Transport) Mark() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// Confirmed returns how many of the voters, this node aside, have answered with success an append
// of this term that was sent after mark: so many knew no later term at some moment since. Zero if a
// later term is known.
func (t *Transport) Confirmed(term, mark uint64, voter func(raft.ServerID) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if term != t.term {
		return 0
	}
	n := 0
	for id, f := range t.followers {
		if f.mark > mark && voter(id) {
			n++
		}
	}
	return n
}

// Watch returns a channel that is closed when Confirmed may next return more. Take it before
// asking.
func (t *Transport) Watch() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.confirmed == nil {
		t.confirmed = make(chan struct{})
	}
	return t.confirmed
}

// Reachable reports whether a member has answered a request of this node within that time.
func (t *Transport) Reachable(id raft.ServerID, within time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.followers[id]
	return f != nil && f.heard(within)
}

func (f *follower) heard(within time.Duration) bool {
	return !f.contacted.IsZero() && time.Since(f.contacted) <= within
}

// Silent reports whether a member has answered no request of this node for so long, all of it in one
// term: a leader has asked it all the while.
func (t *Transport) Silent(id raft.ServerID, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.followers[id]
	return time.Since(t.entered) > d && (f == nil || !f.heard(d))
}

// Acknowledged returns the highest index of the log that a member has acknowledged in this term, 0 if
// it has not answered within that time.
func (t *Transport) Acknowledged(id raft.ServerID, within time.Duration) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.followers[id]; f != nil && f.heard(within) {
		return f.index
	}
	return 0
}

// Retain forgets who is no member any more.
func (t *Transport) Retain(member func(raft.ServerID) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.followers, func(id raft.ServerID, f *follower) bool { return !member(id) && !f.nudging })
}
