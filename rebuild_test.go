// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// wedge puts raft into the state of hashicorp/raft#696: it leads, and says of everything that a
// hand-over is in progress.
func wedge(c *consensus) {
	flag := reflect.ValueOf(c.raft).Elem().FieldByName("leaderState").FieldByName("leadershipTransferInProgress")
	atomic.StoreInt32((*int32)(unsafe.Pointer(flag.UnsafeAddr())), 1)
	c.doubt()
}

func TestAWedgedLeaderIsStartedAgain(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := OpenCluster(t.Context(), size, Config{InMemory: true})
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
				wedge(before)
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
					require.EqualValues(t, i+2, r.Revision, "nothing is lost, and nothing applied twice")
					require.Equal(t, fmt.Sprint(i), r.Events[0].KV.Value)
				}
				for _, n := range c.Nodes() {
					require.NoError(t, n.Check(t.Context()))
				}
			})
		})
	}
}

// Each election leaves an entry that the state machine is never told of: however many there are, they
// do not count as entries that wait to be applied.
func TestElectionsWithoutACommandHoldUpNothing(t *testing.T) {
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

		log, err := raftlog.Open(disk.Mount(), "/a", false)
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

// To start raft again at any moment is a change of leader and no more.
func TestRebuildUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := OpenCluster(t.Context(), 3, Config{InMemory: true, SnapshotEntries: 20})
		require.NoError(t, err)
		defer c.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range 20 {
				time.Sleep(3 * time.Second)
				c.Node(i % 3).rebuild()
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
