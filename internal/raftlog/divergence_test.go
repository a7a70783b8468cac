// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// requireRefused checks that both Open and a Reader report the directory as damaged.
func requireRefused(t *testing.T, files vfs.FS, texts ...string) {
	t.Helper()
	_, err := Open(files, home, segments.Format{}, false)
	require.ErrorAs(t, err, new(*CorruptError))
	r, readErr := Read(files, home, segments.Format{})
	require.NoError(t, readErr)
	require.NoError(t, r.Close())
	require.ErrorAs(t, r.Diverged, new(*CorruptError))
	for _, text := range texts {
		require.ErrorContains(t, err, text)
		require.ErrorContains(t, r.Diverged, text)
	}
}

func TestAppliedEntriesAreNotDiscarded(t *testing.T) {
	for name, discard := range map[string]func(l *Log) error{
		"by a truncation": func(l *Log) error { return l.Logs().DeleteRange(5, 8) },
		"all":             func(l *Log) error { return l.Logs().DeleteRange(1, 8) },
		"by others":       func(l *Log) error { return l.Logs().StoreLogs(storagetest.Entries(5, 6, 3)) },
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewForgetful()
			l := open(t, disk.Mount())
			keep(t, l, storagetest.Entries(1, 8, 1)...)
			require.NoError(t, l.Logs().DeleteRange(7, 8), "entries that were not applied can be deleted")
			keep(t, l, storagetest.Entries(7, 8, 2)...)
			l.Applied(6)
			require.ErrorContains(t, discard(l), "it has applied the entries up to 6")
			require.ErrorAs(t, l.Condition().Err, new(*CorruptError))
			holds(t, l, append(storagetest.Entries(1, 6, 1), storagetest.Entries(7, 8, 2)...)...)
			require.Error(t, l.Logs().StoreLog(storagetest.Entry(9, 2)), "the log accepts nothing more")
			disk.Crash(nil)
			_ = l.Close(t.Context())
			requireRefused(t, disk.Mount(), "it has applied the entries up to 6", "to 8")
		})
	}
}

func TestEntriesInSnapshotMayBeDeleted(t *testing.T) {
	l := open(t, vfs.NewMemory().Mount())
	keep(t, l, storagetest.Entries(1, 8, 1)...)
	l.Applied(8)
	snapshot(t, l, 8, 1)
	require.NoError(t, l.Logs().DeleteRange(1, 8))
	keep(t, l, storagetest.Entry(9, 1))
	finish(t, l)
}

// The log has entries 4 to 9, of terms 2 and 3, and a snapshot of 5, and has applied 7.
func TestContradictions(t *testing.T) {
	l := open(t, vfs.NewMemory().Mount())
	keep(t, l, append(storagetest.Entries(1, 6, 2), storagetest.Entries(7, 9, 3)...)...)
	snapshot(t, l, 5, 2)
	require.NoError(t, l.Logs().DeleteRange(1, 3))
	l.Applied(7)
	same, typed := storagetest.Entry(7, 3), storagetest.Entry(7, 3)
	other := *same
	other.Data = []byte("another")
	typed.Type = raft.LogNoop
	for name, test := range map[string]struct {
		claim      Claim
		contradict string
	}{
		"nothing":                               {Claim{}, ""},
		"the same entry":                        {Claim{Index: 7, Term: 3, Entries: storagetest.Entries(8, 9, 3)}, ""},
		"the same content":                      {Claim{Index: 6, Term: 2, Entries: []*raft.Log{same}}, ""},
		"another content":                       {Claim{Index: 6, Term: 2, Entries: []*raft.Log{&other}}, "entry 7 of term 3"},
		"another type":                          {Claim{Index: 6, Term: 2, Entries: []*raft.Log{typed}}, "entry 7 of term 3"},
		"another that was not applied":          {Claim{Index: 7, Term: 3, Entries: storagetest.Entries(8, 9, 4)}, ""},
		"another that was committed":            {Claim{Index: 7, Term: 3, Committed: 8, Entries: storagetest.Entries(8, 9, 4)}, "up to 8, among them entry 8 of term 3; the leader of term 9 has other entries from 7 to 9, among them entry 8 of term 4"},
		"another that was applied":              {Claim{Index: 6, Term: 3}, "entry 6 of term 2"},
		"a later one, of the same term":         {Claim{Index: 100, Term: 3}, ""},
		"a later one, of an earlier term":       {Claim{Index: 100, Term: 2}, "entry 7 of term 3"},
		"an entry within, of another term":      {Claim{Index: 5, Term: 2, Entries: []*raft.Log{storagetest.Entry(6, 3)}}, "entry 6 of term 2"},
		"the end of the snapshot":               {Claim{Index: 5, Term: 2}, ""},
		"another at its end":                    {Claim{Index: 5, Term: 1}, "entry 5 of term 2"},
		"an entry before it":                    {Claim{Index: 2, Term: 1}, ""},
		"an entry before it, of a later term":   {Claim{Index: 2, Term: 3}, "entry 5 of term 2"},
		"entries before it":                     {Claim{Entries: storagetest.Entries(1, 3, 2)}, ""},
		"entries before it, one of a later one": {Claim{Entries: append(storagetest.Entries(1, 2, 2), storagetest.Entry(3, 8))}, "from 1 to 3, among them entry 3 of term 8"},
		"an entry without a term":               {Claim{Index: 7}, ""},
	} {
		test.claim.Leader = 9
		err := l.Contradiction(test.claim)
		if test.contradict == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, test.contradict, name)
		}
	}
	require.NoError(t, l.Condition().Err, "a question changes nothing")
	finish(t, l)
}

// A snapshot that contradicts applied entries does not replace them.
func TestAppliedLogIsNotAstray(t *testing.T) {
	files := vfs.NewMemory().Mount()
	l := open(t, files)
	keep(t, l, storagetest.Entries(1, 8, 1)...)
	l.Applied(6)
	snapshot(t, l, 5, 2)
	require.False(t, l.Astray())
	require.ErrorContains(t, l.Realign(), "it has applied the entries up to 6")
	_ = l.Close(t.Context())
	requireRefused(t, files, "it has applied the entries up to 6")
}
