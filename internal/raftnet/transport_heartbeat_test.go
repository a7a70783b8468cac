// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"testing"

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
