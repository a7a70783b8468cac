// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 raft still reads the fields that it calls deprecated

package raftnet

import (
	"errors"
	"maps"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/signal"
)

// errLost: a follower's log ends before an entry that it has acknowledged in this term.
var errLost = errors.New("raftnet: the follower has lost entries that it had acknowledged")

// A follower holds what the transport knows about a peer. Everything except target, contacted and
// incarnation belongs to the transport's term, and is reset when the term changes. The transport's mu
// guards all of it.
type follower struct {
	target      raft.ServerAddress // where raft last sent an append
	contacted   time.Time          // when the peer last answered a request
	incarnation uint64             // of the data of the node that last answered an append

	// index and term belong to the highest entry that the peer has acknowledged. Up to that entry its log
	// and ours are the same for as long as the term lasts.
	index, term uint64
	asked       uint64        // the newest mark when index was set
	notified    uint64        // the highest commit index that was sent to it, covered by entries that it had, and not rejected
	nudging     bool          // a goroutine is sending nudges
	beats       chan struct{} // has a value when a beat is due; nil until the first one
	mark        uint64        // of the newest append that it answered with success
	replies     uint64        // number of answers to raft's replication
}

// follower returns the record of a peer. The caller holds t.mu.
func (t *Transport) follower(id raft.ServerID) *follower {
	f := t.followers[id]
	if f == nil {
		f = &follower{}
		t.followers[id] = f
	}
	return f
}

// enter begins a term if it is newer. The caller holds t.mu.
func (t *Transport) enter(term uint64) {
	if term <= t.term {
		return
	}
	t.term, t.commit, t.entered = term, 0, time.Now()
	for _, f := range t.followers {
		// A goroutine that is sending nudges notices the new term and ends.
		*f = follower{target: f.target, contacted: f.contacted, incarnation: f.incarnation, nudging: f.nudging, beats: f.beats}
	}
}

// sending registers an append that is about to be sent, and returns its mark.
func (t *Transport) sending(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest) (mark uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enter(req.Term)
	f := t.follower(id)
	f.target = target
	if req.Term == t.term {
		// The follower may have to make entries durable that it has not acknowledged before it commits
		// them.
		f.notified = max(f.notified, min(req.LeaderCommitIndex, f.index))
	}
	t.sent++
	return t.sent
}

// answered records the result of an append to a peer. If the answer shows that the follower has lost
// entries that it had acknowledged, answered returns the highest index that it had acknowledged.
func (t *Transport) answered(id raft.ServerID, peer rpc.Identity, req *raft.AppendEntriesRequest,
	resp *raft.AppendEntriesResponse, mark uint64, err error,
) (lost uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.follower(id)
	if err == nil {
		f.contacted = time.Now()
		t.enter(resp.Term)
		if f.incarnation != peer.Incarnation { // the follower has other data now
			*f = follower{
				target: f.target, contacted: f.contacted, incarnation: peer.Incarnation, nudging: f.nudging, replies: f.replies,
				beats: f.beats,
			}
		}
	}
	if req.Term != t.term {
		return 0
	}
	if err != nil || !resp.Success {
		f.notified = 0
		// The answer to an append that was sent before the acknowledgement arrived may be older than it.
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

// Replies returns how many answers raft's replication has had from a member in this term.
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

// Committed notes that followers may commit up to index. This node leads in term. Each follower that has
// acknowledged enough of the log is notified at once, the others as soon as they have. Committed does not
// block.
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

// nudge notifies the follower of the commit index, if necessary. The caller holds t.mu.
func (t *Transport) nudge(id raft.ServerID, f *follower) {
	if f.nudging || !t.behind(f) || t.ctx.Err() != nil {
		return
	}
	f.nudging = true
	t.running.Go(func() {
		for t.sendNudge(id) {
		}
	})
}

// behind reports whether the follower needs a nudge. The caller holds t.mu.
func (t *Transport) behind(f *follower) bool { return min(t.commit, f.index) > f.notified }

// due returns the nudge that the follower needs, or nil. The caller holds t.mu.
func (t *Transport) due(f *follower) *raft.AppendEntriesRequest {
	if !t.behind(f) {
		return nil
	}
	// The previous entry must be one that the follower has acknowledged in this term. With none, raft at
	// the other end would compare nothing, and commit all entries that it has.
	return &raft.AppendEntriesRequest{
		RPCHeader:         t.header,
		Term:              t.term,
		Leader:            t.header.Addr,
		PrevLogEntry:      f.index,
		PrevLogTerm:       f.term,
		LeaderCommitIndex: min(t.commit, f.index),
	}
}

// sendNudge sends a nudge if the follower still needs one: an append may have been sent since. It reports whether to
// look again. If the nudge fails, the next success of the follower sends one.
func (t *Transport) sendNudge(id raft.ServerID) (again bool) {
	t.mu.Lock()
	f := t.followers[id]
	target, req := f.target, t.due(f)
	if req == nil || t.ctx.Err() != nil {
		f.nudging = false
		t.mu.Unlock()
		return false
	}
	t.mu.Unlock()
	var resp raft.AppendEntriesResponse
	err := t.append(id, target, req, 0, &resp)
	if err == nil && resp.Success {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followers[id].nudging = false
	return false
}

// Mark returns the current mark for Confirmed: appends that are sent later have a later mark.
func (t *Transport) Mark() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// Confirmed returns how many voters other than this node have successfully answered an append of this
// term that was sent after mark. So many voters knew no later term at some moment since. Confirmed
// returns zero if a later term is known.
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

// Beat sends a heartbeat to each of the voters other than this node, which leads in term, so that Confirmed soon
// counts them. It returns the number of voters that it can send to. It does not block. Raft could send the heartbeats
// as well, but would pass the request through its main loop to goroutines that may be waiting after a failure. A
// follower has one unanswered beat at most. All calls of Beat until then share the next one.
func (t *Transport) Beat(term uint64, voter func(raft.ServerID) bool) (voters int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if term != t.term || t.ctx.Err() != nil {
		return 0
	}
	t.led = term
	for id, f := range t.followers {
		if f.target == "" || !voter(id) {
			continue
		}
		voters++
		if f.beats == nil {
			beats := make(chan struct{}, 1)
			f.beats = beats
			// The goroutine stays, because a new one would have to grow its stack for each beat.
			t.running.Go(func() { t.sendBeats(id, beats) })
		}
		signal.Poke(f.beats)
	}
	return voters
}

// sendBeats sends the beats that are due to a follower until Close, or until Retain removes the follower.
func (t *Transport) sendBeats(id raft.ServerID, beats <-chan struct{}) {
	req := &raft.AppendEntriesRequest{RPCHeader: t.header, Leader: t.header.Addr}
	for {
		select {
		case _, kept := <-beats:
			if !kept {
				return
			}
		case <-t.ctx.Done():
			return
		}
		t.mu.Lock()
		f := t.followers[id]
		if f == nil || t.led != t.term {
			t.mu.Unlock()
			continue
		}
		target := f.target
		req.Term = t.led
		t.mu.Unlock()
		// Errors do not matter: raft's own heartbeats go on, and confirm as well.
		_ = t.append(id, target, req, 0, &raft.AppendEntriesResponse{})
	}
}

// Watch returns a channel that is closed when the result of Confirmed may have increased. Call Watch
// before Confirmed.
func (t *Transport) Watch() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.confirmed == nil {
		t.confirmed = make(chan struct{})
	}
	return t.confirmed
}

// Reachable reports whether a member has answered a request of this node within the given time.
func (t *Transport) Reachable(id raft.ServerID, within time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.followers[id]
	return f != nil && f.heard(within)
}

func (f *follower) heard(within time.Duration) bool {
	return !f.contacted.IsZero() && time.Since(f.contacted) <= within
}

// Silent reports whether a member has not answered this node for the duration d. The current term must be
// older than d, so that a leader has sent requests all the time.
func (t *Transport) Silent(id raft.ServerID, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.followers[id]
	return time.Since(t.entered) > d && (f == nil || !f.heard(d))
}

// Acknowledged returns the highest index that a member has acknowledged in this term, and 0 if the member
// has not answered within the given time.
func (t *Transport) Acknowledged(id raft.ServerID, within time.Duration) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.followers[id]; f != nil && f.heard(within) {
		return f.index
	}
	return 0
}

// Retain removes the records of peers that are no longer members.
func (t *Transport) Retain(member func(raft.ServerID) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.followers, func(id raft.ServerID, f *follower) bool {
		if member(id) || f.nudging {
			return false
		}
		if f.beats != nil {
			close(f.beats)
		}
		return true
	})
}
