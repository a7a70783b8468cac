// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
)

// A suspicious log contradicts every claim.
type suspicious struct {
	durableLog
	claim raftlog.Claim
	ended error
}

func (l *suspicious) Contradiction(c raftlog.Claim) error {
	l.claim = c
	return errors.New("another history")
}

func (l *suspicious) Diverge(reason error) { l.ended = reason }

// Raft itself rejects an earlier leader, which may lack entries that were committed since.
func TestEarlierLeaderIsNotCompared(t *testing.T) {
	log := &suspicious{}
	transport := New(Config{
		Log: log, Term: func() uint64 { return 5 }, Committed: func() uint64 { return 7 },
	})
	require.NoError(t, transport.compare(raftlog.Claim{Leader: 4}))
	require.NoError(t, log.ended)
	require.ErrorContains(t, transport.compare(raftlog.Claim{Leader: 5}), "another history")
	require.ErrorContains(t, log.ended, "another history")
	require.EqualValues(t, 7, log.claim.Committed)
}
