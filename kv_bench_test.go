// SPDX-License-Identifier: Apache-2.0

//go:build unix

package coterie_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// The benchmarks run three nodes in this process, with loopback TCP and directories of their own. The figures are
// those of all three nodes and of the callers. cpu-µs/op is the CPU time of the process.

const benchKeys = 10_000

// benchCluster returns the leader of a new cluster of three.
func benchCluster(tb testing.TB) *coterie.Node {
	c, err := coterie.OpenCluster(tb.Context(), 3, coterie.Config{
		Dir: tb.TempDir(), Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	leader, err := c.Leader(tb.Context())
	require.NoError(tb, err)
	for _, n := range c.Nodes() {
		require.NoError(tb, n.Ready(tb.Context()))
	}
	return leader
}

// benchKey returns the key of an operation.
func benchKey(i int64) string { return fmt.Sprintf("key%05d", i%benchKeys) }

// cpuMicros returns the CPU time of this process.
func cpuMicros(tb testing.TB) float64 {
	var u syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Sec+u.Stime.Sec)*1e6 + float64(u.Utime.Usec+u.Stime.Usec)
}

// called runs b.N operations from a number of concurrent callers, on the keys in turn.
func called(b *testing.B, callers int, keys []string, op func(key string) error) {
	var next atomic.Int64
	calledBy(b, callers, func() func() error {
		return func() error { return op(keys[next.Add(1)%benchKeys]) }
	})
}

// calledBy runs b.N operations from a number of concurrent callers. Each caller begins with a call of begin, which
// returns its operation.
func calledBy(b *testing.B, callers int, begin func() func() error) {
	var next atomic.Int64
	type failure struct{ error }
	var failed atomic.Pointer[failure]
	var running sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuMicros(b)
	for range callers {
		op := begin()
		running.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := op(); err != nil {
					failed.CompareAndSwap(nil, &failure{err})
					return
				}
			}
		})
	}
	running.Wait()
	b.ReportMetric((cpuMicros(b)-before)/float64(b.N), "cpu-µs/op")
	if err := failed.Load(); err != nil {
		b.Fatal(err)
	}
}

func benchKeysOf(n *coterie.Node, b *testing.B, value string) []string {
	keys := make([]string, benchKeys)
	for i := range keys {
		keys[i] = benchKey(int64(i))
	}
	var next atomic.Int64
	var running sync.WaitGroup
	for range 1000 {
		running.Go(func() {
			for i := next.Add(1) - 1; i < benchKeys; i = next.Add(1) - 1 {
				_, err := n.Put(context.Background(), keys[i], value)
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	running.Wait()
	return keys
}

func BenchmarkClusterPut(b *testing.B) {
	value := strings.Repeat("v", 256)
	for _, callers := range []int{1, 32, 1000} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			n := benchCluster(b)
			keys := benchKeysOf(n, b, value)
			called(b, callers, keys, func(key string) error { return errOf(n.Put(context.Background(), key, value)) })
		})
	}
}

func BenchmarkClusterGet(b *testing.B) {
	value := strings.Repeat("v", 256)
	n := benchCluster(b)
	keys := benchKeysOf(n, b, value)
	for name, options := range map[string][]coterie.GetOption{
		"linearizable": nil, "serializable": {coterie.WithSerializable()},
	} {
		for _, callers := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				called(b, callers, keys, func(key string) error {
					r, err := n.Get(context.Background(), key, options...)
					if err == nil && (len(r.KVs) != 1 || len(r.KVs[0].Value) != len(value)) {
						err = fmt.Errorf("%s has %v", key, r.KVs)
					}
					return err
				})
			})
		}
	}
}
