// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestRebase(t *testing.T) {
	base := func() (uint64, uint64) { return 8, 3 }
	for name, test := range map[string]struct{ in, want raft.AppendEntriesRequest }{
		"a heartbeat": {raft.AppendEntriesRequest{}, raft.AppendEntriesRequest{}},
		"after it": {
			raft.AppendEntriesRequest{PrevLogEntry: 9, PrevLogTerm: 4, Entries: entries(4, 10, 11)},
			raft.AppendEntriesRequest{PrevLogEntry: 9, PrevLogTerm: 4, Entries: entries(4, 10, 11)},
		},
		"from its end": {
			raft.AppendEntriesRequest{PrevLogEntry: 8, PrevLogTerm: 2, Entries: entries(4, 9, 9)},
			raft.AppendEntriesRequest{PrevLogEntry: 8, PrevLogTerm: 2, Entries: entries(4, 9, 9)},
		},
		"across its end": {
			raft.AppendEntriesRequest{PrevLogEntry: 5, PrevLogTerm: 2, Entries: entries(3, 6, 10)},
			raft.AppendEntriesRequest{PrevLogEntry: 8, PrevLogTerm: 3, Entries: entries(3, 9, 10)},
		},
		"from the beginning": {
			raft.AppendEntriesRequest{Entries: entries(3, 1, 9)},
			raft.AppendEntriesRequest{PrevLogEntry: 8, PrevLogTerm: 3, Entries: entries(3, 9, 9)},
		},
		"within": {
			raft.AppendEntriesRequest{PrevLogEntry: 2, PrevLogTerm: 1, Entries: entries(3, 3, 4), LeaderCommitIndex: 4},
			raft.AppendEntriesRequest{PrevLogEntry: 8, PrevLogTerm: 3, Entries: entries(3, 1, 0), LeaderCommitIndex: 4},
		},
	} {
		rebase(&test.in, base)
		if len(test.in.Entries) == 0 {
			test.in.Entries, test.want.Entries = nil, nil
		}
		require.Equal(t, test.want, test.in, name)
	}
}
