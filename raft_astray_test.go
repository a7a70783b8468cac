// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/state"
)

// isolate breaks every connection of a node at its next use, or stops doing so. Unlike with a block, no message that
// was sent in the meantime arrives later.
func isolate(network *memnet.Network, i int, on bool) {
	p := 0.0
	if on {
		p = 1
	}
	for j := range 3 {
		if j != i {
			network.Drop(fmt.Sprint("n", i), fmt.Sprint("n", j), p)
			network.Drop(fmt.Sprint("n", j), fmt.Sprint("n", i), p)
		}
	}
}

// keepTail sets how many entries before a snapshot raft keeps in its log. takeSnapshot keeps as few if the entries have
// tens of MiB.
func keepTail(t testing.TB, c *consensus, entries uint64) {
	conf := c.raft.ReloadableConfig()
	conf.TrailingLogs = entries
	require.NoError(t, c.raft.ReloadConfig(conf))
}

// appendUnreplicated appends entries without effect to the log of a leader that is cut off.
func appendUnreplicated(leader *Node, entries int) {
	for range entries {
		leader.raft().append(command.Single(&command.Proposal{Command: command.Command{Term: true}}))
	}
}

// snapshotEverywhere takes a snapshot on each of the nodes, which keep no log before it.
func snapshotEverywhere(t testing.TB, nodes []*Node) {
	t.Helper()
	for _, n := range nodes {
		keepTail(t, n.raft(), 0)
		require.NoError(t, n.raft().raft.Snapshot().Error())
	}
}

// This is the case of hashicorp/raft#697. A leader is cut off with entries that no other node has. The next leader takes
// a snapshot with an index among those of these entries, and the old leader comes back. Raft would install the
// snapshot, keep the rest of its log, reject the next append because of it, and request the snapshot again, for ever.
func TestAstrayLogIsDropped(t *testing.T) {
	for name, kept := range map[string]uint64{
		"the entry at the snapshot's index is kept":              keptTailEntries,
		"the entry at the snapshot's index would not be kept":    0,
		"one entry is kept, before or behind the snapshot's end": 1,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes, _, network := onDisks(t)
				defer closeAll(t, nodes)
				old := leading(nodes)
				_, err := nodes[old].Put(t.Context(), "k", "before")
				require.NoError(t, err)
				time.Sleep(time.Second)
				keepTail(t, nodes[old].raft(), kept)
				isolate(network, old, true)
				appendUnreplicated(nodes[old], 40)
				watch := nodes[old].WatchChan(t.Context(), "k")
				others := append(append([]*Node(nil), nodes[:old]...), nodes[old+1:]...)
				time.Sleep(5 * time.Second)
				next := others[leading(others)]
				for i := range 10 {
					_, err := next.Put(t.Context(), "k", fmt.Sprint(i))
					require.NoError(t, err)
				}
				time.Sleep(time.Second)
				snapshotEverywhere(t, others)
				for _, n := range others {
					require.Less(t, newest(t, n).Index, nodes[old].raft().raft.LastIndex(), "the snapshot ends among the old leader's entries")
				}
				// This leader still sends entries that it has read before. The other node has only the snapshot.
				next.raft().stepDown()
				for next == others[leading(others)] {
					time.Sleep(time.Millisecond)
				}
				next = others[leading(others)]

				before := nodes[old].raft()
				isolate(network, old, false)
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				last, err := next.Put(ctx, "k", "after")
				require.NoError(t, err)
				_, err = nodes[old].Get(ctx, "k", WithWaitRevision(last.Revision))
				require.NoError(t, err)
				require.Less(t, time.Since(begin), 2*time.Second)
				require.NotSame(t, before, nodes[old].raft(), "the old leader has restarted raft")
				for i := range 11 {
					r := <-watch
					require.NoError(t, r.Err)
					require.EqualValues(t, i+3, r.Revision)
				}
				_, err = nodes[old].Put(t.Context(), "k", "as any other")
				require.NoError(t, err)
				require.Equal(t, next.views.Load().Hash, nodes[old].views.Load().Hash)
			})
		})
	}
}

// Raft may stop after it has stored a snapshot, and before the state machine has it.
func TestReceivedSnapshotSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, _, network := onDisks(t)
		defer closeAll(t, nodes)
		time.Sleep(time.Second) // until the others are on record, too: else the leader may lose its lead with one of them
		leader := leading(nodes)
		behind := (leader + 1) % 3
		isolate(network, behind, true)
		for i := range 10 {
			_, err := nodes[leader].Put(t.Context(), "k", fmt.Sprint(i))
			require.NoError(t, err)
		}
		require.NoError(t, nodes[leader].raft().raft.Snapshot().Error())
		meta, r, err := nodes[leader].log.Snapshots().Open(newest(t, nodes[leader]).ID)
		require.NoError(t, err)
		s, err := state.Read(r)
		require.NoError(t, err)
		sink, err := nodes[behind].log.Snapshots().Create(meta.Version, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, nil)
		require.NoError(t, err)
		_, err = s.Snapshot().WriteTo(sink)
		require.NoError(t, err)
		require.NoError(t, sink.Close())
		require.EqualValues(t, 1, nodes[behind].views.Load().KV.Revision())
		nodes[behind].supervisor.rebuild()
		require.EqualValues(t, 11, nodes[behind].views.Load().KV.Revision())
		isolate(network, behind, false)
		_, err = nodes[behind].Put(t.Context(), "k", "after")
		require.NoError(t, err)
		time.Sleep(time.Second) // an append may bring the commit index here before the leader has applied the entry
		require.Equal(t, nodes[leader].views.Load().Index, nodes[behind].views.Load().Index)
		require.Equal(t, nodes[leader].views.Load().Hash, nodes[behind].views.Load().Hash)
	})
}

func newest(t *testing.T, n *Node) *raft.SnapshotMeta {
	t.Helper()
	all, err := n.log.Snapshots().List()
	require.NoError(t, err)
	require.NotEmpty(t, all)
	return all[0]
}
