// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// inspect inspects a founder's directory, and makes sure that it is as it was.
func (s *site) inspect(t testing.TB) (coterie.Inspection, error) {
	t.Helper()
	changes := s.disk.Changes()
	in, err := coterie.Inspect(on(t, s.disk), s.Dir)
	require.Equal(t, changes, s.disk.Changes(), "an inspection changes nothing")
	return in, err
}

// lived returns a founder alone whose node has lived for a while: it has two snapshots, entries
// before and behind them, a lease, and what its Status was in the end.
func lived(t testing.TB) (*site, coterie.Status) {
	t.Helper()
	s := sites(1)[0]
	s.SnapshotEntries = 8
	n, err := coterie.Open(on(t, s.disk), s.Config)
	require.NoError(t, err)
	require.NoError(t, n.Ready(t.Context()))
	put(t, n, "leased", "v", coterie.WithLease(grant(t, n, time.Hour)))
	for i := range 30 {
		put(t, n, fmt.Sprint("k", i%5), fmt.Sprint(i))
		time.Sleep(time.Second)
	}
	status := n.Status()
	require.NoError(t, n.Close())
	return s, status
}

func TestAnInspectionFindsWhatANodeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, status := lived(t)
		in, err := s.inspect(t)
		require.NoError(t, err)
		require.Empty(t, in.Damage)
		require.Zero(t, in.Torn)
		require.False(t, in.Unfinished)
		require.Equal(t, s.Dir, in.Dir)
		require.Equal(t, []any{uint64(status.ClusterID), status.ID, status.Term}, []any{in.ClusterID, in.Member, in.Term})
		require.NotZero(t, in.Incarnation)
		require.Equal(t, []any{in.Term, status.ID}, []any{in.VoteTerm, in.VotedFor})
		require.Equal(t, status.Applied, in.Applied)
		require.Equal(t, []uint64{1, status.Durable, status.Durable, status.Term}, []uint64{in.FirstIndex, in.LastIndex, in.Durable, in.LastTerm})
		require.Equal(t, []int64{status.Revision, status.CompactRevision}, []int64{in.Revision, in.CompactRevision})
		require.Equal(t, []int{status.Keys, status.Leases}, []int{in.Keys, in.Leases})
		require.Equal(t, []coterie.InspectedMember{{
			ID: status.ID, Addr: s.Addr, Voter: true, Name: s.Name, Incarnation: in.Incarnation,
		}}, in.Members)
		require.NotZero(t, in.Epoch)
		require.False(t, in.Forgetful)
		require.Len(t, in.Snapshots, 2)
		require.Greater(t, in.Snapshots[0].Index, in.Snapshots[1].Index)
		require.Greater(t, in.Snapshots[0].Revision, in.Snapshots[1].Revision)
		require.LessOrEqual(t, in.Snapshots[0].Revision, in.Revision)
		require.NotZero(t, in.Snapshots[0].Size)
		require.Equal(t, status.Revision, s.open(t).Status().Revision, "what Open begins with")
	})
}

func TestAnInspectionOfARestoredDirectory(t *testing.T) {
	b := smallBackup(t)
	all := sites(3)
	require.NoError(t, all[1].restore(t, b))
	in, err := all[1].inspect(t)
	require.NoError(t, err)
	require.Equal(t, []uint64{0, 0, 1, 2, 1}, []uint64{in.FirstIndex, in.LastIndex, in.LastTerm, in.Durable, in.Term})
	require.EqualValues(t, 3, in.Revision)
	require.Len(t, in.Members, 3)
	require.Len(t, in.Snapshots, 1)

	s := sites(1)[0]
	s.disk.FreezeAfter(8)
	require.Error(t, s.restore(t, b))
	s.disk.Kill()
	in, err = s.inspect(t)
	require.NoError(t, err)
	require.True(t, in.Unfinished)
	require.Zero(t, in.Member)
}

// elsewhere makes the directory one of something else, as /var is.
func (s *site) elsewhere(t testing.TB) {
	t.Helper()
	files := s.disk.Mount()
	for _, dir := range []string{"/log", "/snapshots"} {
		require.NoError(t, files.MkdirAll(s.Dir+dir))
		f, err := files.Create(s.Dir + dir + "/file")
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

func TestWhatCannotBeInspected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sites(1)[0]
		_, err := s.inspect(t)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, s.disk.Mount().MkdirAll(s.Dir))
		_, err = s.inspect(t)
		require.ErrorIs(t, err, fs.ErrNotExist, "an empty directory is no node's")
		s.elsewhere(t)
		_, err = s.inspect(t)
		require.ErrorIs(t, err, fs.ErrNotExist, "nor is what has directories of the same names")
		s = sites(1)[0]
		n, err := coterie.Open(on(t, s.disk), s.Config)
		require.NoError(t, err)
		_, err = coterie.Inspect(on(t, s.disk), s.Dir)
		require.ErrorIs(t, err, coterie.ErrDirInUse)
		require.NoError(t, n.Close())
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(on(t, s.disk))
		cancel(enough)
		_, err = coterie.Inspect(ctx, s.Dir)
		require.ErrorIs(t, err, enough)
		require.NotErrorIs(t, err, coterie.ErrCorrupt)
	})
}

// files returns a founder's files whose names contain this, and how long they are without room for
// more.
func (s *site) files(t testing.TB, part string) map[string]int64 {
	t.Helper()
	found, files := map[string]int64{}, s.disk.Mount()
	for _, dir := range []string{s.Dir, s.Dir + "/log", s.Dir + "/snapshots"} {
		names, err := files.ReadDir(dir)
		require.NoError(t, err)
		for _, name := range names {
			f, err := files.Open(dir + "/" + name)
			if err == nil && strings.Contains(dir+"/"+name, part) {
				size, err := f.Size()
				require.NoError(t, err)
				b := make([]byte, size)
				if size > 0 {
					_, err = f.ReadAt(b, 0)
					require.NoError(t, err)
				}
				found[dir+"/"+name] = int64(len(bytes.TrimRight(b, "\x00")))
			}
		}
	}
	return found
}

func TestAnInspectionTellsWhatIsDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, status := lived(t)
		parts := []string{"/identity", "/vote", ".snap", ".log"}
		for _, part := range parts {
			files := s.files(t, part)
			require.NotEmpty(t, files, part)
			for name, size := range files {
				var places []int64
				for at := int64(0); at < size; at += 1 + size/150 {
					places = append(places, at)
				}
				found, torn := 0, 0
				for _, at := range append(places, size-1) { // the last is of what a crash may tear, but was durable
					require.True(t, s.disk.Damage(name, at))
					in, err := s.inspect(t)
					require.True(t, s.disk.Damage(name, at), "which mends it")
					switch {
					case in.Torn > 0 && err == nil:
						torn++
					case err != nil:
						require.ErrorIs(t, err, coterie.ErrCorrupt)
						require.Equal(t, name, in.Damage[0].File, "at %d", at)
						require.ErrorContains(t, err, name)
						require.NotEmpty(t, in.Damage[0].Reason)
						require.Equal(t, part == "/identity", in.Member != status.ID, "what can be read is told")
						found++
					default:
						require.Contains(t, []string{"/vote", ".log"}, part, "at %d of %s", at, name)
					}
				}
				t.Logf("%s: of %d places %d are damage, %d as if torn", name, len(places)+1, found, torn)
				if part == "/identity" || part == ".snap" {
					require.Equal(t, len(places)+1, found)
				}
				if part == ".log" {
					require.Greater(t, found, len(places)/2)
					require.Zero(t, torn)
				}
			}
		}
		_, err := s.inspect(t)
		require.NoError(t, err)
	})
}

// The log still reaches back to the snapshot before, which is kept for this.
func TestAnInspectionGoesOnFromTheSnapshotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, status := lived(t)
		whole, err := s.inspect(t)
		require.NoError(t, err)
		require.True(t, s.disk.Damage(whole.Snapshots[0].File, 100))
		in, err := s.inspect(t)
		require.ErrorIs(t, err, coterie.ErrCorrupt)
		require.Len(t, in.Damage, 1)
		require.Zero(t, in.Snapshots[0].Revision)
		require.Equal(t, status.Revision, in.Revision)
		require.Equal(t, whole.Keys, in.Keys)
	})
}

func TestAnInspectionOfABackup(t *testing.T) {
	n := open(t)
	put(t, n, "k", "v", coterie.WithLease(grant(t, n, time.Hour)))
	h, b := backup(t, n)
	in, err := coterie.InspectBackup(t.Context(), bytes.NewReader(b))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), in.Taken, time.Hour)
	in.Taken = time.Time{}
	require.Equal(t, coterie.BackupInspection{
		Cluster: "coterie", ClusterID: uint64(h.ClusterID), Member: h.MemberID, Revision: h.Revision, CompactRevision: -1,
		Keys: 1, Leases: 1, Bytes: int64(len(b)),
	}, in)
	for i := range b {
		_, err := coterie.InspectBackup(t.Context(), bytes.NewReader(b[:i]))
		require.ErrorIs(t, err, coterie.ErrCorrupt)
	}
	broken := errors.New("broken")
	_, err = coterie.InspectBackup(t.Context(), iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, coterie.ErrCorrupt)
}

func TestAnInspectionThatHangsEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := lived(t)
		held, err := coterie.Open(on(t, s.disk), s.Config) // so that the lock is waited for
		require.NoError(t, err)
		defer held.Close()
		ctx, cancel := context.WithTimeout(vfs.With(t.Context(), s.disk.Mount()), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err = coterie.Inspect(ctx, s.Dir)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 50*time.Millisecond, time.Since(begin))
		time.Sleep(time.Minute) // what was left in the background goes
	})
}
