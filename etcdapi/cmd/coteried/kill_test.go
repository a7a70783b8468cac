// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var kills = flag.Int("kills", 2, "how many processes TestKilledMembersLoseNoWrite kills")

// acknowledgedWrites are the writes that were acknowledged to clients. Its methods may be called concurrently.
type acknowledgedWrites struct {
	mu        sync.Mutex
	revisions map[string]int64 // key to revision; guarded by mu
}

func (a *acknowledgedWrites) add(key string, revision int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revisions[key] = revision
}

func (a *acknowledgedWrites) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.revisions)
}

// write puts new keys until ctx ends.
func (a *acknowledgedWrites) write(ctx context.Context, c *clientv3.Client, prefix string) {
	pace := time.NewTicker(time.Millisecond) // bounds the number of keys that the test compares
	defer pace.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		key := fmt.Sprint(prefix, i)
		if r, err := c.Put(call, key, strconv.Itoa(i)); err == nil {
			a.add(key, r.Header.Revision)
		}
		cancel()
		<-pace.C
	}
}

// Writers of three processes continue when one of them is killed, the leader first. Each member has every acknowledged
// write at its revision.
func TestKilledMembersLoseNoWrite(t *testing.T) {
	processTest(t)
	cl := startCluster(t, 3, "http")
	c := dial(t, nil, cl.clientURLs()...)
	known := &acknowledgedWrites{revisions: map[string]int64{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for i := range 3 {
		own := dial(t, nil, cl.clientURLs()...)
		writers.Go(func() { known.write(ctx, own, fmt.Sprintf("written/%d/", i)) })
	}
	more := func() {
		t.Helper()
		before := known.count()
		require.Eventually(t, func() bool { return known.count() > before+50 }, 30*time.Second, 5*time.Millisecond, "the writers do not go on")
	}
	for i := range *kills {
		more()
		victim := rand.IntN(3)
		if i%2 == 0 {
			victim = cl.leader(t, c)
		}
		cl.members[victim].Kill()
		more()
		cl.members[victim].start()
		cl.members[victim].ready()
	}
	more()
	stop()
	writers.Wait()
	for _, url := range cl.clientURLs() {
		found := map[string]int64{}
		r, err := dial(t, nil, url).Get(t.Context(), "written/", clientv3.WithPrefix())
		require.NoError(t, err)
		for _, kv := range r.Kvs {
			found[string(kv.Key)] = kv.ModRevision
		}
		for key, revision := range known.revisions {
			require.Equal(t, revision, found[key], "%s: %s", url, key)
		}
	}
}
