// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A diskTrio is three founders, each with a directory on a disk of its own that outlives its node.
type diskTrio struct {
	*testing.T
	network  *memnet.Network
	founders []Founder
	disks    []*vfs.Memory
	nodes    []*Node
}

const trioDir = "/data"

// InspectDir and RecoverDir call package datadir. The tests of this package cannot import it, because it imports this
// package. The tests of package coterie_test can, and set these variables.
var (
	InspectDir func(ctx context.Context, dir string) (applied uint64, damaged int, err error)
	RecoverDir func(ctx context.Context, dir string) error
)

// inDiskTrio runs fn with three nodes. The first one leads.
func inDiskTrio(t *testing.T, fn func(t *diskTrio)) {
	synctest.Test(t, func(t *testing.T) {
		c := &diskTrio{T: t, network: memnet.New(), nodes: make([]*Node, 3)}
		for i := range 3 {
			c.founders = append(c.founders, Founder{Name: fmt.Sprint("n", i), Addr: fmt.Sprint("n", i, ":1")})
			c.disks = append(c.disks, vfs.NewForgetful())
		}
		for i := range 3 {
			require.NoError(t, c.open(i))
		}
		i := leading(c.nodes)
		for _, list := range []func(){
			func() { c.nodes[0], c.nodes[i] = c.nodes[i], c.nodes[0] },
			func() { c.disks[0], c.disks[i] = c.disks[i], c.disks[0] },
			func() { c.founders[0], c.founders[i] = c.founders[i], c.founders[0] },
		} {
			list()
		}
		for _, n := range c.nodes {
			require.NoError(t, n.Ready(t.Context()))
		}
		fn(c)
		for i := range c.nodes {
			c.kill(i)
		}
	})
}

func (c *diskTrio) on(i int) context.Context { return vfs.With(c.Context(), c.disks[i].Mount()) }

func (c *diskTrio) open(i int) (err error) {
	name := c.founders[i].Name
	founders := slices.SortedFunc(slices.Values(c.founders), func(a, b Founder) int { return int(a.Name[1]) - int(b.Name[1]) })
	c.nodes[i], err = Open(c.on(i), Config{
		Dir: trioDir, Name: name, Addr: c.founders[i].Addr, Founders: founders, Network: c.network.Host(name),
		Logger: slog.New(slog.DiscardHandler),
	})
	return err
}

// kill ends a node without a hand-over.
func (c *diskTrio) kill(i int) {
	if c.nodes[i] != nil {
		c.nodes[i].stop(nil, false)
		require.NoError(c, c.nodes[i].Close())
		c.nodes[i] = nil
	}
}

func (c *diskTrio) put(i, times int, value string) {
	for j := range times {
		_, err := c.nodes[i].Put(c.Context(), fmt.Sprint("k", j), value)
		require.NoError(c, err)
	}
}

// copied returns a disk with a copy of a node's directory.
func (c *diskTrio) copied(i int) *vfs.Memory {
	from, disk := c.disks[i].Mount(), vfs.NewForgetful()
	to := disk.Mount()
	for _, sub := range []string{"", "log", "snapshots"} {
		dir := filepath.Join(trioDir, sub)
		require.NoError(c, to.MkdirAll(dir))
		names, err := from.ReadDir(dir)
		require.NoError(c, err)
		for _, name := range names {
			if name == "log" || name == "snapshots" || name == "lock" {
				continue
			}
			file, err := from.Open(filepath.Join(dir, name))
			require.NoError(c, err)
			size, err := file.Size()
			require.NoError(c, err)
			b := make([]byte, size)
			_, err = file.ReadAt(b, 0)
			require.NoError(c, err)
			file, err = to.Create(filepath.Join(dir, name))
			require.NoError(c, err)
			_, err = file.WriteAt(b, 0)
			require.NoError(c, err)
			require.NoError(c, file.Sync())
		}
		require.NoError(c, to.SyncDir(dir))
	}
	return disk
}

// An older copy of n1's directory is put back, so that the cluster loses acknowledged entries and commits others in
// their place. The old leader has applied the lost entries. It stops with an error that says so, and serves no value of
// these entries.
func TestDivergedNodeStops(t *testing.T) {
	for name, test := range map[string]struct {
		others              int  // writes of the other history
		snapshot, compacted bool // the old leader, or the new one, has only a snapshot and no log before it
	}{
		"a shorter history":                {others: 20},
		"a longer history":                 {others: 200},
		"a snapshot of this one":           {others: 20, snapshot: true},
		"a snapshot of a longer one":       {others: 200, compacted: true},
		"a snapshot of a shorter one":      {others: 20, compacted: true},
		"snapshots of both":                {others: 20, compacted: true, snapshot: true},
		"snapshots of both, it is shorter": {others: 200, compacted: true, snapshot: true},
	} {
		t.Run(name, func(t *testing.T) {
			inDiskTrio(t, func(c *diskTrio) {
				c.put(0, 10, "common")
				time.Sleep(time.Second)
				c.kill(2)
				older := c.copied(1)
				c.put(0, 100, "old")
				time.Sleep(time.Second)
				if test.snapshot {
					snapshotEverywhere(c, c.nodes[:1])
				}
				applied := c.nodes[0].views.Load().Index
				c.kill(1)
				c.kill(0)

				c.disks[1] = older
				require.NoError(c, c.open(1))
				require.NoError(c, c.open(2))
				c.put(1, test.others, "new")
				time.Sleep(time.Second)
				if test.compacted {
					snapshotEverywhere(c, c.nodes[1:])
				}

				require.NoError(c, c.open(0), "the node cannot know yet")
				old := c.nodes[0]
				limit, cancel := context.WithTimeout(c.Context(), 10*time.Second)
				defer cancel()
				for ; ; time.Sleep(time.Millisecond) {
					if test.others > 100 && test.compacted && old.views.Load().Index > applied {
						// The leader's log may begin after the last entry that the two logs have in common. Then its
						// snapshot replaces the other history before a difference is found.
						require.NoError(c, old.Ready(limit))
						require.Equal(c, c.nodes[1].views.Load().Hash, old.views.Load().Hash)
						return
					}
					r, err := old.Get(limit, "k99")
					if err != nil {
						break
					}
					for _, kv := range r.KVs {
						require.NotEqual(c, "old", kv.Value)
					}
				}
				require.NoError(c, limit.Err())
				<-old.Done()
				require.ErrorIs(c, old.Err(), ErrCorrupt)
				require.ErrorContains(c, old.Err(), fmt.Sprint("has applied the entries up to ", applied))
				require.NotContains(c, old.Err().Error(), "the disk has failed")
				c.kill(0)

				require.ErrorIs(c, c.open(0), ErrCorrupt)
				require.ErrorContains(c, c.open(0), fmt.Sprint("has applied the entries up to ", applied))
				c.nodes[0] = nil
				found, damaged, err := InspectDir(c.on(0), trioDir)
				require.ErrorIs(c, err, ErrCorrupt)
				require.ErrorContains(c, err, fmt.Sprint("has applied the entries up to ", applied))
				require.Equal(c, applied, found)
				require.Equal(c, 1, damaged)

				c.put(2, 10, "after")
				time.Sleep(time.Second)
				require.Equal(c, c.nodes[1].views.Load().Hash, c.nodes[2].views.Load().Hash)

				// The operator may choose the other history.
				c.kill(1)
				c.kill(2)
				require.NoError(c, RecoverDir(c.on(0), trioDir))
				require.NoError(c, c.open(0))
				r, err := c.nodes[0].Get(c.Context(), "k99")
				require.NoError(c, err)
				require.Equal(c, "old", r.KVs[0].Value)
			})
		})
	}
}

// A node has applied an entry that the leader has not committed. A linearizable read finds this, even before the node
// has received any entry of the leader's log.
func TestReadFromOtherHistoryIsRejected(t *testing.T) {
	for name, point := range map[string]func(v readPoint) readPoint{
		"the leader has committed less":              func(p readPoint) readPoint { p.index--; return p },
		"the leader has another entry at that index": func(p readPoint) readPoint { p.leader++; return p },
	} {
		t.Run(name, func(t *testing.T) {
			inDiskTrio(t, func(c *diskTrio) {
				n := c.nodes[1]
				time.Sleep(time.Second)
				p := readPoint{index: n.views.Load().Index, leader: n.views.Load().Term}
				require.NoError(c, n.reads.verify(p.index, p))
				require.NoError(c, n.reads.verify(p.index, readPoint{index: p.index + 1, leader: p.leader}))
				require.NoError(c, n.reads.verify(p.index, readPoint{index: p.index}), "a leader of an earlier version")
				require.ErrorIs(c, n.reads.verify(p.index, point(p)), ErrCorrupt)
				_, err := n.Get(c.Context(), "k", WithSerializable())
				require.ErrorIs(c, err, ErrCorrupt)
				c.kill(1)
				require.ErrorIs(c, c.open(1), ErrCorrupt)
				c.nodes[1] = nil
			})
		})
	}
}
