// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"log/slog"
	"math"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

func TestWhatANodeAnswers(t *testing.T) {
	vote := func(term uint64) raftnet.Request { return raftnet.Request{Vote: true, Term: term} }
	entries := func(term uint64) raftnet.Request { return raftnet.Request{Term: term} }
	elect := raftnet.Request{Elect: true}
	founder, member := rpc.Identity{}, rpc.Identity{Since: 3}

	gathered := raftlog.Identity{Gathered: true}
	alone := trust{founding: true, last: raftlog.FoundingIndex}
	fresh := trust{Identity: gathered, founding: true, last: raftlog.FoundingIndex}
	told := trust{Identity: gathered, founding: true, last: raftlog.FoundingIndex, forgotten: true}
	elector := trust{Identity: gathered, founding: true, elected: true, last: raftlog.FoundingIndex}
	ousted := trust{Identity: gathered, founding: true, elected: true, forgotten: true, last: raftlog.FoundingIndex}
	participant := trust{last: 5}
	onRecord := trust{Identity: raftlog.Identity{Since: 9}, last: 5} // it has forgotten nothing
	behind := trust{Identity: raftlog.Identity{Since: 9, Floor: 4}, last: 8}
	caughtUp := trust{Identity: raftlog.Identity{Since: 9, Floor: 4}, last: 9}
	for name, test := range map[string]struct {
		trust
		from rpc.Identity
		raftnet.Request
		want bool
	}{
		"a vote before it has met all founders":   {alone, founder, vote(2), false},
		"a founding vote":                         {fresh, founder, vote(2), true},
		"a vote for a member on record":           {fresh, member, vote(2), false},
		"a founding vote of a node that was told": {told, founder, vote(2), false},
		"entries for who may have forgotten":      {fresh, founder, entries(2), false},
		"entries of later terms":                  {fresh, member, entries(100), false},
		"to lead":                                 {fresh, member, elect, false},
		"entries of whom it elected":              {elector, founder, entries(2), true},
		"another founding vote":                   {elector, founder, vote(3), true},
		"to lead the founding":                    {elector, founder, elect, false},
		"entries for who is known to forget":      {ousted, founder, entries(2), false},
		"entries in the founding":                 {participant, founder, entries(2), true},
		"a vote in the founding":                  {participant, member, vote(3), true},
		"a vote of a node that has its data":      {onRecord, member, vote(3), true},
		"entries of a leader before":              {behind, member, entries(3), false},
		"entries of the leader that put it on":    {behind, member, entries(4), true},
		"a vote of a node that lags behind":       {behind, member, vote(9), false},
		"to lead without having caught up":        {behind, member, elect, false},
		"a vote in the term in which it came in":  {caughtUp, member, vote(4), false},
		"a vote later":                            {caughtUp, member, vote(5), true},
		"to lead later":                           {caughtUp, member, elect, true},
		"entries of a leader before, still":       {caughtUp, member, entries(3), false},
	} {
		require.Equal(t, test.want, test.mayAnswer(test.from, test.Request), name)
	}
}

// A vote is for whoever has an ID: two candidates of one term may come to have one address after the
// other.
func TestRaftTellsNodesApartByTheirIDs(t *testing.T) {
	n, err := Open(t.Context(), Config{InMemory: true})
	require.NoError(t, err)
	require.EqualValues(t, serverID(n.id), n.raft().net.LocalAddr())
	require.NoError(t, n.Close())
}

// A node that joins takes index and term over from the leader's answer: absurd ones would keep it from every
// election.
func TestAnAbsurdAdmissionIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Open(t.Context(), Config{InMemory: true, Addr: "a:1", Join: []string{"b:1"}, Network: memnet.New(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		before := *n.identity.Load()
		for _, a := range []admission{{1, 5, math.MaxUint64}, {1, math.MaxUint64, 3}} {
			require.ErrorIs(t, n.confirm(a), raftnet.ErrTerm)
			require.Equal(t, before, *n.identity.Load())
		}
		require.NoError(t, n.confirm(admission{1, 5, 3}))
		require.EqualValues(t, 5, n.identity.Load().Since)
		require.NoError(t, n.Close())
	})
}
