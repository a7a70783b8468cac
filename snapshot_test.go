// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
)

func TestSnapshotIsDue(t *testing.T) {
	const mib = 1 << 20
	alone := snapshotRule{entries: 100, members: 1}
	for name, c := range map[string]struct {
		rule    snapshotRule
		growth  raftlog.Growth
		applied uint64
		due     bool
	}{
		"a new log":                                 {alone, raftlog.Growth{}, 0, false},
		"fewer entries":                             {alone, raftlog.Growth{}, 99, false},
		"as many entries":                           {alone, raftlog.Growth{}, 100, true},
		"the snapshot is there":                     {alone, raftlog.Growth{Snapshot: 100}, 100, false},
		"fewer entries since the snapshot":          {alone, raftlog.Growth{Snapshot: 100}, 199, false},
		"as many entries since the snapshot":        {alone, raftlog.Growth{Snapshot: 100}, 200, true},
		"the snapshot was late":                     {alone, raftlog.Growth{Snapshot: 130}, 200, true},
		"few entries, but large ones":               {alone, raftlog.Growth{Bytes: 64 * mib}, 5, true},
		"few entries, nearly large enough":          {alone, raftlog.Growth{Bytes: 64*mib - 1}, 5, false},
		"large entries, and a larger snapshot":      {alone, raftlog.Growth{Size: 100 * mib, Bytes: 99 * mib}, 5, false},
		"entries as large as the snapshot":          {alone, raftlog.Growth{Size: 100 * mib, Bytes: 100 * mib}, 5, true},
		"many entries, small beside the snapshot":   {alone, raftlog.Growth{Size: 320 * mib, Bytes: 19 * mib}, 5000, false},
		"many entries, a sixteenth of the snapshot": {alone, raftlog.Growth{Size: 320 * mib, Bytes: 20 * mib}, 5000, true},
		"the third of four, too early":              {snapshotRule{100, 2, 4}, raftlog.Growth{}, 49, false},
		"the third of four":                         {snapshotRule{100, 2, 4}, raftlog.Growth{}, 50, true},
		"the third of four, again too early":        {snapshotRule{100, 2, 4}, raftlog.Growth{Snapshot: 50}, 149, false},
		"the third of four, again":                  {snapshotRule{100, 2, 4}, raftlog.Growth{Snapshot: 50}, 150, true},
		"the third of four, large entries":          {snapshotRule{100, 2, 4}, raftlog.Growth{Bytes: 56 * mib}, 5, true},
		"every entry":                               {snapshotRule{1, 2, 3}, raftlog.Growth{Snapshot: 7}, 8, true},
		"every entry, none is new":                  {snapshotRule{1, 2, 3}, raftlog.Growth{Snapshot: 7}, 7, false},
		"never":                                     {snapshotRule{math.MaxUint64, 0, 3}, raftlog.Growth{}, 1 << 60, false},
	} {
		require.Equal(t, c.due, c.rule.due(c.growth, c.applied), name)
	}
}

// At most Config.SnapshotEntries entries follow a snapshot, and the snapshots of two members are far apart.
func TestMembersTakeTurnsWithSnapshots(t *testing.T) {
	const entries, members = 1000, 3
	taken := map[uint64]uint64{} // the rank of the member that took a snapshot at an index
	for rank := range uint64(members) {
		r := snapshotRule{entries, rank, members}
		g := raftlog.Growth{}
		for index := uint64(1); index <= 10*entries; index++ {
			if r.due(g, index) {
				require.LessOrEqual(t, index-g.Snapshot, uint64(entries))
				g.Snapshot = index
				taken[index] = rank
			}
		}
		require.GreaterOrEqual(t, g.Snapshot, uint64(9*entries))
	}
	last := uint64(0)
	for index := uint64(1); index <= 10*entries; index++ {
		if _, ok := taken[index]; ok {
			require.GreaterOrEqual(t, index-last, uint64(entries/members), "entry %d", index)
			last = index
		}
	}
}

// snapshotIndexes returns the indexes of the snapshots of a node.
func snapshotIndexes(t *testing.T, n *Node) (all []uint64) {
	metas, err := n.log.Snapshots().List()
	require.NoError(t, err)
	for _, m := range metas {
		all = append(all, m.Index)
	}
	return all
}

func TestSnapshotsOfNodesAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := OpenCluster(t.Context(), 3, Config{InMemory: true, SnapshotEntries: 60})
		require.NoError(t, err)
		defer c.Close()
		taken := map[uint64]*Node{}
		for i := range 300 {
			_, err := c.Node(0).Put(t.Context(), fmt.Sprint("k", i), "v")
			require.NoError(t, err)
			synctest.Wait()
			for _, n := range c.Nodes() {
				for _, index := range snapshotIndexes(t, n) {
					if first, ok := taken[index]; ok {
						require.Same(t, first, n, "two nodes took a snapshot at entry %d", index)
					}
					taken[index] = n
				}
			}
		}
		require.GreaterOrEqual(t, len(taken), 3*4)
	})
}

func TestSnapshotEndsUnderLoad(t *testing.T) {
	n, err := Open(t.Context(), Config{Dir: filepath.Join(t.TempDir(), "data"), SnapshotEntries: 200})
	require.NoError(t, err)
	defer n.Close()
	value := strings.Repeat("v", 64<<10)
	for i := range 100 { // a snapshot takes dozens of slices
		_, err := n.Put(t.Context(), fmt.Sprint("k", i), value)
		require.NoError(t, err)
	}
	first := n.log.Growth().Snapshot
	for begin := time.Now(); n.log.Growth().Snapshot <= first+200; {
		require.Less(t, time.Since(begin), time.Minute)
		_, err := n.Put(t.Context(), "k", "v")
		require.NoError(t, err)
	}
}
