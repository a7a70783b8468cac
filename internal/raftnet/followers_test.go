// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 raft still reads the fields that it calls deprecated

package raftnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// A script is a leader's transport and a peer. The test plays the peer's raft.
type script struct {
	*testing.T
	*Transport
	peer *Transport
}

func scripted(t *testing.T, f func(s script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		client := rpc.NewClient(n, rpc.Always(rpc.Identity{Cluster: 1, Member: 1}))
		defer client.Close()
		s := script{t, New(Config{Self: serverID(1), Addr: "n1:1", Client: client}), New(Config{Self: serverID(2), Addr: "n2:1"})}
		defer s.Close()
		defer s.peer.Close()
		l, err := n.Listen("n2:1")
		require.NoError(t, err)
		server := rpc.Serve(l, rpc.ServerConfig{Party: rpc.Always(rpc.Identity{Cluster: 1, Member: 2}), Raft: s.peer.Serve})
		defer server.Close()
		f(s)
	})
}

// send sends an append, which the peer answers. It leaves a nudge that follows at once to nudged.
func (s script) send(req raft.AppendEntriesRequest, answer raft.AppendEntriesResponse) (seen []*raft.AppendEntriesRequest) {
	done := make(chan struct{})
	req.RPCHeader = s.header
	go func() {
		defer close(done)
		var resp raft.AppendEntriesResponse
		s.Transport.AppendEntries(serverID(2), "n2:1", &req, &resp)
	}()
	for rest := len(req.Entries); ; {
		select {
		case in := <-s.peer.Consumer():
			part := in.Command.(*raft.AppendEntriesRequest)
			seen = append(seen, part)
			in.Respond(&answer, nil)
			if rest -= len(part.Entries); rest > 0 {
				continue
			}
			<-done
		case <-done:
		}
		return seen
	}
}

// nudged returns the current unanswered nudge, or nil.
func (s script) nudged() (*raft.AppendEntriesRequest, raft.RPC) {
	synctest.Wait()
	select {
	case in := <-s.peer.Consumer():
		return in.Command.(*raft.AppendEntriesRequest), in
	default:
		return nil, raft.RPC{}
	}
}

func (s script) requireNudge(term, prev, prevTerm, commit uint64, answer bool) {
	s.Helper()
	req, in := s.nudged()
	require.NotNil(s, req)
	require.Equal(s, &raft.AppendEntriesRequest{
		RPCHeader: s.header, Leader: []byte("n1:1"), Term: term, PrevLogEntry: prev, PrevLogTerm: prevTerm, LeaderCommitIndex: commit,
	}, req)
	in.Respond(&raft.AppendEntriesResponse{Term: term, Success: answer}, nil)
	synctest.Wait()
}

func (s script) requireNone() {
	s.Helper()
	req, _ := s.nudged()
	require.Nil(s, req)
}

func entries(term, from, to uint64) (e []*raft.Log) {
	for i := from; i <= to; i++ {
		e = append(e, &raft.Log{Index: i, Term: term, Data: []byte("data")})
	}
	return e
}

func success(term uint64) raft.AppendEntriesResponse {
	return raft.AppendEntriesResponse{Term: term, Success: true}
}

// A follower has lost data if its log ends before an entry that it acknowledged in this term.
func TestLossOfAcknowledgedEntriesIsReported(t *testing.T) {
	scripted(t, func(s script) {
		var lost []uint64
		s.cfg.Lost = func(peer rpc.Identity, acknowledged, last uint64) {
			lost = append(lost, peer.Member, acknowledged, last)
		}
		fails := func(term, last uint64) raft.AppendEntriesResponse {
			return raft.AppendEntriesResponse{Term: term, LastLog: last}
		}
		upTo := func(term, to uint64) raft.AppendEntriesRequest {
			return raft.AppendEntriesRequest{Term: term, Entries: entries(term, 1, to)}
		}
		after := func(term, prev uint64) raft.AppendEntriesRequest {
			return raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, PrevLogTerm: term}
		}
		s.send(upTo(5, 4), success(5))
		s.send(after(5, 9), fails(5, 4))
		s.send(after(5, 9), fails(5, 8))
		s.send(after(5, 9), fails(6, 3)) // the answer has a later term, which proves nothing
		require.Empty(t, lost)
		s.send(upTo(6, 4), success(6))
		s.send(after(6, 4), fails(6, 3))
		require.Equal(t, []uint64{2, 4, 3}, lost)
		s.send(after(7, 4), fails(7, 3)) // nothing was acknowledged in this term
		require.Len(t, lost, 3)
	})
}

// An answer may be older than a later acknowledgement, and other data has acknowledged nothing.
func TestEarlierAnswerIsNoLoss(t *testing.T) {
	tr := New(Config{Self: serverID(1)})
	peer, id := rpc.Identity{Incarnation: 1}, serverID(2)
	prev := func(index uint64) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: index, PrevLogTerm: 5}
	}
	says := func(last uint64, ok bool) *raft.AppendEntriesResponse {
		return &raft.AppendEntriesResponse{Term: 5, LastLog: last, Success: ok}
	}
	early := tr.sending(id, "", prev(9))
	require.Zero(t, tr.answered(id, peer, prev(8), says(8, true), tr.sending(id, "", prev(8)), nil))
	require.Zero(t, tr.answered(id, peer, prev(9), says(7, false), early, nil))
	require.Zero(t, tr.answered(id, peer, prev(9), says(7, false), tr.sending(id, "", prev(9)), errors.New("broken")))
	require.EqualValues(t, 8, tr.answered(id, peer, prev(9), says(7, false), tr.sending(id, "", prev(9)), nil))
	peer.Incarnation = 2
	require.Zero(t, tr.answered(id, peer, prev(9), says(7, false), tr.sending(id, "", prev(9)), nil))
	require.Zero(t, tr.Acknowledged(id, time.Hour), "by other data")
}

// only returns a function that is true for one member.
func only(member raft.ServerID) func(raft.ServerID) bool {
	return func(id raft.ServerID) bool { return id == member }
}

func TestNudgeNeedsAcknowledgement(t *testing.T) {
	scripted(t, func(s script) {
		s.Committed(5, 10)
		s.requireNone()
		s.send(raft.AppendEntriesRequest{Term: 5}, success(5))
		s.requireNone() // a heartbeat proves nothing about the log
		s.send(raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 9, PrevLogTerm: 4}, raft.AppendEntriesResponse{Term: 5})
		s.requireNone() // nor does a rejection
		s.send(raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 3, PrevLogTerm: 2}, success(5))
		s.requireNudge(5, 3, 2, 3, true)
		s.send(raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 3, PrevLogTerm: 2, Entries: entries(4, 4, 8), LeaderCommitIndex: 7}, success(5))
		s.requireNudge(5, 8, 4, 8, true)
		s.send(raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 8, PrevLogTerm: 4, Entries: entries(5, 9, 12), LeaderCommitIndex: 10}, success(5))
		s.requireNudge(5, 12, 5, 10, true) // the append carried it, possibly before the disk had entry 9
		s.send(raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 12, PrevLogTerm: 5, LeaderCommitIndex: 10}, success(5))
		s.requireNone()
		s.Committed(5, 11)
		s.requireNudge(5, 12, 5, 11, true)
		s.Committed(5, 11)
		s.Committed(5, 9)
		s.requireNone()
	})
}

func TestResolve(t *testing.T) {
	tests := map[string]struct {
		resolve func(uint64) string
		target  raft.ServerAddress
		reached bool
	}{
		"no resolver":             {nil, "n2:1", true},
		"moved":                   {func(member uint64) string { return fmt.Sprintf("n%d:1", member) }, "old:1", true},
		"unknown to the resolver": {func(uint64) string { return "" }, "n2:1", true},
		"moved elsewhere":         {func(uint64) string { return "n9:1" }, "n2:1", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(s script) {
				s.cfg.Resolve = test.resolve
				failed := make(chan error, 1)
				go func() {
					var resp raft.RequestVoteResponse
					failed <- s.RequestVote(serverID(2), test.target, &raft.RequestVoteRequest{RPCHeader: s.header}, &resp)
				}()
				if test.reached {
					in := <-s.peer.Consumer()
					in.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
				}
				require.Equal(t, test.reached, <-failed == nil)
			})
		})
	}
}

func TestNudgesCoalesce(t *testing.T) {
	scripted(t, func(s script) {
		s.send(raft.AppendEntriesRequest{Term: 5, Entries: entries(5, 1, 20)}, success(5))
		s.Committed(5, 1)
		synctest.Wait() // the first nudge is in flight
		for i := uint64(2); i <= 9; i++ {
			s.Committed(5, i)
		}
		s.requireNudge(5, 20, 5, 1, true)
		s.requireNudge(5, 20, 5, 9, true)
		s.requireNone()

		// A failed nudge is not forgotten, but does not repeat by itself.
		s.Committed(5, 10)
		s.requireNudge(5, 20, 5, 10, false)
		s.requireNone()
		s.send(raft.AppendEntriesRequest{Term: 5}, success(5))
		s.requireNudge(5, 20, 5, 10, true)
		s.requireNone()
	})
}

func TestNudgesEndWithTheTerm(t *testing.T) {
	news := map[string]func(s script){
		"we lead again":    func(s script) { s.send(raft.AppendEntriesRequest{Term: 6}, success(6)) },
		"a peer is in it":  func(s script) { s.send(raft.AppendEntriesRequest{Term: 5}, raft.AppendEntriesResponse{Term: 6}) },
		"its leader wrote": func(s script) { s.Transport.mu.Lock(); s.enter(6); s.Transport.mu.Unlock() },
	}
	for name, hear := range news {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(s script) {
				s.send(raft.AppendEntriesRequest{Term: 5, Entries: entries(5, 1, 20)}, success(5))
				s.Committed(5, 1)
				s.requireNudge(5, 20, 5, 1, true)
				require.Equal(t, 1, s.Confirmed(5, 0, only(serverID(2))))
				hear(s)
				s.Committed(5, 2)
				s.requireNone()
				require.Zero(t, s.Confirmed(5, 0, only(serverID(2))))
				s.Committed(6, 15)
				s.requireNone() // entries acknowledged in the earlier term may be gone
				s.send(raft.AppendEntriesRequest{Term: 6, PrevLogEntry: 20, PrevLogTerm: 5}, success(6))
				s.requireNudge(6, 20, 5, 15, true)
			})
		})
	}
}

func TestBeatsConfirmTheLeader(t *testing.T) {
	scripted(t, func(s script) {
		voter := only(serverID(2))
		beat := func() raft.RPC {
			req, in := s.nudged()
			require.Equal(t, &raft.AppendEntriesRequest{RPCHeader: s.header, Term: 5, Leader: s.header.Addr}, req)
			return in
		}
		answer := success(5)
		require.Zero(t, s.Beat(5, voter), "nothing was sent to the peer in this term")
		s.send(raft.AppendEntriesRequest{Term: 5}, answer)
		require.Zero(t, s.Beat(4, voter))
		require.Zero(t, s.Beat(5, only(serverID(3))))
		s.requireNone()

		mark := s.Mark()
		require.Equal(t, 1, s.Beat(5, voter))
		first := beat()
		later := s.Mark()
		for range 3 {
			require.Equal(t, 1, s.Beat(5, voter))
			s.requireNone() // while a beat is unanswered
		}
		first.Respond(&answer, nil)
		second := beat()
		require.Equal(t, 1, s.Confirmed(5, mark, voter))
		require.Zero(t, s.Confirmed(5, later, voter), "the beat was sent before")
		second.Respond(&answer, nil)
		s.requireNone()
		require.Equal(t, 1, s.Confirmed(5, later, voter))

		require.Equal(t, 1, s.Beat(5, voter))
		third := beat()
		require.Equal(t, 1, s.Beat(5, voter))
		third.Respond(&raft.AppendEntriesResponse{Term: 6}, nil)
		s.requireNone() // the term is over
		require.Zero(t, s.Beat(5, voter))
	})
}

func TestBeatsEndWithTheMember(t *testing.T) {
	scripted(t, func(s script) {
		s.send(raft.AppendEntriesRequest{Term: 5}, success(5))
		require.Equal(t, 1, s.Beat(5, only(serverID(2))))
		s.Retain(only(serverID(3)))
		require.Zero(t, s.Beat(5, only(serverID(2))))
		if _, in := s.nudged(); in.RespChan != nil {
			in.Respond(&raft.AppendEntriesResponse{Term: 5, Success: true}, nil)
		}
		s.requireNone()
	})
}

func TestCommitIndexIsBounded(t *testing.T) {
	tests := map[string]struct {
		prev, commit uint64
		entries      []*raft.Log
		want         uint64
	}{
		"heartbeat":         {0, 9, nil, 0},
		"from the start":    {0, 9, entries(5, 1, 3), 3},
		"probe":             {7, 9, nil, 7},
		"covered":           {7, 9, entries(5, 8, 12), 9},
		"partly covered":    {7, 9, entries(5, 8, 8), 8},
		"nothing committed": {7, 0, entries(5, 8, 8), 0},
	}
	for name, test := range tests {
		scripted(t, func(s script) {
			req := raft.AppendEntriesRequest{Term: 5, PrevLogEntry: test.prev, PrevLogTerm: 4, LeaderCommitIndex: test.commit, Entries: test.entries}
			seen := s.send(req, success(5))
			require.Len(t, seen, 1, name)
			require.Equal(t, test.want, seen[0].LeaderCommitIndex, name)
			require.Equal(t, test.commit, req.LeaderCommitIndex)
		})
	}
}

func TestLargeAppendGoesInParts(t *testing.T) {
	scripted(t, func(s script) {
		large := entries(5, 4, 13)
		for _, e := range large {
			e.Data = make([]byte, appendBytes/3)
		}
		large[9].Data = make([]byte, 2*appendBytes)
		req := raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 3, PrevLogTerm: 4, LeaderCommitIndex: 8, Entries: large}
		seen := s.send(req, success(5))
		require.Len(t, seen, 4)
		prev, prevTerm, sent := uint64(3), uint64(4), 0
		for _, part := range seen {
			require.Equal(t, prev, part.PrevLogEntry)
			require.Equal(t, prevTerm, part.PrevLogTerm)
			sent += len(part.Entries)
			prev, prevTerm = prev+uint64(len(part.Entries)), 5
			require.Equal(t, min(8, prev), part.LeaderCommitIndex)
		}
		require.Equal(t, 10, sent)
		seen = s.send(req, raft.AppendEntriesResponse{Term: 5})
		require.Len(t, seen, 1, "a rejection ends it")
	})
}

// TestNudgeIsNeverWrong plays random schedules. The previous entry of a nudge must be one that the peer
// has acknowledged in the nudge's term, and the commit index must not exceed it.
func TestNudgeIsNeverWrong(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	peer := serverID(2)
	for range 200 {
		tr := New(Config{Self: serverID(1)})
		term, last := uint64(1), uint64(0)
		acknowledged := map[uint64]uint64{} // index to term, in the current term
		var committed uint64
		type sent struct {
			req  *raft.AppendEntriesRequest
			mark uint64
		}
		var flying []sent
		for range 300 {
			switch rng.IntN(6) {
			case 0:
				prev := rng.Uint64N(last + 1)
				req := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, LeaderCommitIndex: min(committed, prev)}
				if prev > 0 {
					req.PrevLogTerm = prev%term + 1
				}
				for range rng.IntN(3) {
					prev++
					req.Entries = append(req.Entries, &raft.Log{Index: prev, Term: prev%term + 1})
				}
				last = max(last, prev)
				flying = append(flying, sent{req, tr.sending(peer, "", req)})
			case 1, 2:
				if len(flying) == 0 {
					continue
				}
				i := rng.IntN(len(flying))
				f := flying[i]
				flying = append(flying[:i], flying[i+1:]...)
				resp := &raft.AppendEntriesResponse{Term: f.req.Term, Success: rng.IntN(3) > 0}
				var err error
				if rng.IntN(4) == 0 {
					err = errors.New("lost")
				}
				if err == nil && resp.Success && f.req.Term == term {
					acknowledged[f.req.PrevLogEntry] = f.req.PrevLogTerm
					for _, e := range f.req.Entries {
						acknowledged[e.Index] = e.Term
					}
				}
				tr.mu.Lock()
				tr.follower(peer).nudging = true // the test sends nudges itself
				tr.mu.Unlock()
				tr.answered(peer, rpc.Identity{}, f.req, resp, f.mark, err)
			case 3:
				committed += rng.Uint64N(4)
				tr.Committed(term, committed)
			case 4:
				if rng.IntN(10) == 0 {
					term++
					acknowledged, committed = map[uint64]uint64{}, 0
					tr.Committed(term, 0)
				}
			}
			tr.mu.Lock()
			tr.follower(peer).nudging = true
			nudge := tr.due(tr.follower(peer))
			tr.mu.Unlock()
			if nudge == nil {
				continue
			}
			prevTerm, ok := acknowledged[nudge.PrevLogEntry]
			require.True(t, ok && nudge.PrevLogEntry > 0)
			require.Equal(t, prevTerm, nudge.PrevLogTerm)
			require.Equal(t, term, nudge.Term)
			require.LessOrEqual(t, nudge.LeaderCommitIndex, min(committed, nudge.PrevLogEntry))
			if rng.IntN(2) == 0 {
				flying = append(flying, sent{nudge, tr.sending(peer, "", nudge)})
			}
		}
	}
}
