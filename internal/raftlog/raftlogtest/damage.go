// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
	"github.com/coterie-kv/coterie/internal/wire"
)

// damages is how many damages a test tries for each file.
const damages = 10

// A victim is the directory of a closed log. All of its changes were durable.
type victim struct {
	site
	whole   image
	entries []*raft.Log
	applied uint64
}

// victim makes a log that was truncated and compacted, with two snapshots.
func (s site) victim(t *testing.T) *victim {
	t.Helper()
	v := &victim{site: s, applied: 30}
	l := s.open(t)
	vote(t, l, 4, "b")
	for i := uint64(1); i < 60; i += 4 {
		if i%3 == 0 && i > 30 {
			remove(t, l, i-2, i-1)
			i -= 2
		}
		keep(t, l, append(storagetest.Entries(i, i+2, i), storagetest.Sized(i+3, i, 700))...)
		if i == 29 {
			l.Applied(v.applied)
			snapshot(t, l, 20, 17)
			snapshot(t, l, 24, 21)
			remove(t, l, 1, 22)
		}
	}
	l = s.reopen(t, l)
	v.entries = all(t, l)
	finish(t, l)
	v.whole = s.image(t)
	require.Greater(t, len(v.entries), 20)
	return v
}

// check opens the directory with other files. It returns whether the damage was found. If it was not, the log must
// be whole.
func (v *victim) check(t *testing.T, i image, what string) (found bool) {
	t.Helper()
	v.place(t, i)
	r, readErr := raftlog.Read(v.files, v.dir, v.format)
	if readErr == nil {
		require.NoError(t, r.Close(), what)
	}
	require.Equal(t, i, v.image(t), "%s: an inspection changes nothing", what)
	l, err := v.try()
	if err != nil {
		var corrupt *raftlog.CorruptError
		require.True(t, errors.As(err, &corrupt) || errors.Is(err, wire.ErrFormat) || errors.Is(err, fault.ErrRestoreUnfinished),
			"%s: %v", what, err)
		if readErr == nil {
			require.True(t, len(r.Damage)+len(r.Formats) > 0 || r.Unfinished, "%s: an inspection does not find %v", what, err)
		}
		return true
	}
	require.NoError(t, readErr, what)
	id, known := l.Identity()
	if !known { // a node notices that when it wants to write an identity
		require.ErrorAs(t, l.Identify(member), new(*raftlog.CorruptError), what)
		require.NotEmpty(t, r.Damage, what)
		finish(t, l)
		return true
	}
	require.Equal(t, member, id, what)
	voted(t, l, 4, 4, "b")
	require.Equal(t, v.applied, l.Recorded(), what)
	got := all(t, l)
	require.NotEmpty(t, got, what)
	require.Equal(t, span(v.entries), span(got), what)
	same(t, v.entries, got)
	index, _ := newest(t, l)
	snapshots := len(r.Damage) > 0
	require.True(t, index == 24 || snapshots && index == 20, "%s: the newest snapshot is of %d", what, index)
	next := l.Durable() + 1
	keep(t, l, storagetest.Entry(next, 99))
	l = v.reopen(t, l)
	require.Equal(t, next, span(all(t, l))[1], what)
	finish(t, l)
	return false
}

// A change of a few bytes anywhere in a file is found by Open, or does no harm.
func testDamage(t *testing.T, s site) {
	v := s.victim(t)
	require.False(t, v.check(t, v.whole, "nothing"))
	r := random(t)
	found, tries := 0, 0
	for _, name := range v.whole.names() {
		if len(v.whole[name]) == 0 || name == "lock" || strings.HasPrefix(name, "snapshots") {
			continue // the tests of raftlog damage snapshots
		}
		for range damages {
			tries++
			b := slices.Clone(v.whole[name])
			if v.check(t, v.whole.with(name, b), damage(r, name, b)) {
				found++
			}
		}
	}
	t.Logf("%d of %d damages were found, the others did no harm", found, tries)
	require.Positive(t, found)
}

// damage changes the bytes of a file, most often some that are not zero, and describes the change.
func damage(r *rand.Rand, name string, b []byte) string {
	at := r.IntN(len(b))
	for range 20 {
		if b[at] != 0 {
			break
		}
		at = r.IntN(len(b))
	}
	end := at + 1
	switch r.IntN(4) {
	case 0:
		end = min(at+512, len(b))
		clear(b[at:end])
	case 1:
		end = min(at+64, len(b))
		for i := at; i < end; i++ {
			b[i] = byte(r.Uint32())
		}
	default:
		b[at] ^= 1 << r.IntN(8)
	}
	return fmt.Sprintf("%s from %d to %d", name, at, end)
}

// A log that has lost entries at its end is found, since other files say how far it reached.
func testLostEnd(t *testing.T, s site) {
	l := s.open(t)
	keep(t, l, storagetest.Entries(1, 10, 1)...)
	finish(t, l)
	earlier := s.image(t)
	l = s.open(t)
	keep(t, l, storagetest.Entries(11, 30, 1)...)
	vote(t, l, 3, "a")
	finish(t, l)
	now := s.image(t)
	mixed := image{}
	for name, b := range now {
		if ours := s.format.Layout().Log; name == ours || filepath.Dir(name) == ours {
			b = earlier[name]
		}
		if b != nil {
			mixed[name] = b
		}
	}
	require.NotEqual(t, now, mixed)
	s.place(t, mixed)
	require.NotEmpty(t, s.read(t).Damage)
	_, err := s.try()
	require.ErrorAs(t, err, new(*raftlog.CorruptError))
	s.place(t, now)
	l = s.open(t)
	holds(t, l, storagetest.Entries(1, 30, 1)...)
	finish(t, l)
}

// A missing file of the format is found, or does no harm.
func testLostFiles(t *testing.T, s site) {
	v := s.victim(t)
	paths, err := s.format.Files(s.files, s.dir)
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		name, err := filepath.Rel(s.dir, path)
		require.NoError(t, err)
		require.Contains(t, v.whole, name)
		t.Logf("%s: found %v", name, v.check(t, v.whole.with(name, nil), name+" is missing"))
	}
}

// A directory of another format is rejected by all functions, and stays as it is.
func testMismatch(t *testing.T, s site) {
	other, file := storage.Bolt, "log.db"
	if s.format.Name() == storage.Bolt {
		other, file = storage.Segments, "identity"
	}
	vfstest.Save(t, s.files, s.path(file), []byte("content"))
	vfstest.Save(t, s.files, s.path("lock"), nil)
	before := s.image(t)
	_, err := s.try()
	_, readErr := raftlog.Read(s.files, s.dir, s.format)
	recoverErr := raftlog.Recover(s.files, s.dir, s.format, nil)
	for _, err := range []error{err, readErr, recoverErr} {
		require.ErrorIs(t, err, fault.ErrStorageMismatch)
		require.ErrorContains(t, err, other)
		require.ErrorContains(t, err, s.format.Name())
	}
	require.Error(t, s.found(founding(t, "state")))
	require.Equal(t, before, s.image(t))
}

// One process, and in it one Log or Reader, has a directory at a time.
func testLock(t *testing.T, s site) {
	l := s.open(t)
	keep(t, l, storagetest.Entries(1, 3, 1)...)
	_, err := s.try()
	require.ErrorIs(t, err, fault.ErrDirInUse)
	_, err = raftlog.Read(s.files, s.dir, s.format)
	require.ErrorIs(t, err, fault.ErrDirInUse)
	require.ErrorIs(t, raftlog.Recover(s.files, s.dir, s.format, nil), fault.ErrDirInUse)
	finish(t, l)
	r, err := raftlog.Read(s.files, s.dir, s.format)
	require.NoError(t, err)
	_, err = s.try()
	require.ErrorIs(t, err, fault.ErrDirInUse)
	require.NoError(t, r.Close())
	l = s.open(t)
	holds(t, l, storagetest.Entries(1, 3, 1)...)
	finish(t, l)
}

// An inspection finds what Open finds, and changes no byte.
func testInspection(t *testing.T, s site) {
	v := s.victim(t)
	for range 2 {
		r, err := raftlog.Read(s.files, s.dir, s.format)
		require.NoError(t, err)
		require.Empty(t, r.Damage)
		require.Empty(t, r.Formats)
		require.Equal(t, span(v.entries), [2]uint64{r.First, r.Last})
		require.Equal(t, v.applied, r.Recorded)
		require.Equal(t, member, r.Identity)
		require.Equal(t, [2]uint64{4, 4}, [2]uint64{r.Term, r.VotedIn})
		require.Len(t, r.Snapshots, 2)
		index := r.First
		require.NoError(t, r.Entries(0, func(e raftlog.Entry) error {
			require.Equal(t, index, e.Index)
			require.Equal(t, v.entries[index-r.First].Data, e.Command)
			index++
			return nil
		}))
		require.Equal(t, r.Last+1, index)
		require.NoError(t, r.Close())
		require.Equal(t, v.whole, s.image(t))
	}
	require.False(t, exists(t, s.files, s.path("diverged")))
}
