// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// A voter rejects candidates while it hears its leader, also while its own disk delays the answer, but
// only as long as the leader waits.
func TestVoterStaysWithLeaderItHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Config{Timeout: time.Second, Term: func() uint64 { return 3 }})
		header := raft.RPCHeader{ID: []byte("a"), Addr: []byte("a:1")}
		bound := func() bool {
			ask, vote := &raft.RequestPreVoteRequest{}, &raft.RequestVoteRequest{}
			ask.Addr = []byte("b:1")
			tr.unbind(ask)
			tr.unbind(vote)
			require.Equal(t, string(ask.Addr) == "a:1", vote.LeadershipTransfer)
			return !vote.LeadershipTransfer
		}
		require.True(t, bound(), "raft itself knows that there is no leader")
		tr.hear(&raft.AppendEntriesRequest{RPCHeader: header, Term: 3})()
		require.True(t, bound())
		time.Sleep(499 * time.Millisecond)
		require.True(t, bound())
		tr.hear(&raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("c:1")}, Term: 2})()
		time.Sleep(time.Millisecond)
		require.False(t, bound(), "a deposed leader does not count")

		answered := tr.hear(&raft.AppendEntriesRequest{RPCHeader: header, Term: 3})
		time.Sleep(1400 * time.Millisecond)
		require.True(t, bound())
		time.Sleep(100 * time.Millisecond)
		require.False(t, bound(), "the leader has given up")
		answered()
		require.False(t, bound())
		id, at := tr.Heard()
		require.EqualValues(t, "a", id)
		require.Equal(t, 1500*time.Millisecond, time.Since(at))

		answered = tr.hear(&raft.InstallSnapshotRequest{RPCHeader: header, Term: 3})
		time.Sleep(800 * time.Millisecond)
		answered()
		require.True(t, bound())
	})
}

func TestVoterYieldsToCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Config{Timeout: time.Second})
		stands := func() bool {
			err := tr.RequestPreVote("b", "b:1", &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{})
			require.Error(t, err, "there is no network")
			return err != errYields
		}
		require.True(t, stands())
		tr.grant(raft.RPCResponse{Response: &raft.RequestPreVoteResponse{}})
		require.True(t, stands(), "it has rejected the candidate")
		tr.grant(raft.RPCResponse{Response: &raft.RequestPreVoteResponse{Granted: true}})
		time.Sleep(499 * time.Millisecond)
		require.False(t, stands())
		time.Sleep(time.Millisecond)
		require.True(t, stands())
	})
}
