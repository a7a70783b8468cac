// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// loseLog removes the segments of a directory's log, or empties them.
func loseLog(t *testing.T, disk *vfs.Memory, emptied bool) {
	t.Helper()
	files, dir := disk.Mount(), filepath.Join(trioDir, "log")
	names, err := files.ReadDir(dir)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		if !emptied {
			require.NoError(t, files.Remove(filepath.Join(dir, name)))
			continue
		}
		file, err := files.Create(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, file.Sync())
	}
	require.NoError(t, files.SyncDir(dir))
}

func requireLogLost(t *testing.T, disk *vfs.Memory, open func() error) {
	t.Helper()
	for range 2 { // neither call repairs anything
		err := open()
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "it had reached")
		require.ErrorContains(t, err, "join anew")
		_, _, err = InspectDir(vfs.With(t.Context(), disk.Mount()), trioDir)
		require.ErrorIs(t, err, ErrCorrupt)
		require.ErrorContains(t, err, "it had reached")
	}
}

func TestLoneNodeWithoutLogIsRejected(t *testing.T) {
	for _, emptied := range []bool{false, true} {
		for _, snapshot := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				cfg := Config{Dir: trioDir, Logger: slog.New(slog.DiscardHandler)}
				disk := vfs.NewForgetful()
				ctx := vfs.With(t.Context(), disk.Mount())
				n, err := Open(ctx, cfg)
				require.NoError(t, err)
				for i := range 30 {
					_, err := n.Put(t.Context(), fmt.Sprint(i), "v")
					require.NoError(t, err)
				}
				if snapshot {
					require.NoError(t, n.raft().raft.Snapshot().Error())
					_, err := n.Put(t.Context(), "behind", "v")
					require.NoError(t, err)
				}
				require.NoError(t, n.Close())
				loseLog(t, disk, emptied)
				requireLogLost(t, disk, func() error { _, err := Open(ctx, cfg); return err })
			})
		}
	}
}

// Two of three nodes have lost entries that they acknowledged. They neither elect a leader nor found a new cluster.
func TestMajorityWithoutLogsIsRejected(t *testing.T) {
	for _, emptied := range []bool{false, true} {
		inDiskTrio(t, func(c *diskTrio) {
			c.kill(2)
			c.put(0, 100, "v")
			time.Sleep(time.Second)
			for i := range 2 {
				c.kill(i)
			}
			for _, i := range []int{1, 2} {
				loseLog(c.T, c.disks[i], emptied)
				requireLogLost(c.T, c.disks[i], func() error { err := c.open(i); c.nodes[i] = nil; return err })
			}
			require.NoError(c, c.open(0))
		})
	}
}
