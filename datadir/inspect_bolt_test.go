// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

func TestInspectBoltDirectory(t *testing.T) {
	cfg, status := realRun(t, bolt)
	before := tree(t, cfg.Dir)
	in := inspectDir(t, cfg.Dir)
	require.Equal(t, before, tree(t, cfg.Dir), "an inspection changes nothing")
	require.Equal(t, "bolt", in.Storage)
	require.Equal(t, []any{status.ClusterID, status.ID, status.Term}, []any{in.ClusterID, in.Member, in.Term})
	require.Equal(t, []any{in.Term, status.ID}, []any{in.VoteTerm, in.VotedFor})
	require.Equal(t, []uint64{status.Applied, status.Durable, status.Durable}, []uint64{in.AppliedIndex, in.LastIndex, in.DurableIndex})
	require.Equal(t, []int{status.Keys, status.Leases}, []int{in.Keys, in.Leases})
	require.Equal(t, status.Revision, in.Revision)
	require.Len(t, in.Members, 1)
	require.Len(t, in.Snapshots, 2)
	require.False(t, in.MayLackAcknowledged)

	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	_, err = datadir.Inspect(t.Context(), cfg.Dir)
	require.ErrorIs(t, err, coterie.ErrDirInUse)
	require.NoError(t, n.Close())
}

// A flipped bit is reported with the name of the file, or is in a part of a page that is not used.
func TestInspectReportsDamageOfBolt(t *testing.T) {
	cfg, _ := realRun(t, bolt)
	whole := inspectDir(t, cfg.Dir)
	name := filepath.Join(cfg.Dir, "log.db")
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	found, harmless := 0, 0
	for at := 0; at < len(b); at += 1 + len(b)/300 {
		b[at] ^= 1
		require.NoError(t, os.WriteFile(name, b, 0o600))
		in, err := datadir.Inspect(t.Context(), cfg.Dir)
		if err == nil {
			require.Equal(t, whole, in, "at %d", at)
			harmless++
		} else {
			require.NotEmpty(t, in.DamagedFiles, "at %d: %v", at, err)
			require.ErrorIs(t, err, coterie.ErrCorrupt)
			require.Equal(t, name, in.DamagedFiles[0].File, "at %d", at)
			require.NotEmpty(t, in.DamagedFiles[0].Reason)
			found++
		}
		b[at] ^= 1
	}
	t.Logf("of %d places %d are damage", found+harmless, found)
	require.NotZero(t, found)
	require.NoError(t, os.WriteFile(name, b, 0o600))
	require.Equal(t, whole, inspectDir(t, cfg.Dir))

	// log.extent says that there was a file.
	require.NoError(t, os.Remove(name))
	in, err := datadir.Inspect(t.Context(), cfg.Dir)
	require.ErrorIs(t, err, coterie.ErrCorrupt)
	require.Equal(t, name, in.DamagedFiles[0].File)
	_, err = datadir.Recover(t.Context(), cfg.Dir)
	require.ErrorIs(t, err, coterie.ErrCorrupt)
}
