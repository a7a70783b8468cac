// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// hostDir is the environment variable with the directory of the nodes of TestHost.
const hostDir = "COTERIE_HOST_DIR"

// TestHost is the process that TestNodeOutlivesDescriptorShortage starts, and does nothing otherwise. It opens three
// nodes, and uses up all file descriptors for a while.
func TestHost(t *testing.T) {
	dir := os.Getenv(hostDir)
	if dir == "" {
		t.Skip("for TestNodeOutlivesDescriptorShortage")
	}
	nodes := hosted(t, dir, nil)
	n := nodes[0]
	big := string(make([]byte, 1<<20))
	for round := range 2 {
		release := takeDescriptors(t)
		refused := 0
		for refused < len(nodes) { // until each node needs the next segment of its log
			refused = 0
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, _ = n.Put(ctx, "k", big)
			cancel()
			for _, n := range nodes {
				require.NoError(t, n.Err())
				if s := n.Status(); s.DiskRefused > time.Second {
					require.ErrorIs(t, s.DiskError, syscall.EMFILE)
					refused++
				}
			}
		}
		_, err := n.Put(t.Context(), "k", "v")
		require.ErrorIs(t, err, coterie.ErrNoSpace)
		require.ErrorIs(t, err, syscall.EMFILE)
		release()
		for err != nil {
			_, err = n.Put(t.Context(), "k", fmt.Sprint(round))
		}
		for _, n := range nodes {
			require.NoError(t, n.Ready(t.Context()))
			require.Equal(t, fmt.Sprint(round), get(t, n, "k").KVs[0].Value)
			for n.Status().DiskRefused > 0 { // a failed write is repeated at intervals, and until then a leader rejects puts
				if _, err := n.Put(t.Context(), "other", "v"); err != nil {
					require.ErrorIs(t, err, coterie.ErrNoSpace)
				}
			}
		}
		for range 30 { // enough for a new segment and a snapshot
			put(t, n, "k", big)
		}
	}
	for _, n := range nodes {
		require.NoError(t, n.Check(t.Context()))
		require.NoError(t, n.Close())
	}
}

// hosted opens three nodes in a process that has few file descriptors.
func hosted(t *testing.T, dir string, s coterie.Storage) []*coterie.Node {
	t.Helper()
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 200, Max: 200}))
	c, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{
		Dir: dir, Addr: "127.0.0.1:0", Storage: s, ElectionTimeout: 500 * time.Millisecond, SnapshotEntries: 20,
	})
	require.NoError(t, err)
	return c.Nodes()
}

// takeDescriptors uses up all file descriptors. It returns a function that frees them.
func takeDescriptors(t *testing.T) (release func()) {
	t.Helper()
	var taken []*os.File
	var err error
	for err == nil {
		var f *os.File
		if f, err = os.Open(os.DevNull); err == nil {
			taken = append(taken, f)
		}
	}
	require.ErrorIs(t, err, syscall.EMFILE)
	return func() {
		for _, f := range taken {
			require.NoError(t, f.Close())
		}
	}
}

// TestHostOnBolt is a process like TestHost. A log of bolt is one file, which is open, so only snapshots and new nodes lack
// descriptors.
func TestHostOnBolt(t *testing.T) {
	dir := os.Getenv(hostDir)
	if dir == "" {
		t.Skip("for TestNodeOutlivesDescriptorShortage")
	}
	nodes := hosted(t, dir, storages["bolt"])
	n := nodes[0]
	snapshots := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "node1", "snapshots", "*"))
		require.NoError(t, err)
		return names
	}
	another := coterie.Config{Dir: filepath.Join(dir, "another"), Storage: storages["bolt"]}
	for range 2 {
		before := snapshots()
		release := takeDescriptors(t)
		for i := range 60 { // enough for a snapshot: its shortage may become that of the node
			if _, err := n.Put(t.Context(), "k", fmt.Sprint(i)); err != nil {
				require.ErrorIs(t, err, coterie.ErrNoSpace)
				require.ErrorIs(t, err, syscall.EMFILE)
			}
		}
		for _, n := range nodes {
			require.NoError(t, n.Err())
			if err := n.Status().DiskError; err != nil {
				require.ErrorIs(t, err, syscall.EMFILE)
			}
		}
		releaseMore := takeDescriptors(t) // the nodes may have closed some
		_, err := coterie.Open(t.Context(), another)
		require.ErrorIs(t, err, coterie.ErrNoSpace)
		require.ErrorIs(t, err, syscall.EMFILE)
		require.NotErrorIs(t, err, coterie.ErrCorrupt)
		release()
		releaseMore()
		m, err := coterie.Open(t.Context(), another)
		require.NoError(t, err)
		require.NoError(t, m.Close())
		for err = error(coterie.ErrNoSpace); err != nil || slices.Equal(before, snapshots()); { // a failed snapshot is tried again
			_, err = n.Put(t.Context(), "k", "v")
		}
	}
	for _, n := range nodes {
		require.NoError(t, n.Check(t.Context()))
		require.NoError(t, n.Close())
	}
}

// A node survives a time in which its process has no free file descriptor.
func TestNodeOutlivesDescriptorShortage(t *testing.T) {
	if testing.Short() {
		t.Skip("writes to real disks")
	}
	for _, host := range []string{"TestHost", "TestHostOnBolt"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+host+"$", "-test.v")
			cmd.Env = append(os.Environ(), hostDir+"="+t.TempDir())
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "--- PASS: "+host)
		})
	}
}

// If Open lacks a file descriptor, at any step, it returns an error at once, changes nothing and can be called again.
func TestOpenReportsShortage(t *testing.T) {
	open := func(t *testing.T, disk *vfs.Memory) (*coterie.Node, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return coterie.Open(vfs.With(ctx, disk.Mount()), coterie.Config{InMemory: true, SnapshotEntries: 20})
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE, syscall.ENOMEM} {
		for _, again := range []bool{false, true} {
			refused := 0
			for opened := false; !opened; {
				synctest.Test(t, func(t *testing.T) {
					disk := vfs.NewForgetful()
					if again {
						n, err := open(t, disk)
						require.NoError(t, err)
						for i := range 30 {
							put(t, n, "k", fmt.Sprint(i))
						}
						require.NoError(t, n.Close())
					}
					disk.Shortage(refused, errno)
					n, err := open(t, disk)
					disk.Shortage(0, nil)
					if opened = err == nil; !opened {
						refused++
						require.ErrorIs(t, err, errno)
						require.ErrorIs(t, err, coterie.ErrNoSpace)
						require.NotErrorIs(t, err, coterie.ErrCorrupt)
						n, err = open(t, disk)
						require.NoError(t, err)
					}
					put(t, n, "k", "v")
					require.NoError(t, n.Check(t.Context()))
					require.NoError(t, n.Close())
				})
			}
			require.Greater(t, refused, 15)
		}
	}
}

// Raft writes a membership change in its main loop and waits for the disk there, so the leader cannot hand over.
func TestLeaderStuckInChangeIsReplaced(t *testing.T) {
	for name, fault := range map[string]func(c *coterietest.Cluster, i int){
		"refused": func(c *coterietest.Cluster, i int) { c.RefuseDisk(i, syscall.EMFILE) },
		"hanging": func(c *coterietest.Cluster, i int) { c.StallDisk(i, true) },
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				leader, other := c.Leader(), c.Follower()
				put(t, leader, "k", "v")
				fault(c, c.Index(leader))
				changed := make(chan error, 1)
				go func() {
					_, err := leader.AddMember(t.Context(), "d", "d:1", coterie.WithNonVoter())
					changed <- err
				}()
				time.Sleep(20 * time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := other.Put(ctx, "k", "v")
				require.NoError(t, err)
				require.NotEqual(t, leader, c.Leader())
				c.Heal()
				require.NoError(t, <-changed)
				sameState(t, c)
			})
		})
	}
}
