// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Raft offers a shortcut past its main loop, which changes the state that loop is using
// (hashicorp/raft#695). It is not taken, however much a request looks like a heartbeat.
func TestAHeartbeatTakesNoShortcut(t *testing.T) {
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
