// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
	"github.com/coterie-kv/coterie/internal/wire"
)

// requireRead checks that a Reader has found the same data as Open, or the damage that Open reported.
func requireRead(t testing.TB, r *Reader, l *Log, openErr error, what string) {
	t.Helper()
	if errors.Is(openErr, wire.ErrFormat) {
		require.ErrorContains(t, openErr, r.Formats[0].Error(), what)
		return
	}
	if openErr != nil {
		var refused *CorruptError
		require.ErrorAs(t, openErr, &refused, what)
		files := []string{}
		for _, damage := range r.Damage {
			var corrupt *CorruptError
			require.ErrorAs(t, damage, &corrupt, what)
			files = append(files, corrupt.File)
		}
		require.Contains(t, files, refused.File, what)
		return
	}
	require.Empty(t, r.Damage, what)
	id, known := l.Identity()
	require.Equal(t, id, r.Identity, what)
	require.Equal(t, known, r.Known, what)
	require.Equal(t, l.votes.vote, vote{r.Term, r.VotedIn, l.votes.vote.candidate}, what)
	require.EqualValues(t, l.votes.candidate, r.Candidate, what)
	require.Equal(t, l.Recorded(), r.Recorded, what)
	first, last := l.store.first, l.store.last
	if last == 0 {
		first = 0
	}
	require.Equal(t, []uint64{first, last}, []uint64{r.First, r.Last}, what)
	metas, err := l.Snapshots().List()
	require.NoError(t, err, what)
	require.Len(t, r.Snapshots, len(metas), what)
	for i, meta := range metas {
		require.Equal(t, []any{meta.ID, meta.Index, meta.Term, meta.Size}, []any{r.Snapshots[i].id, r.Snapshots[i].Index, r.Snapshots[i].Term, r.Snapshots[i].Size}, what)
	}
	switch {
	case last > 0:
		e, err := l.Entry(last)
		require.NoError(t, err, what)
		require.Equal(t, e.Term, r.LastTerm, what)
	case len(metas) > 0:
		require.Equal(t, metas[0].Term, r.LastTerm, what)
	default:
		require.Zero(t, r.LastTerm, what)
	}
}

// A Reader finds the same data as the next Open whatever a crash has left, and changes nothing.
func TestReaderAgreesWithOpen(t *testing.T) {
	random := random(t)
	torn := 0
	steps(t, func(n int) (stopped bool) {
		for _, end := range []func(*vfs.Memory){(*vfs.Memory).Kill, func(d *vfs.Memory) { d.Crash(random) }} {
			synctest.Test(t, func(t *testing.T) {
				disk := vfs.NewForgetful()
				disk.FreezeAfter(n)
				x := &workload{w: &witness{}}
				stopped = x.run(t, disk.Mount()) != nil
				end(disk)
				files := disk.Mount()
				if known, err := exists(files, filepath.Join(home, lockFile)); err != nil || !known {
					return // nothing was made
				}
				changes := disk.Changes()
				r, err := Read(files, home, segments.Format{})
				if errors.Is(err, fs.ErrNotExist) { // nor was anything else
					require.Equal(t, changes, disk.Changes(), "after %d changes", n)
					l, err := openWith(files, home, false, smallSegment)
					require.NoError(t, err)
					_, known := l.Identity()
					require.False(t, known)
					require.Empty(t, all(t, l))
					finish(t, l)
					return
				}
				require.NoError(t, err)
				_, err = openWith(files, home, false, smallSegment)
				require.ErrorIs(t, err, fault.ErrDirInUse)
				require.NoError(t, r.Close())
				require.Equal(t, changes, disk.Changes(), "after %d changes", n)
				l, err := openWith(files, home, false, smallSegment)
				require.NoError(t, err)
				requireRead(t, r, l, nil, "")
				got := []*raft.Log{}
				require.NoError(t, r.Entries(0, func(e Entry) error {
					got = append(got, &raft.Log{Index: e.Index, Term: e.Term, Data: e.Command})
					return nil
				}))
				want, err := tail(l)
				require.NoError(t, err)
				require.Len(t, got, len(want))
				for i, w := range want {
					require.Equal(t, []uint64{w.Index, w.Term}, []uint64{got[i].Index, got[i].Term})
					if w.Type == raft.LogCommand {
						require.Equal(t, string(w.Data), string(got[i].Data))
					} else {
						require.Nil(t, got[i].Data)
					}
				}
				if r.Torn > 0 {
					torn++
				}
				finish(t, l)
			})
		}
		return stopped
	})
	require.NotZero(t, torn)
}

func TestMembersAreOfNewestConfiguration(t *testing.T) {
	one := []Member{{ID: "a", Addr: "host:1", Voter: true}}
	two := append(one, Member{ID: "b", Addr: "host:2"})
	both := raft.Configuration{Servers: []raft.Server{
		{ID: "a", Address: "host:1"}, {ID: "b", Address: "host:2", Suffrage: raft.Nonvoter},
	}}
	configure := func(index uint64, c raft.Configuration) *raft.Log {
		return &raft.Log{Index: index, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
	}
	files := vfs.NewMemory().Mount()
	read := func() []Member {
		r, err := Read(files, home, segments.Format{})
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Empty(t, r.Damage)
		return r.Members
	}
	l := open(t, files)
	require.NoError(t, l.Identify(crashIdentity))
	keep(t, l, configure(1, configuration), storagetest.Entry(2, 1))
	finish(t, l)
	require.Equal(t, one, read())
	l = open(t, files)
	keep(t, l, configure(3, both))
	finish(t, l)
	require.Equal(t, two, read())
	l = open(t, files)
	snapshot(t, l, 3, 1) // with a newer configuration, or the same
	finish(t, l)
	require.Equal(t, one, read())
}

func TestReaderRejectsOtherDirectories(t *testing.T) {
	files := vfs.NewMemory().Mount()
	_, err := Read(files, home, segments.Format{})
	require.True(t, isNotExist(err), err)
	require.NoError(t, files.MkdirAll(home))
	vfstest.Save(t, files, filepath.Join(home, "other"), []byte("content"))
	_, err = Read(files, home, segments.Format{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Read(withFile(t, earlierStore, nil), home, segments.Format{})
	require.ErrorIs(t, err, wire.ErrFormat)
	files = vfs.NewMemory().Mount()
	l := open(t, files)
	_, err = Read(files, home, segments.Format{})
	require.ErrorIs(t, err, fault.ErrDirInUse)
	finish(t, l)
}

func TestReaderReportsInterruptedFounding(t *testing.T) {
	files := vfs.NewMemory().Mount()
	f := founding(t, "state")
	f.State = func(io.Writer) error { return errors.New("broken") }
	require.Error(t, Found(files, home, segments.Format{}, f))
	r, err := Read(files, home, segments.Format{})
	require.NoError(t, err)
	require.True(t, r.Unfinished)
	require.Empty(t, r.Damage)
	require.NoError(t, r.Close())
}

// Damage in one place does not hide damage in another.
func TestReaderFindsEveryDamage(t *testing.T) {
	v := newVictim(t)
	disk := vfs.NewMemory()
	files := disk.Mount()
	for _, dir := range []string{segmentDir, snapshotDir} {
		require.NoError(t, files.MkdirAll(filepath.Join(home, dir)))
	}
	for name, whole := range v.image {
		vfstest.Save(t, files, name, whole)
	}
	snapshotName := filepath.Join(home, snapshotDir, v.snapshot+snapshotSuffix)
	damaged := []string{filepath.Join(home, identityFile), snapshotName, v.segments[0], v.segments[1]}
	for _, name := range damaged {
		require.True(t, disk.Damage(name, 50%int64(len(v.image[name]))))
	}
	require.True(t, disk.Damage(voteName, 5))
	require.True(t, disk.Damage(voteName, slotSize+5))
	r, err := Read(files, home, segments.Format{})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	all := errors.Join(r.Damage...).Error()
	for _, name := range append(damaged, voteName) {
		require.True(t, strings.Contains(all, name+" is damaged"), "%s in\n%s", name, all)
	}
	require.NotContains(t, all, v.segments[2])
	require.Len(t, r.Snapshots, 1, "the undamaged one")
}

func TestReaderEntriesEndAtDamage(t *testing.T) {
	v := newVictim(t)
	name := v.segments[1]
	damaged := bytes.Clone(v.image[name])
	damaged[v.ends[name][0]+batchHeader+2] ^= 1 // in the second batch
	files := withFile(t, "other", nil)
	for other, b := range v.image {
		if other == name {
			b = damaged
		}
		vfstest.Save(t, files, other, b)
	}
	r, err := Read(files, home, segments.Format{})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	all := errors.Join(r.Damage...).Error()
	require.Contains(t, all, name)
	require.NotContains(t, all, v.segments[2])
	require.EqualValues(t, 1, r.First)
	require.Less(t, r.Last, span(v.want)[1])
	require.Greater(t, r.Last, uint64(3))
	require.Equal(t, v.applied, r.Recorded, "the record is after the damage")
}

// The identity is made before any entry.
func TestLogWithoutIdentityIsDamage(t *testing.T) {
	v := newVictim(t)
	files := withFile(t, "other", nil)
	for name, whole := range v.image {
		if name != filepath.Join(home, identityFile) {
			vfstest.Save(t, files, name, whole)
		}
	}
	r, err := Read(files, home, segments.Format{})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.ErrorContains(t, errors.Join(r.Damage...), "it is missing")
}

func TestReaderNeedsNoLockFile(t *testing.T) {
	disk := vfs.NewForgetful()
	files := disk.Mount()
	require.NoError(t, Found(files, home, segments.Format{}, founding(t, "state")))
	require.NoError(t, files.Remove(filepath.Join(home, lockFile)))
	changes := disk.Changes()
	r, err := Read(files, home, segments.Format{})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, changes, disk.Changes())
	require.Empty(t, r.Damage)
	body, err := r.Body(&r.Snapshots[0])
	require.NoError(t, err)
	require.NoError(t, body.Close())
}

// A log that a snapshot of a later term has overtaken does not name the members, however far it reaches.
func TestMembersOfOvertakenLogAreIgnored(t *testing.T) {
	disk := outlived(t)
	files := disk.Mount()
	one := []Member{{ID: "c", Addr: "host:3", Voter: true}}
	l := &Log{fs: files, dir: home}
	require.NoError(t, l.takeSnapshot(8, 9, one, func(w io.Writer) error { _, err := w.Write(body(t, "state")); return err }))
	r, err := Read(files, home, segments.Format{})
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Empty(t, r.Damage)
	require.Equal(t, []uint64{0, 0, 9}, []uint64{r.First, r.Last, r.LastTerm})
	require.Equal(t, one, r.Members)
}
