// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"errors"
	"io"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
)

// founding returns a founding with a state of one record.
func founding(t testing.TB, state string) raftlog.Founding {
	return raftlog.Founding{
		Identity: member,
		Members:  []raftlog.Member{{ID: "a", Addr: "host:1", Voter: true}},
		State:    func(w io.Writer) error { _, err := w.Write(body(t, state)); return err },
	}
}

func (s site) found(f raftlog.Founding) error { return raftlog.Found(s.files, s.dir, s.format, f) }

// founded checks that a directory has all of a founding, and that its log can be used.
func (s site) founded(t *testing.T, state string) {
	t.Helper()
	l := s.open(t)
	id, known := l.Identity()
	require.True(t, known)
	require.Equal(t, member, id)
	voted(t, l, raftlog.FoundingTerm, 0, "")
	require.EqualValues(t, raftlog.FoundingIndex, l.Durable())
	index, records := newest(t, l)
	require.EqualValues(t, raftlog.FoundingIndex, index)
	require.Equal(t, []string{state}, records)
	store(t, l, storagetest.Entries(3, 4, 2)...)
	finish(t, s.verify(t, l, storagetest.Entries(3, 4, 2)...))
}

func testFounding(t *testing.T, s site) {
	require.NoError(t, s.found(founding(t, "state")))
	require.ErrorIs(t, s.found(founding(t, "other")), fault.ErrDirNotEmpty)
	s.founded(t, "state")
	require.ErrorIs(t, s.found(founding(t, "other")), fault.ErrDirNotEmpty)

	s = s.below(1)
	l := s.open(t)
	require.ErrorIs(t, s.found(founding(t, "state")), fault.ErrDirInUse)
	finish(t, l)
	require.ErrorIs(t, s.found(founding(t, "state")), fault.ErrDirNotEmpty)
}

// A founding that was interrupted, by an error or a crash, leaves a directory that only Found accepts.
func testUnfinishedFounding(t *testing.T, s site) {
	broken := errors.New("broken")
	var crashed image
	f := founding(t, "state")
	f.State = func(io.Writer) error {
		crashed = s.image(t)
		return broken
	}
	require.ErrorIs(t, s.found(f), broken)
	for range 2 { // after the error, and after a crash at that time
		_, err := s.try()
		require.ErrorIs(t, err, fault.ErrRestoreUnfinished)
		require.True(t, s.read(t).Unfinished)
		s.place(t, crashed)
	}
	require.NoError(t, s.found(founding(t, "state")))
	s.founded(t, "state")
}

// outlived makes the directory of a node. Its log and its snapshot name two members.
func (s site) outlived(t *testing.T) {
	t.Helper()
	l := s.open(t)
	require.NoError(t, l.Stable().SetUint64(keyTerm, 4))
	both := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "host:1"}, {ID: "b", Address: "host:2"}}})
	keep(t, l, storagetest.Entries(1, 9, 3)...)
	snapshot(t, l, 7, 3)
	keep(t, l, &raft.Log{Index: 10, Term: 4, Type: raft.LogConfiguration, Data: both}, storagetest.Entry(11, 4))
	finish(t, l)
}

func continuation(t *testing.T, r *raftlog.Reader) raftlog.Continuation {
	return raftlog.Continuation{
		Index: r.Last, Term: r.Term + 1, Member: raftlog.Member{ID: "a", Addr: "host:1", Voter: true},
		State: func(w io.Writer) error { _, err := w.Write(body(t, "recovered")); return err },
	}
}

func testRecovery(t *testing.T, s site) {
	s.outlived(t)
	before := s.image(t)
	broken := errors.New("broken")
	require.ErrorIs(t, raftlog.Recover(s.files, s.dir, s.format, func(*raftlog.Reader) (raftlog.Continuation, error) {
		return raftlog.Continuation{}, broken
	}), broken)
	require.Equal(t, before, s.image(t), "a rejected recovery writes nothing")
	require.NoError(t, raftlog.Recover(s.files, s.dir, s.format, func(r *raftlog.Reader) (raftlog.Continuation, error) {
		require.Len(t, r.Members, 2)
		_, err := s.try()
		require.ErrorIs(t, err, fault.ErrDirInUse)
		return continuation(t, r), nil
	}))
	s.recovered(t)
}

// recovered checks a directory after a recovery.
func (s site) recovered(t *testing.T) {
	t.Helper()
	r := s.read(t)
	require.Empty(t, r.Damage)
	require.Equal(t, []raftlog.Member{{ID: "a", Addr: "host:1", Voter: true}}, r.Members)
	require.Equal(t, [4]uint64{0, 0, 5, 5}, [4]uint64{r.First, r.Last, r.LastTerm, r.Term})
	l := s.open(t)
	holds(t, l)
	index, records := newest(t, l)
	require.EqualValues(t, 11, index)
	require.Equal(t, []string{"recovered"}, records)
	store(t, l, storagetest.Entry(12, 6))
	finish(t, s.verify(t, l, storagetest.Entry(12, 6)))
}

// A recovery that was interrupted leaves the node as it was, except for its term, and can be repeated.
func testUnfinishedRecovery(t *testing.T, s site) {
	s.outlived(t)
	broken := errors.New("broken")
	require.ErrorIs(t, raftlog.Recover(s.files, s.dir, s.format, func(r *raftlog.Reader) (raftlog.Continuation, error) {
		next := continuation(t, r)
		next.State = func(io.Writer) error { return broken }
		return next, nil
	}), broken)
	l := s.open(t)
	require.Equal(t, [2]uint64{1, 11}, span(all(t, l)))
	require.EqualValues(t, 5, l.Term())
	finish(t, l)
	require.NoError(t, raftlog.Recover(s.files, s.dir, s.format, func(r *raftlog.Reader) (raftlog.Continuation, error) {
		next := continuation(t, r)
		next.Term = 5
		return next, nil
	}))
	s.recovered(t)
}
