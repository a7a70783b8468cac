// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// fsmBatches is how many batches raft's queue to the state machine holds. With one more, raft's main loop waits for the
// state machine.
const fsmBatches = 128

// onManyDisks opens a cluster with disks that can be stalled. A leader does not notice a stall for a minute.
func onManyDisks(t *testing.T, size int) (nodes []*Node, disks []*vfs.Memory) {
	network := memnet.New()
	var founders []Founder
	for i := range size {
		founders = append(founders, Founder{Name: fmt.Sprint("n", i), Addr: fmt.Sprint("n", i, ":1")})
	}
	for _, p := range founders {
		disk := vfs.NewForgetful()
		n, err := Open(vfs.With(t.Context(), disk.Mount()), Config{
			InMemory: true, Name: p.Name, Addr: p.Addr, Advertise: p.Addr, Founders: founders, Network: network.Host(p.Name),
			DiskTimeout: time.Minute,
		})
		require.NoError(t, err)
		nodes, disks = append(nodes, n), append(disks, disk)
	}
	for _, n := range nodes {
		require.NoError(t, n.Ready(t.Context()))
	}
	return nodes, disks
}

// A leader with a hanging disk still commits the entries that its followers have, one at a time, and applies none.
// However many nodes and callers write, raft's main loop is not blocked: it answers, keeps the lead, and hands it over
// on request.
func TestLeaderWithHungDiskAnswersUnderLoad(t *testing.T) {
	for _, size := range []int{5, 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes, disks := onManyDisks(t, size)
				defer closeAll(t, nodes)
				leader := leading(nodes)
				n := nodes[leader]
				_, err := n.Put(t.Context(), "k", "v")
				require.NoError(t, err)
				time.Sleep(time.Second)
				applied, term := n.views.Load().Index, n.lead.Now().Term
				disks[leader].Stall(true)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for i := range 8 * size {
					go func() {
						for ctx.Err() == nil {
							_, _ = nodes[i%size].Put(ctx, "k", "v")
						}
					}()
				}
				for range 300 { // on other nodes, so that each entry is a batch
					go func() {
						for ctx.Err() == nil {
							n.supervisor.submit(command.Single(&command.Proposal{Command: command.Command{Term: true}}))
							time.Sleep(10 * time.Millisecond)
						}
					}()
				}
				time.Sleep(50 * time.Second)
				require.Equal(t, applied, n.views.Load().Index, "a node with a hung disk applies nothing")
				require.Less(t, n.raft().raft.LastIndex(), applied+fsmBatches)
				require.Equal(t, term, n.lead.Now().Term)
				require.True(t, n.lead.Now().Self)
				answered := make(chan error, 1)
				c := n.raft()
				go func() { answered <- c.raft.VerifyLeader().Error() }()
				time.Sleep(time.Second)
				require.Len(t, answered, 1, "raft's main loop answers")
				cancel() // the next leader's disk does not hang, so the writes would not end
				time.Sleep(30 * time.Second)
				require.NotEqual(t, leader, leading(append(append([]*Node(nil), nodes[:leader]...), nodes[leader+1:]...)))
				require.False(t, n.lead.Now().Self, "the node has handed over")
				disks[leader].Stall(false)
				r, err := nodes[(leader+1)%size].Put(t.Context(), "k", "end")
				require.NoError(t, err)
				for _, n := range nodes {
					_, err := n.Get(t.Context(), "k", WithWaitRevision(r.Revision))
					require.NoError(t, err)
				}
			})
		})
	}
}

// The command that begins a term is not sent again while it is in the log, no matter how often the node checks. If raft
// has dropped the command, it is sent again.
func TestFirstCommandIsSentUntilLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMemory()
		n, err := Open(vfs.With(wedgeable(t.Context()), disk.Mount()), Config{InMemory: true, Name: "a", DiskTimeout: time.Hour})
		require.NoError(t, err)
		require.NoError(t, n.Ready(t.Context())) // the entry that puts it on record is in the log
		lease, err := n.Grant(t.Context(), time.Hour)
		require.NoError(t, err)
		look := func() {
			for range 200 {
				n.raft().pokeObserver()
				time.Sleep(100 * time.Millisecond)
			}
		}
		last := func() uint64 { return n.raft().raft.LastIndex() }

		disk.Stall(true)
		before := last()
		begin := func() { // as at the begin of a term
			n.leases.expirer.Demote()
			n.lead.ready.Store(nil)
		}
		begin()
		look()
		require.Equal(t, before+1, last())
		disk.Stall(false)
		_, err = n.TimeToLive(t.Context(), lease.ID)
		require.NoError(t, err)

		dropping := &n.raft().requests.(*wedge).inPlace
		dropping.Store(true)
		before = last()
		begin()
		look()
		require.Equal(t, before, last())
		dropping.Store(false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = n.TimeToLive(ctx, lease.ID)
		require.NoError(t, err)
		require.NoError(t, n.Close())
	})
}
