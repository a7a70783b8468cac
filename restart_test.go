// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A wedge stands between a node and raft. Once in place, it rejects every request as raft does in hashicorp/raft#696:
// raft leads, and answers that a hand-over is in progress.
type wedge struct {
	requests
	inPlace atomic.Bool
}

// wedgeable returns a context with which Open starts raft behind a wedge.
func wedgeable(ctx context.Context) context.Context {
	return context.WithValue(ctx, wrapRequests{}, func(r requests) requests { return &wedge{requests: r} })
}

// putWedge wedges the raft of a node, and makes the node check it. The restart of raft removes the wedge.
func putWedge(c *consensus) {
	c.requests.(*wedge).inPlace.Store(true)
	c.doubt()
}

type refusal struct{ error }

func (r refusal) Error() error  { return r.error }
func (r refusal) Index() uint64 { return 0 }
func (r refusal) Response() any { return nil }

func (w *wedge) Apply(cmd []byte, timeout time.Duration) raft.ApplyFuture {
	if w.inPlace.Load() {
		return refusal{raft.ErrLeadershipTransferInProgress}
	}
	return w.requests.Apply(cmd, timeout)
}

// AddVoter lets raft answer a probe first, because raft is not wedged before it answers requests.
func (w *wedge) AddVoter(id raft.ServerID, addr raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture {
	if !w.inPlace.Load() {
		return w.requests.AddVoter(id, addr, prevIndex, timeout)
	}
	if err := w.requests.AddVoter(id, addr, impossibleIndex, timeout).Error(); errors.Is(err, raft.ErrEnqueueTimeout) {
		return refusal{err}
	}
	return refusal{raft.ErrLeadershipTransferInProgress}
}

func (w *wedge) AddNonvoter(id raft.ServerID, addr raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture {
	if w.inPlace.Load() {
		return refusal{raft.ErrLeadershipTransferInProgress}
	}
	return w.requests.AddNonvoter(id, addr, prevIndex, timeout)
}

func (w *wedge) RemoveServer(id raft.ServerID, prevIndex uint64, timeout time.Duration) raft.IndexFuture {
	if w.inPlace.Load() {
		return refusal{raft.ErrLeadershipTransferInProgress}
	}
	return w.requests.RemoveServer(id, prevIndex, timeout)
}

func (w *wedge) LeadershipTransferToServer(id raft.ServerID, addr raft.ServerAddress) raft.Future {
	if w.inPlace.Load() {
		return refusal{raft.ErrLeadershipTransferInProgress}
	}
	return w.requests.LeadershipTransferToServer(id, addr)
}

func TestWedgedLeaderIsRestarted(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := OpenCluster(wedgeable(t.Context()), size, Config{InMemory: true})
				require.NoError(t, err)
				defer c.Close()
				leader, err := c.Leader(t.Context())
				require.NoError(t, err)
				watch := leader.WatchChan(t.Context(), "k")
				for i := range 10 {
					_, err := leader.Put(t.Context(), "k", fmt.Sprint(i))
					require.NoError(t, err)
				}
				before := leader.raft()
				putWedge(before)
				begin := time.Now()
				for i := range 10 {
					_, err := c.Node(i%size).Put(t.Context(), "k", fmt.Sprint(10+i))
					require.NoError(t, err)
				}
				require.Less(t, time.Since(begin), 10*time.Second)
				require.NotSame(t, before, leader.raft())
				for i := range 20 {
					r := <-watch
					require.NoError(t, r.Err)
					require.EqualValues(t, i+2, r.Revision, "no write is lost or applied twice")
					require.Equal(t, fmt.Sprint(i), r.Events[0].KV.Value)
				}
				for _, n := range c.Nodes() {
					require.NoError(t, n.Check(t.Context()))
				}
			})
		})
	}
}

// onDisks opens three nodes with disks and a network that can fail. It returns when all of them are ready.
func onDisks(t *testing.T) (nodes []*Node, disks []*vfs.Memory, network *memnet.Network) {
	network = memnet.New()
	var founders []Founder
	for i := range 3 {
		founders = append(founders, Founder{Name: fmt.Sprint("n", i), Addr: fmt.Sprint("n", i, ":1")})
	}
	for _, p := range founders {
		disk := vfs.NewForgetful()
		n, err := Open(vfs.With(wedgeable(t.Context()), disk.Mount()), Config{
			InMemory: true, Name: p.Name, Addr: p.Addr, Advertise: p.Addr, Founders: founders, Network: network.Host(p.Name),
		})
		require.NoError(t, err)
		nodes, disks = append(nodes, n), append(disks, disk)
	}
	for _, n := range nodes { // a node that is not on record does not count when others fail
		require.NoError(t, n.Ready(t.Context()))
	}
	return nodes, disks, network
}

func leading(nodes []*Node) int {
	for {
		for i, n := range nodes {
			if n.raft().raft.State() == raft.Leader {
				return i
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func closeAll(t *testing.T, nodes []*Node) {
	for _, n := range nodes {
		n.stop(nil, false)
	}
	for _, n := range nodes {
		require.NoError(t, n.Close())
	}
}

// A new leader that is wedged answers no probe until the disks of its followers have its first entry. The node must not
// take the silence as a sign of health.
func TestWedgeIsFoundWhileDisksStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, disks, network := onDisks(t)
		defer closeAll(t, nodes)
		for i := range 3 {
			for j := range 3 {
				network.Delay(fmt.Sprint("n", i), fmt.Sprint("n", j), 20*time.Millisecond)
			}
		}
		old := leading(nodes)
		nodes[old].raft().raft.LeadershipTransfer()
		now := old
		for now == old {
			time.Sleep(time.Millisecond)
			now = leading(nodes)
		}
		for i, disk := range disks {
			disk.Stall(i != now)
		}
		before := nodes[now].raft()
		putWedge(before)
		time.Sleep(3 * time.Second)
		for _, disk := range disks {
			disk.Stall(false)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := nodes[now].Put(ctx, "k", "v")
		require.NoError(t, err)
		require.NotSame(t, before, nodes[now].raft())
	})
}

func TestRestartOnStalledDiskClaimsNoLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, disks, _ := onDisks(t)
		defer closeAll(t, nodes)
		old := leading(nodes)
		disks[old].Stall(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go nodes[old].Put(ctx, "k", "v")
		time.Sleep(10 * time.Millisecond)
		putWedge(nodes[old].raft())
		time.Sleep(time.Minute)
		require.False(t, nodes[old].lead.Now().Self)
		disks[old].Stall(false)
		_, err := nodes[old].Put(t.Context(), "k", "w")
		require.NoError(t, err)
	})
}

// A restart of raft may wait for a log that cannot be read. The wait ends when the node stops.
func TestDiskFailsWhileRaftRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMemory()
		open := func() *Node {
			n, err := Open(vfs.With(wedgeable(t.Context()), disk.Mount()), Config{InMemory: true, Name: "a"})
			require.NoError(t, err)
			require.NoError(t, n.Ready(t.Context()))
			return n
		}
		n := open()
		large := strings.Repeat("v", 256<<10)
		for range 100 { // more than the log keeps in memory
			_, err := n.Put(t.Context(), "k", large)
			require.NoError(t, err)
		}
		require.NoError(t, n.Close())
		n = open()
		for at := int64(1000); at < 5000; at++ {
			disk.Damage("/a/log/0000000000000001.log", at)
		}
		putWedge(n.raft())
		<-n.Done()
		require.ErrorContains(t, n.Err(), "disk")
		require.NoError(t, n.Close())
	})
}

// While raft replays entries that were applied before, a snapshot would have a state that is ahead of its index.
func TestNoSnapshotBeforeRaftCatchesUp(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			disk := vfs.NewMemory()
			open := func(entries uint64) *Node {
				n, err := Open(vfs.With(t.Context(), disk.Mount()), Config{InMemory: true, Name: "a", SnapshotEntries: entries})
				require.NoError(t, err)
				return n
			}
			n := open(100_000)
			for range 1000 {
				_, err := n.Put(t.Context(), "k", "v")
				require.NoError(t, err)
			}
			require.NoError(t, n.Close())
			n = open(500)
			_, err := n.Put(t.Context(), "k", "v")
			require.NoError(t, err)
			time.Sleep(time.Second)
			snapshots, err := n.log.Snapshots().List()
			require.NoError(t, err)
			require.NotEmpty(t, snapshots)
			_, r, err := n.log.Snapshots().Open(snapshots[0].ID)
			require.NoError(t, err)
			s, err := state.Read(r)
			require.NoError(t, err)
			require.LessOrEqual(t, s.View().Index, snapshots[0].Index)
			require.NoError(t, n.Close())
		})
	}
}

// Each election adds an entry to the log that raft never passes to the state machine. Such entries do not count as
// entries that wait to be applied, however many there are.
func TestElectionEntriesBlockNoWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMemory()
		open := func() *Node {
			n, err := Open(vfs.With(t.Context(), disk.Mount()), Config{InMemory: true, Name: "a"})
			require.NoError(t, err)
			return n
		}
		n := open()
		_, err := n.Put(t.Context(), "k", "v")
		require.NoError(t, err)
		require.NoError(t, n.Close())

		log, err := raftlog.Open(disk.Mount(), "/a", segments.Format{}, false)
		require.NoError(t, err)
		last, err := log.Logs().LastIndex()
		require.NoError(t, err)
		for i := range uint64(2 * maxUnapplied) {
			require.NoError(t, log.Logs().StoreLog(&raft.Log{Index: last + 1 + i, Term: 2, Type: raft.LogNoop}))
		}
		require.NoError(t, log.Close(t.Context()))

		n = open()
		_, err = n.Put(t.Context(), "k", "w")
		require.NoError(t, err)
		require.NoError(t, n.Close())
	})
}

// A restart of raft at any moment has no other effect than a change of leader.
func TestRestartUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := OpenCluster(t.Context(), 3, Config{InMemory: true, SnapshotEntries: 20})
		require.NoError(t, err)
		defer c.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 20 {
				time.Sleep(3 * time.Second)
				c.Node(i % 3).supervisor.rebuild()
			}
		}()
		writes := 0
		for running := true; running; writes++ {
			_, err := c.Node(writes%3).Put(t.Context(), "k", "v")
			require.NoError(t, err)
			time.Sleep(50 * time.Millisecond)
			select {
			case <-done:
				running = false
			default:
			}
		}
		r, err := c.Node(0).Get(t.Context(), "k")
		require.NoError(t, err)
		require.EqualValues(t, writes, r.KVs[0].Version)
	})
}
