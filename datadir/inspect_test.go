// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestInspectFindsEverythingANodeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, status := longRun(t)
		in, err := s.inspect(t)
		require.NoError(t, err)
		require.Empty(t, in.DamagedFiles)
		require.Zero(t, in.TornTailBytes)
		require.False(t, in.RestoreUnfinished)
		require.Equal(t, s.Dir, in.Dir)
		require.Equal(t, []any{status.ClusterID, status.ID, status.Term}, []any{in.ClusterID, in.Member, in.Term})
		require.NotZero(t, in.Incarnation)
		require.Equal(t, []any{in.Term, status.ID}, []any{in.VoteTerm, in.VotedFor})
		require.Equal(t, status.Applied, in.AppliedIndex)
		require.Equal(t, []uint64{1, status.Durable, status.Durable, status.Term}, []uint64{in.FirstIndex, in.LastIndex, in.DurableIndex, in.LastTerm})
		require.Equal(t, []int64{status.Revision, status.CompactRevision}, []int64{in.Revision, in.CompactRevision})
		require.Equal(t, []int{status.Keys, status.Leases}, []int{in.Keys, in.Leases})
		require.Equal(t, []datadir.Member{{
			ID: status.ID, Addr: s.Addr, Voter: true, Name: s.Name, Incarnation: in.Incarnation,
		}}, in.Members)
		require.NotZero(t, in.Epoch)
		require.False(t, in.MayLackAcknowledged)
		require.Len(t, in.Snapshots, 2)
		require.Greater(t, in.Snapshots[0].Index, in.Snapshots[1].Index)
		require.Greater(t, in.Snapshots[0].Revision, in.Snapshots[1].Revision)
		require.LessOrEqual(t, in.Snapshots[0].Revision, in.Revision)
		require.NotZero(t, in.Snapshots[0].Size)
		require.Equal(t, status.Revision, s.open(t).Status().Revision, "Open continues with this revision")
	})
}

func TestInspectRestoredDirectory(t *testing.T) {
	b := smallBackup(t)
	all := sites(3)
	require.NoError(t, all[1].restore(t, b))
	in, err := all[1].inspect(t)
	require.NoError(t, err)
	require.Equal(t, []uint64{0, 0, 1, 2, 1}, []uint64{in.FirstIndex, in.LastIndex, in.LastTerm, in.DurableIndex, in.Term})
	require.EqualValues(t, 3, in.Revision)
	require.Len(t, in.Members, 3)
	require.Len(t, in.Snapshots, 1)

	s := sites(1)[0]
	s.disk.FreezeAfter(8)
	require.Error(t, s.restore(t, b))
	s.disk.Kill()
	in, err = s.inspect(t)
	require.NoError(t, err)
	require.True(t, in.RestoreUnfinished)
	require.Zero(t, in.Member)
}

// elsewhere makes the directory one of another program, with subdirectories of the same names as a node's.
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

func TestInspectErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sites(1)[0]
		_, err := s.inspect(t)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NoError(t, s.disk.Mount().MkdirAll(s.Dir))
		_, err = s.inspect(t)
		require.ErrorIs(t, err, fs.ErrNotExist, "an empty directory belongs to no node")
		s.elsewhere(t)
		_, err = s.inspect(t)
		require.ErrorIs(t, err, fs.ErrNotExist, "neither does a directory of another program")
		s = sites(1)[0]
		n, err := coterie.Open(on(t, s.disk), s.Config)
		require.NoError(t, err)
		_, err = datadir.Inspect(on(t, s.disk), s.Dir)
		require.ErrorIs(t, err, coterie.ErrDirInUse)
		require.NoError(t, n.Close())
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(on(t, s.disk))
		cancel(enough)
		_, err = datadir.Inspect(ctx, s.Dir)
		require.ErrorIs(t, err, enough)
		require.NotErrorIs(t, err, coterie.ErrCorrupt)
	})
}

// files returns the files of a founder with part in their names, with their sizes without reserved space.
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

func TestInspectReportsDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, status := longRun(t)
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
				for _, at := range append(places, size-1) { // the last byte was durable, though a crash may tear the bytes after it
					require.True(t, s.disk.Damage(name, at))
					in, err := s.inspect(t)
					require.True(t, s.disk.Damage(name, at), "the second flip repairs it")
					switch {
					case in.TornTailBytes > 0 && err == nil:
						torn++
					case err != nil:
						require.ErrorIs(t, err, coterie.ErrCorrupt)
						require.Equal(t, name, in.DamagedFiles[0].File, "at %d", at)
						require.ErrorContains(t, err, name)
						require.NotEmpty(t, in.DamagedFiles[0].Reason)
						require.Equal(t, part == "/identity", in.Member != status.ID, "everything that can be read is reported")
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

// The previous snapshot is kept for this, and the log still reaches back to it.
func TestInspectUsesThePreviousSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, status := longRun(t)
		whole, err := s.inspect(t)
		require.NoError(t, err)
		require.True(t, s.disk.Damage(whole.Snapshots[0].File, 100))
		in, err := s.inspect(t)
		require.ErrorIs(t, err, coterie.ErrCorrupt)
		require.Len(t, in.DamagedFiles, 1)
		require.Zero(t, in.Snapshots[0].Revision)
		require.Equal(t, status.Revision, in.Revision)
		require.Equal(t, whole.Keys, in.Keys)
	})
}

func TestInspectBackup(t *testing.T) {
	n := open(t)
	put(t, n, "k", "v", coterie.WithLease(grant(t, n, time.Hour)))
	h, b := backup(t, n)
	in, err := datadir.InspectBackup(t.Context(), bytes.NewReader(b))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), in.Taken, time.Hour)
	in.Taken = time.Time{}
	require.Equal(t, datadir.BackupInspection{
		Cluster: "coterie", ClusterID: h.ClusterID, Member: h.MemberID, Revision: h.Revision, CompactRevision: -1,
		Keys: 1, Leases: 1, Bytes: int64(len(b)),
	}, in)
	for i := range b {
		_, err := datadir.InspectBackup(t.Context(), bytes.NewReader(b[:i]))
		require.ErrorIs(t, err, coterie.ErrCorrupt)
	}
	broken := errors.New("broken")
	_, err = datadir.InspectBackup(t.Context(), iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
	require.NotErrorIs(t, err, coterie.ErrCorrupt)
}

func TestInspectEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := longRun(t)
		held, err := coterie.Open(on(t, s.disk), s.Config) // Inspect waits for the lock
		require.NoError(t, err)
		defer held.Close()
		ctx, cancel := context.WithTimeout(vfs.With(t.Context(), s.disk.Mount()), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err = datadir.Inspect(ctx, s.Dir)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 50*time.Millisecond, time.Since(begin))
		time.Sleep(time.Minute) // the work in the background ends
	})
}

// A cutShort calls end when a file of a kind is opened.
type cutShort struct {
	vfs.FS
	kind string
	end  func()
}

func (f cutShort) Open(name string) (vfs.File, error) {
	if strings.HasSuffix(name, f.kind) {
		f.end()
	}
	return f.FS.Open(name)
}

func TestEndedContextIsNoDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := longRun(t)
		enough := errors.New("enough")
		for _, kind := range []string{".snap", ".log", "identity", "vote"} {
			for name, read := range map[string]func(ctx context.Context) error{
				"inspect": func(ctx context.Context) error { _, err := datadir.Inspect(ctx, s.Dir); return err },
				"recover": func(ctx context.Context) error { _, err := datadir.Recover(ctx, s.Dir); return err },
			} {
				changes := s.disk.Changes()
				ctx, cancel := context.WithCancelCause(t.Context())
				err := read(vfs.With(ctx, cutShort{s.disk.Mount(), kind, func() { cancel(enough) }}))
				require.ErrorIs(t, err, enough, "%s %s", name, kind)
				require.NotErrorIs(t, err, coterie.ErrCorrupt, "%s %s", name, kind)
				require.Equal(t, changes, s.disk.Changes())
				synctest.Wait() // the work in the background ends
			}
		}
	})
}
