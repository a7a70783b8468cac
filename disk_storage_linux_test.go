// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A realCluster is three nodes on real files. Each write of a log takes the turn of its node, so a test can make it
// hang.
type realCluster struct {
	nodes [3]*coterie.Node
	dirs  [3]string
	turns [3]sync.Mutex
}

// forEachStorage runs a test with a cluster for each storage. It calls prepare with the directories before the nodes
// are opened.
func forEachStorage(t *testing.T, prepare func(t *testing.T, dir string), fn func(t *testing.T, c *realCluster)) {
	if testing.Short() {
		t.Skip("writes to real disks")
	}
	for name, choice := range storages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			format := storage.Format(segments.Format{})
			if choice != nil {
				format = choice.Format()
			}
			c := &realCluster{}
			dir := t.TempDir()
			var founders []coterie.Founder
			for i, addr := range freeAddrs(t, 3) {
				founders = append(founders, coterie.Founder{Name: fmt.Sprint("node", i), Addr: addr})
			}
			for i, f := range founders {
				c.dirs[i] = filepath.Join(dir, f.Name)
				require.NoError(t, os.Mkdir(c.dirs[i], 0o700))
				prepare(t, c.dirs[i])
				n, err := coterie.Open(t.Context(), coterie.Config{
					Name: f.Name, Addr: f.Addr, Founders: founders, Dir: c.dirs[i], Storage: chosen{turnFormat{format, &c.turns[i]}},
					Logger: slog.New(slog.DiscardHandler), SnapshotEntries: 100,
					ElectionTimeout: 300 * time.Millisecond, DiskTimeout: 500 * time.Millisecond,
				})
				require.NoError(t, err)
				t.Cleanup(func() { _ = n.Close() }) // before the file system of its directory
				c.nodes[i] = n
			}
			for _, n := range c.nodes {
				require.NoError(t, n.Ready(t.Context()))
			}
			fn(t, c)
			c.requireEqual(t)
			for _, n := range c.nodes {
				require.NoError(t, n.Check(t.Context()))
				require.NoError(t, n.Close())
			}
		})
	}
}

// A turnFormat is a format. Its log takes a turn for each write.
type turnFormat struct {
	storage.Format
	turn *sync.Mutex
}

func (f turnFormat) Open(files vfs.FS, dir string) (storage.Store, error) {
	s, err := f.Format.Open(files, dir)
	if err != nil {
		return nil, err
	}
	return turnStore{s, f.turn}, nil
}

type turnStore struct {
	storage.Store
	turn *sync.Mutex
}

func (s turnStore) Write(changes []storage.Change, applied uint64) (int, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	return s.Store.Write(changes, applied)
}

// requireEqual checks that all nodes have the same data.
func (c *realCluster) requireEqual(t *testing.T) {
	t.Helper()
	rev := get(t, c.nodes[0], "any").Revision
	var hashes [3]uint64
	for i, n := range c.nodes {
		get(t, n, "any")
		h, err := n.Hash(t.Context(), rev)
		require.NoError(t, err)
		hashes[i] = h.Hash
	}
	require.Equal(t, [3]uint64{hashes[0], hashes[0], hashes[0]}, hashes)
}

// leader returns the number of the node that leads, and another node.
func (c *realCluster) leader(t *testing.T) (leads int, other *coterie.Node) {
	t.Helper()
	leads = -1
	eventually(t, "a node leads", func() bool {
		leads = slices.IndexFunc(c.nodes[:], func(n *coterie.Node) bool { return n.Status().Role == coterie.RoleLeader })
		return leads >= 0
	})
	return leads, c.nodes[(leads+1)%3]
}

// awaitOther waits until all nodes but one know that another one leads.
func (c *realCluster) awaitOther(t *testing.T, than int) {
	t.Helper()
	eventually(t, "another node leads", func() bool {
		for i, n := range c.nodes {
			if leader := n.Status().Leader; i != than && (leader == 0 || leader == c.nodes[than].ID()) {
				return false
			}
		}
		return true
	})
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.After(time.Minute)
	for !holds() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-limit:
			require.Fail(t, what)
		}
	}
}

// mountSmall mounts a small file system at a directory.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
}

// useUp uses up the space of a file system. It returns a function that frees the space.
func useUp(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	for n := 1 << 20; n > 0; n /= 2 {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		for err == nil {
			_, err = f.Write(make([]byte, n))
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.NoError(t, f.Close())
	}
	return func() { require.NoError(t, os.Remove(name)) }
}

// The file system of the leader becomes full. Another node leads, the full one reports the shortage and rejects writes,
// and it catches up when there is space again.
func TestFullFileSystemOfLeader(t *testing.T) {
	forEachStorage(t, mountSmall, func(t *testing.T, c *realCluster) {
		put(t, c.nodes[0], "k", "v")
		full, other := c.leader(t)
		n := c.nodes[full]
		free := useUp(t, c.dirs[full])
		some := string(make([]byte, 100<<10))
		for i := 0; n.Status().DiskRefused == 0; i++ { // the log may have reserved space
			put(t, other, fmt.Sprint("k", i%3), some)
		}
		require.ErrorIs(t, n.Status().DiskError, syscall.ENOSPC)
		c.awaitOther(t, full)
		eventually(t, "the full node rejects writes", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := n.Put(ctx, "k", "v")
			require.Error(t, err)
			return errors.Is(err, coterie.ErrNoSpace) && errors.Is(err, syscall.ENOSPC)
		})
		put(t, other, "k", "meanwhile")
		require.Equal(t, "meanwhile", get(t, n, "k").KVs[0].Value, "reads work")
		require.NoError(t, n.Err())
		free()
		eventually(t, "the node writes again", func() bool {
			_, err := n.Put(t.Context(), "k", "w")
			return err == nil
		})
		eventually(t, "the shortage is over", func() bool { return n.Status().DiskRefused == 0 && n.Status().DiskError == nil })
	})
}

// The log of the leader hangs in a write. Another node leads, and the hanging one catches up later.
func TestHangingLogOfLeader(t *testing.T) {
	forEachStorage(t, func(*testing.T, string) {}, func(t *testing.T, c *realCluster) {
		put(t, c.nodes[0], "k", "v")
		hangs, other := c.leader(t)
		n := c.nodes[hangs]
		c.turns[hangs].Lock()
		release := sync.OnceFunc(c.turns[hangs].Unlock)
		defer release()
		begin := time.Now()
		put(t, other, "k", "other")
		require.Less(t, time.Since(begin), 20*time.Second)
		c.awaitOther(t, hangs)
		require.Greater(t, n.Status().DiskStalled, 500*time.Millisecond)
		put(t, other, "k", "more")
		require.Equal(t, "v", local(t, n, "k"), "the node applies nothing that its log does not have")
		require.NoError(t, n.Err())
		release()
		put(t, n, "k", "again")
		eventually(t, "no write hangs", func() bool { return n.Status().DiskStalled < 100*time.Millisecond })
	})
}
