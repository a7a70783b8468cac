// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A change that arrives inside a snapshot, and not in the log, wakes the affected watches of a key and of a range.
func TestSnapshotWakesWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, _, network := onDisks(t)
		defer closeAll(t, nodes)
		leader := nodes[leading(nodes)]
		behind := (leading(nodes) + 1) % 3
		put := func(key, val string) {
			t.Helper()
			_, err := leader.Put(t.Context(), key, val)
			require.NoError(t, err)
		}
		watches := map[string]<-chan WatchResult{
			"a key":   nodes[behind].WatchChan(t.Context(), "k"),
			"a range": nodes[behind].WatchChan(t.Context(), "k", WithPrefix()),
		}
		time.Sleep(time.Second)
		synctest.Wait() // until both watches wait
		require.Equal(t, 2, nodes[behind].hub.Len())
		isolate(network, behind, true)
		put("other", "which may come by the log, since it was about to be sent")
		time.Sleep(time.Second)
		for i := range 10 {
			put("k", fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		keepTail(t, leader.raft(), 0)
		require.NoError(t, leader.raft().raft.Snapshot().Error())
		before := nodes[behind].views.Load().Index
		isolate(network, behind, false)
		time.Sleep(time.Minute)
		require.Equal(t, newest(t, leader).Index, newest(t, nodes[behind]).Index, "the follower has got the snapshot")
		require.Less(t, before, nodes[behind].views.Load().Index)
		for name, watch := range watches {
			for i := range 10 {
				select {
				case r := <-watch:
					require.NoError(t, r.Err)
					require.EqualValues(t, i+3, r.Revision)
					require.Equal(t, fmt.Sprint(i), r.Events[0].KV.Value)
				case <-time.After(time.Minute):
					require.FailNow(t, "a watch was not woken", "%s, after %d events", name, i)
				}
			}
		}
	})
}
