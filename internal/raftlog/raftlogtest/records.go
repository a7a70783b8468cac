// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
)

func testVotes(t *testing.T, s site) {
	l := s.open(t)
	voted(t, l, 1, 0, "")
	vote(t, l, 4, "a")
	for range 2 {
		voted(t, l, 4, 4, "a")
		l = s.reopen(t, l)
	}
	require.NoError(t, l.Stable().SetUint64(keyTerm, 6))
	l = s.reopen(t, l)
	voted(t, l, 6, 4, "a")
	// Raft sets the term of a vote first. A vote is durable only with its candidate.
	require.NoError(t, l.Stable().SetUint64(keyVotedIn, 6))
	voted(t, l, 6, 4, "a")
	l = s.reopen(t, l)
	voted(t, l, 6, 4, "a")
	long := strings.Repeat("x", 200)
	vote(t, l, 6, long)
	l = s.reopen(t, l)
	voted(t, l, 6, 6, long)
	r := s.readWhile(t, l)
	require.Equal(t, [2]uint64{6, 6}, [2]uint64{r.Term, r.VotedIn})
	require.Equal(t, long, string(r.Candidate))
}

// readWhile closes a log and reads its directory.
func (s site) readWhile(t testing.TB, l *raftlog.Log) *raftlog.Reader {
	t.Helper()
	finish(t, l)
	return s.read(t)
}

// Votes and entries do not disturb each other.
func testManyVotes(t *testing.T, s site) {
	l := s.open(t)
	for term := uint64(2); term < 40; term++ {
		vote(t, l, term, candidate(term))
		store(t, l, storagetest.Entry(term-1, term))
		if term%7 == 0 {
			l = s.reopen(t, l)
			voted(t, l, term, term, candidate(term))
			require.Equal(t, [2]uint64{1, term - 1}, span(all(t, l)))
		}
	}
	finish(t, l)
}

func testIdentity(t *testing.T, s site) {
	l, err := s.try()
	require.NoError(t, err)
	_, known := l.Identity()
	require.False(t, known)
	id := raftlog.Identity{Cluster: 1 << 63, Member: 2, Incarnation: 3, Floor: 5, Gathered: true, Disputed: true}
	require.NoError(t, l.Identify(id))
	for range 2 {
		got, known := l.Identity()
		require.True(t, known)
		require.Equal(t, id, got)
		l = s.reopen(t, l)
	}
	id.Since = 8
	require.NoError(t, l.Identify(id))
	keep(t, l, storagetest.Entries(1, 9, 1)...)
	r := s.readWhile(t, l)
	require.True(t, r.Known)
	require.Equal(t, id, r.Identity)

	// Entries without an identity are damage.
	other := s
	other.dir += "2"
	l, err = other.try()
	require.NoError(t, err)
	require.NoError(t, l.Stable().SetUint64(keyTerm, 1))
	keep(t, l, storagetest.Entries(1, 2, 1)...)
	require.ErrorAs(t, l.Identify(id), new(*raftlog.CorruptError))
	finish(t, l)
}
