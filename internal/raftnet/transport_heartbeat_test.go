// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Raft offers a shortcut past its main loop that changes state which the loop is using
// (hashicorp/raft#695). The transport never takes it, even if a request looks like a heartbeat.
func TestHeartbeatTakesNoShortcut(t *testing.T) {
	scripted(t, func(s script) {
		s.peer.SetHeartbeatHandler(func(rpc raft.RPC) {
			s.Error("taken")
			rpc.Respond(&raft.AppendEntriesResponse{Term: 5, Success: true}, nil)
		})
		seen := s.send(raft.AppendEntriesRequest{Term: 5}, success(5))
		require.Len(t, seen, 1)
		require.True(t, heartbeat(seen[0]))
	})
}

// Raft sees a heartbeat only if it has not followed the leader a moment ago, by the clock of a synctest bubble.
func TestHeartbeatsThatFollowAnAppend(t *testing.T) {
	scripted(t, func(s script) {
		var recorded atomic.Uint64 // the peer's term
		recorded.Store(5)
		s.peer.cfg.Term = recorded.Load
		beat, entry := raft.AppendEntriesRequest{Term: 5}, raft.AppendEntriesRequest{Term: 5, Entries: []*raft.Log{{Index: 1, Term: 5}}}
		raftSees := func(req raft.AppendEntriesRequest, answer raft.AppendEntriesResponse) bool {
			return len(s.send(req, answer)) > 0
		}

		require.True(t, raftSees(beat, success(5)), "raft does not follow yet")
		mark := s.Mark()
		require.False(t, raftSees(beat, success(5)))
		require.Equal(t, 1, s.Confirmed(5, mark, func(raft.ServerID) bool { return true }), "the answer counts all the same")
		require.True(t, raftSees(entry, success(5)))

		time.Sleep(electionTimeout / followedFor)
		require.True(t, raftSees(beat, success(5)), "raft has to hear from its leader")
		require.False(t, raftSees(beat, success(5)))

		recorded.Store(6)
		require.True(t, raftSees(beat, raft.AppendEntriesResponse{Term: 6}), "the peer may have voted in a later term")
		beat.Term = 6
		require.True(t, raftSees(beat, success(6)), "raft followed in another term")
		require.False(t, raftSees(beat, success(6)))

		time.Sleep(electionTimeout / followedFor)
		require.True(t, raftSees(beat, raft.AppendEntriesResponse{Term: 6}))
		require.True(t, raftSees(beat, success(6)), "raft has not followed again")
	})
}
