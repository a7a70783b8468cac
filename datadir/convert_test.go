// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/boltlog"
	"github.com/coterie-kv/coterie/datadir"
)

// bolt is the storage of package boltlog.
var bolt = boltlog.New(boltlog.Options{})

// realRun returns the configuration of a node in a directory of the operating system, and its last Status. The
// directory has two snapshots, entries before and after them, and a lease.
func realRun(t *testing.T, storage coterie.Storage) (coterie.Config, coterie.Status) {
	t.Helper()
	cfg := coterie.Config{Name: "a", Dir: filepath.Join(t.TempDir(), "data"), Storage: storage, SnapshotEntries: 8}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	put(t, n, "leased", "v", coterie.WithLease(grant(t, n, time.Hour)))
	for i := 0; len(snapshotFiles(t, cfg.Dir)) < 2; i++ {
		require.Less(t, i, 2000)
		put(t, n, fmt.Sprint("k", i%5), fmt.Sprint(i))
	}
	for i := range 5 {
		put(t, n, "late", fmt.Sprint(i))
	}
	status := n.Status()
	require.NoError(t, n.Close())
	return cfg, status
}

func snapshotFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.snap"))
	require.NoError(t, err)
	return names
}

// inspectDir inspects an undamaged directory of the operating system.
func inspectDir(t *testing.T, dir string) datadir.Inspection {
	t.Helper()
	in, err := datadir.Inspect(t.Context(), dir)
	require.NoError(t, err)
	return in
}

// tree returns the names and contents of all files below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		all[name] = string(b)
		return err
	}))
	return all
}

func TestConvertBothWays(t *testing.T) {
	cfg, status := realRun(t, nil)
	before := inspectDir(t, cfg.Dir)
	require.Equal(t, "segments", before.Storage)
	require.Equal(t, status.Applied, before.AppliedIndex)
	_, err := datadir.Convert(t.Context(), cfg.Dir, nil)
	require.ErrorIs(t, err, datadir.ErrSameStorage)
	require.ErrorContains(t, err, "has segments")
	for round, to := range []coterie.Storage{bolt, nil} {
		from, name := "segments", "bolt"
		if to == nil {
			from, name = name, from
		}
		old := tree(t, cfg.Dir)
		done, err := datadir.Convert(t.Context(), cfg.Dir, to)
		require.NoError(t, err)
		require.Equal(t, datadir.Conversion{
			Dir: cfg.Dir, From: from, To: name, Kept: done.Kept, FirstIndex: before.FirstIndex, LastIndex: before.LastIndex, AppliedIndex: before.AppliedIndex,
		}, done)
		require.Equal(t, cfg.Dir, filepath.Dir(done.Kept))
		require.Contains(t, done.String(), fmt.Sprintf("converted: %s from %s to %s; the log has the entries %d to %d\nkept: the old files, in %s",
			cfg.Dir, from, name, before.FirstIndex, before.LastIndex, done.Kept))
		for file, b := range tree(t, done.Kept) {
			relative, err := filepath.Rel(done.Kept, file)
			require.NoError(t, err)
			require.Equal(t, old[filepath.Join(cfg.Dir, relative)], b, "the old files are kept: %s", relative)
		}
		after := inspectDir(t, cfg.Dir)
		require.Equal(t, name, after.Storage)
		require.Equal(t, before.Snapshots, after.Snapshots)
		after.Storage = before.Storage
		require.Equal(t, before, after)

		cfg.Storage = map[coterie.Storage]coterie.Storage{nil: bolt, bolt: nil}[to]
		_, err = coterie.Open(t.Context(), cfg)
		require.ErrorIs(t, err, coterie.ErrStorageMismatch)
		cfg.Storage = to
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		require.NoError(t, n.Ready(t.Context()))
		require.Equal(t, status.Revision+int64(round), n.Status().Revision)
		put(t, n, "late", name)
		require.NoError(t, n.Close())
		before = inspectDir(t, cfg.Dir)
		before.Storage = from
		_, err = datadir.Convert(t.Context(), cfg.Dir, to)
		require.ErrorIs(t, err, datadir.ErrSameStorage)
	}
	kept, err := filepath.Glob(filepath.Join(cfg.Dir, "*-*Z"))
	require.NoError(t, err)
	require.Len(t, kept, 2, "the old files of each conversion")
}

// Each node of a cluster is converted while the others go on, and then each one back.
func TestConvertClusterNodeByNode(t *testing.T) {
	network := coterie.NewMemoryNetwork()
	var founders []coterie.Founder
	for i := range 3 {
		founders = append(founders, coterie.Founder{Name: fmt.Sprint("c", i), Addr: fmt.Sprintf("c%d:1", i)})
	}
	cfgs, nodes := make([]coterie.Config, 3), make([]*coterie.Node, 3)
	open := func(i int) {
		n, err := coterie.Open(t.Context(), cfgs[i])
		require.NoError(t, err)
		nodes[i] = n
	}
	for i, f := range founders {
		cfgs[i] = coterie.Config{
			Name: f.Name, Addr: f.Addr, Advertise: f.Addr, Founders: founders, Network: network, Dir: filepath.Join(t.TempDir(), "data"),
			ElectionTimeout: 200 * time.Millisecond, SnapshotEntries: 20,
		}
		open(i)
	}
	t.Cleanup(func() {
		for _, n := range nodes {
			require.NoError(t, n.Close())
		}
	})
	readyAll(t, nodes)
	written := 0
	write := func(n *coterie.Node) {
		for range 10 {
			put(t, n, fmt.Sprint("k", written), "v")
			written++
		}
	}
	for _, to := range []coterie.Storage{bolt, nil} {
		for i := range nodes {
			write(nodes[i])
			require.NoError(t, nodes[i].Close())
			write(nodes[(i+1)%3])
			before := inspectDir(t, cfgs[i].Dir)
			_, err := datadir.Convert(t.Context(), cfgs[i].Dir, to)
			require.NoError(t, err)
			require.Equal(t, before.LastIndex, inspectDir(t, cfgs[i].Dir).LastIndex)
			write(nodes[(i+2)%3])
			cfgs[i].Storage = to
			open(i)
			ready(t, nodes[i])
			r, err := nodes[i].Get(t.Context(), "k", coterie.WithPrefix(), coterie.WithCountOnly())
			require.NoError(t, err)
			require.EqualValues(t, written, r.Count)
		}
	}
	rev := get(t, nodes[0], "k0").Revision
	want, err := nodes[0].Hash(t.Context(), rev)
	require.NoError(t, err)
	for _, n := range nodes {
		require.NoError(t, n.Ready(t.Context()))
		h, err := n.Hash(t.Context(), rev)
		require.NoError(t, err)
		require.Equal(t, want.Hash, h.Hash)
		require.Equal(t, 3, n.Status().Voters)
	}
}

// other returns the storage that a directory of a storage can be converted to.
func other(storage coterie.Storage) coterie.Storage {
	if storage == nil {
		return bolt
	}
	return nil
}

func eachStorage(t *testing.T, fn func(t *testing.T, storage coterie.Storage)) {
	for name, storage := range map[string]coterie.Storage{"segments": nil, "bolt": bolt} {
		t.Run(name, func(t *testing.T) { fn(t, storage) })
	}
}

func TestConvertRejectsAndChangesNothing(t *testing.T) {
	eachStorage(t, func(t *testing.T, storage coterie.Storage) {
		cfg, _ := realRun(t, storage)
		rejected := func(ctx context.Context, dir string, want error) error {
			t.Helper()
			before := tree(t, filepath.Dir(cfg.Dir))
			_, err := datadir.Convert(ctx, dir, other(storage))
			require.ErrorIs(t, err, want)
			require.Equal(t, before, tree(t, filepath.Dir(cfg.Dir)))
			return err
		}
		missing := filepath.Join(t.TempDir(), "missing")
		rejected(t.Context(), missing, fs.ErrNotExist)
		require.NoDirExists(t, missing)
		rejected(t.Context(), t.TempDir(), fs.ErrNotExist)

		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(enough)
		rejected(ctx, cfg.Dir, enough)

		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		_, err = datadir.Convert(t.Context(), cfg.Dir, other(storage))
		require.ErrorIs(t, err, coterie.ErrDirInUse)
		require.NoError(t, n.Close())

		// All damage is reported.
		damaged := snapshotFiles(t, cfg.Dir)
		if storage == nil {
			damaged = append(damaged, filepath.Join(cfg.Dir, "identity"))
		}
		for _, name := range damaged {
			flip(t, name, 40)
		}
		err = rejected(t.Context(), cfg.Dir, coterie.ErrCorrupt)
		for _, name := range damaged {
			require.ErrorContains(t, err, name)
			flip(t, name, 40)
		}
		if storage != nil {
			damageIdentity(t, cfg.Dir)
			require.ErrorContains(t, rejected(t.Context(), cfg.Dir, coterie.ErrCorrupt), "log.db")
			damageIdentity(t, cfg.Dir)
		}

		// Another version has written a file.
		flip(t, damaged[0], 7)
		rejected(t.Context(), cfg.Dir, coterie.ErrFormat)
		flip(t, damaged[0], 7)
		_, err = datadir.Convert(t.Context(), cfg.Dir, other(storage))
		require.NoError(t, err)
	})
}

// A directory that has lost all files but its snapshots has no storage that Convert could compare with the new one.
func TestConvertRejectsLoneSnapshots(t *testing.T) {
	eachStorage(t, func(t *testing.T, storage coterie.Storage) {
		cfg, _ := realRun(t, storage)
		files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"))
		require.NoError(t, err)
		for _, name := range files {
			if filepath.Base(name) != "snapshots" && filepath.Base(name) != "lock" {
				require.NoError(t, os.RemoveAll(name))
			}
		}
		before := tree(t, cfg.Dir)
		for _, to := range []coterie.Storage{nil, bolt} {
			_, err = datadir.Convert(t.Context(), cfg.Dir, to)
			require.ErrorIs(t, err, coterie.ErrCorrupt)
		}
		require.Equal(t, before, tree(t, cfg.Dir))
	})
}

// A damaged note does not say which storage the directory has. Nothing is changed.
func TestDamagedNoteOfConversionIsReported(t *testing.T) {
	cfg, _ := realRun(t, nil)
	note := filepath.Join(cfg.Dir, "conversion")
	require.NoError(t, os.WriteFile(note, []byte("damaged"), 0o600))
	before := tree(t, cfg.Dir)
	in, err := datadir.Inspect(t.Context(), cfg.Dir)
	require.ErrorIs(t, err, coterie.ErrCorrupt)
	require.ErrorContains(t, err, note)
	require.Equal(t, cfg.Dir, in.Dir)
	require.Len(t, in.DamagedFiles, 1)
	require.Equal(t, note, in.DamagedFiles[0].File)
	_, err = datadir.Recover(t.Context(), cfg.Dir)
	errs := []error{err}
	for _, storage := range []coterie.Storage{nil, bolt} {
		_, err = datadir.Convert(t.Context(), cfg.Dir, storage)
		errs = append(errs, err)
		cfg.Storage = storage
		_, err = coterie.Open(t.Context(), cfg)
		errs = append(errs, err)
	}
	for _, err := range errs {
		require.ErrorIs(t, err, coterie.ErrCorrupt)
		require.ErrorContains(t, err, note)
	}
	require.Equal(t, before, tree(t, cfg.Dir))
}

// flip changes the lowest bits of a byte of a file.
func flip(t *testing.T, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[at] ^= 3
	require.NoError(t, os.WriteFile(name, b, 0o600))
}

// damageIdentity changes the name of the identity in each page of log.db that has it, or undoes that.
func damageIdentity(t *testing.T, dir string) {
	t.Helper()
	name := filepath.Join(dir, "log.db")
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	names := []string{"coterie.identity", "coterie.identitx"}
	if !bytes.Contains(b, []byte(names[0])) {
		names[0], names[1] = names[1], names[0]
	}
	require.NoError(t, os.WriteFile(name, bytes.ReplaceAll(b, []byte(names[0]), []byte(names[1])), 0o600))
}

// A directory with files of both storages may be a copy that was restored over another one. Nothing says which of the
// two is the newer one.
func TestMixedDirectoryIsRejected(t *testing.T) {
	cfg, _ := realRun(t, nil)
	elsewhere, _ := realRun(t, bolt)
	b, err := os.ReadFile(filepath.Join(elsewhere.Dir, "log.db"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, "log.db"), b, 0o600))
	before := tree(t, cfg.Dir)
	_, err = datadir.Inspect(t.Context(), cfg.Dir)
	errs := []error{err}
	_, err = datadir.Recover(t.Context(), cfg.Dir)
	errs = append(errs, err)
	for _, storage := range []coterie.Storage{nil, bolt} {
		_, err = datadir.Convert(t.Context(), cfg.Dir, storage)
		errs = append(errs, err)
		cfg.Storage = storage
		_, err = coterie.Open(t.Context(), cfg)
		errs = append(errs, err)
	}
	for _, err := range errs {
		require.ErrorIs(t, err, coterie.ErrStorageMismatch)
		require.ErrorContains(t, err, "files of the formats segments and bolt")
		require.ErrorContains(t, err, filepath.Join(cfg.Dir, "log.db"))
	}
	require.Equal(t, before, tree(t, cfg.Dir))
}

func restore(t *testing.T, cfg coterie.Config, b []byte) error {
	t.Helper()
	return coterie.RestoreBackup(t.Context(), bytes.NewReader(b), cfg)
}

func TestConvertRestoredDirectory(t *testing.T) {
	b := smallBackup(t)
	eachStorage(t, func(t *testing.T, storage coterie.Storage) {
		cfg := coterie.Config{Name: "a", Dir: filepath.Join(t.TempDir(), "data"), Storage: storage}
		require.NoError(t, restore(t, cfg, b))
		before := inspectDir(t, cfg.Dir)
		done, err := datadir.Convert(t.Context(), cfg.Dir, other(storage))
		require.NoError(t, err)
		require.Contains(t, done.String(), "the log has no entries")
		after := inspectDir(t, cfg.Dir)
		before.Storage, after.Storage = "", ""
		require.Equal(t, before, after)
		cfg.Storage = other(storage)
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		ready(t, n)
		require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
		require.NoError(t, n.Close())
	})
}

// A log that a snapshot has overtaken is copied as it is. Open drops it then, with each storage.
func TestConvertRecoveredDirectory(t *testing.T) {
	eachStorage(t, func(t *testing.T, storage coterie.Storage) {
		cfg, status := realRun(t, storage)
		_, err := datadir.Recover(t.Context(), cfg.Dir)
		require.NoError(t, err)
		before := inspectDir(t, cfg.Dir)
		require.Zero(t, before.LastIndex)
		_, err = datadir.Convert(t.Context(), cfg.Dir, other(storage))
		require.NoError(t, err)
		after := inspectDir(t, cfg.Dir)
		before.Storage, after.Storage = "", ""
		require.Equal(t, before, after)
		cfg.Storage = other(storage)
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		ready(t, n)
		require.Equal(t, status.Revision, n.Status().Revision)
		require.NoError(t, n.Close())
	})
}

// Convert keeps the note of a divergence, which is no damage for Convert and for Recover.
func TestConvertKeepsNoteOfDivergence(t *testing.T) {
	eachStorage(t, func(t *testing.T, storage coterie.Storage) {
		cfg, _ := realRun(t, storage)
		note := filepath.Join(cfg.Dir, "diverged")
		require.NoError(t, os.WriteFile(note, []byte("a reason\n"), 0o600))
		_, err := datadir.Convert(t.Context(), cfg.Dir, other(storage))
		require.NoError(t, err)
		in, err := datadir.Inspect(t.Context(), cfg.Dir)
		require.ErrorIs(t, err, coterie.ErrCorrupt)
		require.ErrorContains(t, err, "a reason (noted in "+note+")")
		require.Len(t, in.DamagedFiles, 1)
		cfg.Storage = other(storage)
		_, err = coterie.Open(t.Context(), cfg)
		require.ErrorContains(t, err, "a reason")
		_, err = datadir.Recover(t.Context(), cfg.Dir)
		require.NoError(t, err)
	})
}

// On the disk in memory a conversion to bolt cannot succeed, but it can fail early.
func TestConvertFailsBeforeItChangesAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, status := longRun(t)
		before, err := s.inspect(t)
		require.NoError(t, err)
		s.disk.Fill(true)
		_, err = datadir.Convert(on(t, s.disk), s.Dir, bolt)
		require.ErrorIs(t, err, coterie.ErrNoSpace)
		s.disk.Fill(false)
		_, err = datadir.Convert(on(t, s.disk), s.Dir, bolt)
		require.ErrorContains(t, err, "needs a file system of the operating system")
		after, err := s.inspect(t)
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.Equal(t, status.Revision, s.open(t).Status().Revision)
	})
	s := sites(1)[0]
	s.disk.FreezeAfter(8)
	require.Error(t, s.restore(t, smallBackup(t)))
	s.disk.Kill()
	changes := s.disk.Changes()
	_, err := datadir.Convert(on(t, s.disk), s.Dir, bolt)
	require.ErrorIs(t, err, coterie.ErrRestoreUnfinished)
	require.LessOrEqual(t, s.disk.Changes(), changes+1, "at most the lock is made")
}
