// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var long = flag.Bool("long", false, "kill more processes")

// acknowledged are the writes that were acknowledged to clients.
type acknowledged struct {
	lock   sync.Mutex
	writes map[string]int64 // key to revision
	count  atomic.Int64
}

// write puts new keys until ctx ends.
func (a *acknowledged) write(ctx context.Context, c *clientv3.Client, name string) {
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		key := fmt.Sprint("written/", name, "/", i)
		r, err := c.Put(call, key, strconv.Itoa(i))
		cancel()
		if err == nil {
			a.lock.Lock()
			a.writes[key] = r.Header.Revision
			a.lock.Unlock()
			a.count.Add(1)
		}
		<-pace.C
	}
}

// increment adds 1 to a counter in transactions, and returns how often that succeeded and how often the outcome is
// unknown.
func increment(ctx context.Context, c *clientv3.Client) (done, unknown int64) {
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
			n, _ := strconv.Atoi(s.Get("counter"))
			s.Put("counter", strconv.Itoa(n+1))
			return nil
		}, concurrency.WithAbortContext(call))
		cancel()
		if err == nil {
			done++
		} else {
			unknown++
		}
		<-pace.C
	}
	return done, unknown
}

// Clients of three processes continue when one of them is killed, and no acknowledged write is lost.
func TestKilledNodesLoseNoAcknowledgedWrite(t *testing.T) {
	nodes, endpoints := startNodes(t, 3)
	for _, e := range endpoints {
		awaitNode(t, e)
	}
	watcher := connect(t, endpoints...)
	lease, err := watcher.Grant(t.Context(), 5)
	require.NoError(t, err)
	_, err = watcher.Put(t.Context(), "alive", "v", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	alive, err := watcher.KeepAlive(t.Context(), lease.ID)
	require.NoError(t, err)
	go func() {
		for range alive { // the client requires that its channel is drained
		}
	}()
	events := watcher.Watch(t.Context(), "written/", clientv3.WithPrefix(), clientv3.WithRev(1))

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	known := &acknowledged{writes: map[string]int64{}}
	var clients sync.WaitGroup
	for i := range 4 {
		c := connect(t, endpoints...)
		clients.Go(func() { known.write(ctx, c, strconv.Itoa(i)) })
	}
	var increments, unknown int64
	c := connect(t, endpoints...)
	clients.Go(func() { increments, unknown = increment(ctx, c) })

	kills := 2
	if *long {
		kills = 40
	}
	more := func() { // waits until clients have written more
		t.Helper()
		before := known.count.Load()
		require.Eventually(t, func() bool { return known.count.Load() > before+50 }, 30*time.Second, 10*time.Millisecond)
	}
	for i := range kills {
		more()
		victim := rand.IntN(3)
		if i%2 == 0 {
			victim = leaderOf(t, watcher, endpoints)
		}
		nodes[victim].kill()
		more()
		run(t, etcdctl, "--endpoints", endpoints[0]+","+endpoints[1]+","+endpoints[2], "put", "etcdctl", strconv.Itoa(i))
		nodes[victim].start(t)
		awaitNode(t, endpoints[victim])
	}
	more()
	stop()
	clients.Wait()

	for _, e := range endpoints {
		r, err := connect(t, e).Get(t.Context(), "written/", clientv3.WithPrefix())
		require.NoError(t, err)
		found := map[string]int64{}
		for _, kv := range r.Kvs {
			found[string(kv.Key)] = kv.ModRevision
		}
		for key, revision := range known.writes {
			require.Equal(t, revision, found[key], "%s: %s", e, key)
		}
	}
	last, err := watcher.Get(t.Context(), "counter")
	require.NoError(t, err)
	n, err := strconv.ParseInt(string(last.Kvs[0].Value), 10, 64)
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, increments)
	require.LessOrEqual(t, n, increments+unknown)
	left, err := watcher.TimeToLive(t.Context(), lease.ID, clientv3.WithAttachedKeys())
	require.NoError(t, err)
	require.Positive(t, left.TTL)
	require.Equal(t, [][]byte{[]byte("alive")}, left.Keys)
	requireEvents(t, watcher, events)
}

// leaderOf returns which of the endpoints is that of the leader.
func leaderOf(t *testing.T, c *clientv3.Client, endpoints []string) (leader int) {
	t.Helper()
	require.Eventually(t, func() bool {
		for i, e := range endpoints {
			s, err := c.Status(t.Context(), e)
			if err == nil && s.Leader == s.Header.MemberId {
				leader = i
				return true
			}
		}
		return false
	}, 20*time.Second, 10*time.Millisecond)
	return leader
}

// requireEvents requires that a watch has delivered each version of each key once, in the order of revisions.
func requireEvents(t *testing.T, c *clientv3.Client, events clientv3.WatchChan) {
	t.Helper()
	all, err := c.Get(t.Context(), "written/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	missing := map[string]bool{}
	for _, kv := range all.Kvs {
		missing[string(kv.Key)] = true
	}
	var newest int64
	for limit := time.After(20 * time.Second); len(missing) > 0; {
		select {
		case r := <-events:
			require.NoError(t, r.Err())
			for _, e := range r.Events {
				require.Greater(t, e.Kv.ModRevision, newest)
				newest = e.Kv.ModRevision
				require.True(t, missing[string(e.Kv.Key)], "an event that is no key, or came twice: %v", e)
				delete(missing, string(e.Kv.Key))
			}
		case <-limit:
			t.Fatalf("%d events are missing", len(missing))
		}
	}
}
