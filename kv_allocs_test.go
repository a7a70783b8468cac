// SPDX-License-Identifier: Apache-2.0

// With the race detector a pool forgets objects at random.
//go:build !race

package coterie_test

import (
	"context"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestAllocationsOfALocalGet(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.Ready(t.Context()))
	_, err = n.Put(t.Context(), "key", "value")
	require.NoError(t, err)
	local := []coterie.GetOption{coterie.WithSerializable()}
	for _, on := range []coterie.KV{n, coterie.NewUserView(n, "user")} {
		// The response with its key and value.
		require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
			r, err := on.Get(t.Context(), "key", local...)
			if err != nil || len(r.KVs) != 1 || r.KVs[0].Value != "value" || r.Count != 1 {
				t.Errorf("a Get returned %v, %v", r, err)
			}
		}), 1.0)
	}
}

// The bounds of many calls are those of the whole process, with three nodes in it: of the calls, of the batches and
// rounds that they share, and of the nodes that apply them.
func TestAllocationsOfManyCalls(t *testing.T) {
	n := quietLeader(t)
	value := strings.Repeat("v", 256)
	ctx := context.Background()
	session, err := coterie.NewSession(ctx, n)
	require.NoError(t, err)
	var locks atomic.Int64
	for _, call := range []struct {
		name  string
		calls int // of each of 1000 callers
		most  float64
		do    func() error
	}{
		// The operation and the response, and on each node the version of the key. The rest is the share of a call in
		// the batches and in the nodes of trees, which is larger if the batches are small.
		{"Put", 20, 9, func() error { return errOf(n.Put(ctx, "key", value)) }},
		// The transaction, its operation and the response, and the rest as for Put.
		{"Txn", 20, 10, func() error {
			return errOf(n.Txn(ctx).If(coterie.Compare(coterie.CreateRevision("key"), coterie.Greater, 0)).
				Then(coterie.OpPut("key", value)).Commit())
		}},
		// Each lock has a name of its own, and is locked and unlocked.
		{"Lock", 4, 55, func() error {
			m := coterie.NewMutex(session, strconv.FormatInt(locks.Add(1), 10))
			if err := m.Lock(ctx); err != nil {
				return err
			}
			return m.Unlock(ctx)
		}},
		// The response. A round takes about 17 allocations, and has hundreds of callers.
		{"Get", 20, 2, func() error { return errOf(n.Get(ctx, "key")) }},
	} {
		require.NoError(t, call.do())
		per := allocations(t, 1000, call.calls, call.do)
		t.Logf("%s: %.2f", call.name, per)
		require.LessOrEqual(t, per, call.most, call.name)
	}
}

// A call that is alone shares nothing with others: it has a round of its own, and a put also a batch. These bounds are
// those of the whole process too.
func TestAllocationsOfALoneCall(t *testing.T) {
	n := quietLeader(t)
	value := strings.Repeat("v", 256)
	ctx := context.Background()
	for _, call := range []struct {
		name string
		most float64
		do   func() error
	}{
		{"Put", 170, func() error { return errOf(n.Put(ctx, "key", value)) }},
		{"Get", 32, func() error { return errOf(n.Get(ctx, "key")) }},
	} {
		require.NoError(t, call.do())
		per := allocations(t, 1, 1000, call.do)
		t.Logf("%s: %.2f", call.name, per)
		require.LessOrEqual(t, per, call.most, call.name)
	}
}

// quietLeader returns the leader of three nodes that log nothing.
func quietLeader(t *testing.T) *coterie.Node {
	c, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{
		InMemory: true, Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	n, err := c.Leader(t.Context())
	require.NoError(t, err)
	return n
}

// allocations returns the number of allocations of a call, when many callers repeat it.
func allocations(t *testing.T, callers, calls int, do func() error) float64 {
	errs := make([]error, callers)
	all := func() {
		var running sync.WaitGroup
		for i := range errs {
			running.Go(func() {
				for range calls {
					if err := do(); err != nil {
						errs[i] = err
						return
					}
				}
			})
		}
		running.Wait()
	}
	all() // to warm up
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	all()
	runtime.ReadMemStats(&after)
	for _, err := range errs {
		require.NoError(t, err)
	}
	return float64(after.Mallocs-before.Mallocs) / float64(callers*calls)
}
