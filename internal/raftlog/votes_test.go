// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

const voteName = home + "/" + voteFile

// ballot returns the values that raft reads when it starts.
func ballot(t testing.TB, l *Log) (term, votedIn uint64, candidate string) {
	t.Helper()
	term, err := l.Stable().GetUint64(keyTerm)
	require.NoError(t, err)
	votedIn, err = l.Stable().GetUint64(keyVotedIn)
	require.NoError(t, err)
	b, err := l.Stable().Get(keyCandidate)
	if err != nil {
		require.EqualError(t, err, "not found")
	}
	return term, votedIn, string(b)
}

// elect votes as raft does: first the term, then the candidate.
func elect(t testing.TB, l *Log, term uint64, candidate string) {
	t.Helper()
	require.NoError(t, l.Stable().SetUint64(keyVotedIn, term))
	require.NoError(t, l.Stable().Set(keyCandidate, []byte(candidate)))
}

func requireBallot(t testing.TB, l *Log, term, votedIn uint64, candidate string) {
	t.Helper()
	gotTerm, gotVotedIn, gotCandidate := ballot(t, l)
	require.Equal(t, fmt.Sprint(term, votedIn, candidate), fmt.Sprint(gotTerm, gotVotedIn, gotCandidate))
}

func TestTermAndVoteAreKept(t *testing.T) {
	disk := vfs.NewForgetful()
	l, err := Open(disk.Mount(), home, segments.Format{}, false)
	require.NoError(t, err)
	requireBallot(t, l, 0, 0, "")
	for term := uint64(1); term < 8; term++ {
		require.NoError(t, l.Stable().SetUint64(keyTerm, term))
		if term > 1 {
			requireBallot(t, l, term, term-1, fmt.Sprint("candidate ", term-1))
		}
		elect(t, l, term, fmt.Sprint("candidate ", term))
		if term%2 == 0 {
			disk.Crash(nil)
		}
		finish(t, l)
		l = open(t, disk.Mount())
		requireBallot(t, l, term, term, fmt.Sprint("candidate ", term))
	}
	before := disk.Changes()
	require.NoError(t, l.Stable().SetUint64(keyTerm, 7))
	require.Equal(t, before, disk.Changes(), "an unchanged term is not written")
	finish(t, l)
}

func TestVoteAndTermAreOneRecord(t *testing.T) {
	disk := vfs.NewForgetful()
	l := open(t, disk.Mount())
	elect(t, l, 3, "a")
	requireBallot(t, l, 3, 3, "a")
	require.NoError(t, l.Stable().SetUint64(keyVotedIn, 4))
	requireBallot(t, l, 3, 3, "a")
	disk.Crash(nil)
	finish(t, l)
	l = open(t, disk.Mount())
	requireBallot(t, l, 3, 3, "a")
	finish(t, l)
}

func TestUnknownKeysAreRejected(t *testing.T) {
	l := open(t, vfs.NewMemory().Mount())
	require.Error(t, l.Stable().Set([]byte("key"), nil))
	require.Error(t, l.Stable().SetUint64([]byte("key"), 1))
	_, err := l.Stable().Get([]byte("key"))
	require.EqualError(t, err, "not found")
	_, err = l.Stable().GetUint64([]byte("key"))
	require.EqualError(t, err, "not found")
	require.Error(t, l.Stable().Set(keyCandidate, make([]byte, slotSize)))
	finish(t, l)
}

// A vote that a crash interrupts is there completely or not at all, and the vote before it remains.
func TestTornVoteLeavesPreviousOne(t *testing.T) {
	r := random(t)
	for range 200 {
		disk := vfs.NewForgetful()
		l := open(t, disk.Mount())
		for term := uint64(2); term < 6; term++ {
			elect(t, l, term, fmt.Sprint("candidate ", term))
		}
		disk.FreezeAfter(r.IntN(4))
		voted := waiting(func() error { elect(t, l, 6, "candidate 6"); return nil })
		select {
		case <-l.Trouble():
		case <-voted:
		}
		disk.Crash(r)
		_ = l.Close(t.Context())
		l = open(t, disk.Mount())
		term, votedIn, candidate := ballot(t, l)
		require.Contains(t, []uint64{5, 6}, term)
		require.Equal(t, term, votedIn)
		require.Equal(t, fmt.Sprint("candidate ", term), candidate)
		elect(t, l, 7, "candidate 7")
		finish(t, l)
	}
}

func TestTornFirstVoteWasNeverGiven(t *testing.T) {
	r := random(t)
	for range 50 {
		disk := vfs.NewForgetful()
		l, err := Open(disk.Mount(), home, segments.Format{}, false)
		require.NoError(t, err)
		disk.FreezeAfter(1)
		voted := waiting(func() error { return l.Stable().SetUint64(keyTerm, 1) })
		<-l.Trouble()
		disk.Crash(r)
		require.NoError(t, l.Close(t.Context()))
		require.NoError(t, <-voted)
		l = open(t, disk.Mount())
		requireBallot(t, l, 1, 0, "")
		finish(t, l)
	}
}

// If the record were taken for a torn one, a node could vote twice in a term.
func TestDamagedVoteIsNotForgotten(t *testing.T) {
	for votes := range uint64(4) {
		files := vfs.NewMemory().Mount()
		l := open(t, files)
		for term := range votes {
			elect(t, l, term+2, fmt.Sprint("candidate ", term+2))
		}
		term, votedIn, candidate := ballot(t, l)
		finish(t, l)
		whole := vfstest.Load(t, files, voteName)
		check := func(damaged []byte, what string, at int) {
			vfstest.Save(t, files, voteName, damaged)
			l, err := Open(files, home, segments.Format{}, false)
			if err != nil {
				var corrupt *CorruptError
				require.ErrorAs(t, err, &corrupt, "%s at %d", what, at)
				require.Equal(t, voteName, corrupt.File)
				return
			}
			defer finish(t, l)
			requireBallot(t, l, term, votedIn, candidate)
		}
		for at := range whole {
			if at%slotSize > 48 && at%97 > 0 {
				continue
			}
			damaged := append([]byte(nil), whole...)
			damaged[at] ^= 1 << (at % 8)
			check(damaged, "a flip", at)
			if at > 0 {
				check(whole[:at], "a cut", at)
			}
		}
	}
}

func TestLogWithoutVoteIsDamaged(t *testing.T) {
	for name, fill := range map[string]func(l *Log){
		"entries":    func(l *Log) { keep(t, l, storagetest.Entries(1, 1, 1)...) },
		"a snapshot": func(l *Log) { snapshot(t, l, 7, 1) },
	} {
		files := vfs.NewMemory().Mount()
		l := open(t, files)
		fill(l)
		finish(t, l)
		for _, vote := range [][]byte{nil, make([]byte, slotCount*slotSize)} {
			vfstest.Save(t, files, voteName, vote)
			_, err := Open(files, home, segments.Format{}, false)
			var corrupt *CorruptError
			require.ErrorAs(t, err, &corrupt, name)
			require.Equal(t, voteName, corrupt.File)
		}
		require.NoError(t, files.Remove(voteName))
		_, err := Open(files, home, segments.Format{}, false)
		require.ErrorContains(t, err, voteName, name)
	}
}

// A damaged slot is repaired before the other slot is written.
func TestTornVoteAfterDamageLeavesPrevious(t *testing.T) {
	r := random(t)
	for range 100 {
		disk := vfs.NewForgetful()
		l := open(t, disk.Mount())
		for term := range 2 + r.Uint64N(2) {
			elect(t, l, term+1, "a")
		}
		term, _, _ := ballot(t, l)
		finish(t, l)
		require.True(t, disk.Damage(voteName, r.Int64N(2)*slotSize+8))
		l = open(t, disk.Mount())
		requireBallot(t, l, term, term, "a")
		disk.FreezeAfter(r.IntN(3))
		voted := waiting(func() error { elect(t, l, 6, "b"); return nil })
		select {
		case <-l.Trouble():
		case <-voted:
		}
		disk.Crash(r)
		_ = l.Close(t.Context())
		l = open(t, disk.Mount())
		if got, _, _ := ballot(t, l); got != 6 {
			requireBallot(t, l, term, term, "a")
		}
		finish(t, l)
	}
}
