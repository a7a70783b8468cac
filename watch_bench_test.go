// SPDX-License-Identifier: Apache-2.0

//go:build unix

package coterie_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func benchmarkNode(b *testing.B) *coterie.Node {
	n, err := coterie.Open(b.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, n.Close()) })
	require.NoError(b, n.Ready(b.Context()))
	return n
}

// BenchmarkWatchers delivers the events of one writer to the watches of its key. The writer is at most a window of puts
// ahead of the slowest watch.
func BenchmarkWatchers(b *testing.B) {
	const watches = 1000
	loop := func(ctx context.Context, n *coterie.Node, received func()) {
		for r, err := range n.Watch(ctx, "key") {
			if err != nil {
				return
			}
			for range r.Events {
				received()
			}
		}
	}
	channel := func(ctx context.Context, n *coterie.Node, received func()) {
		for r := range n.WatchChan(ctx, "key") {
			for range r.Events {
				received()
			}
		}
	}
	for _, c := range []struct {
		name   string
		window int
		watch  func(ctx context.Context, n *coterie.Node, received func())
	}{
		{"Loop/Window=1", 1, loop},
		{"Loop/Window=16", 16, loop},
		{"Channel/Window=1", 1, channel},
		{"Channel/Window=16", 16, channel},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := benchmarkNode(b)
			ctx, cancel := context.WithCancel(b.Context())
			var running, slots = sync.WaitGroup{}, make([]sync.WaitGroup, c.window)
			for range watches {
				running.Go(func() {
					i := 0
					c.watch(ctx, n, func() {
						slots[i%len(slots)].Done()
						i++
					})
				})
			}
			for n.Status().Watchers < watches {
			}
			value := strings.Repeat("v", 256)
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime()
			for i := range b.N {
				slot := &slots[i%len(slots)]
				slot.Wait()
				slot.Add(watches)
				_, err := n.Put(ctx, "key", value)
				require.NoError(b, err)
			}
			for i := range slots {
				slots[i].Wait()
			}
			events := float64(b.N) * watches
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/events, "µs-CPU/event")
			b.ReportMetric(events/b.Elapsed().Seconds(), "events/s")
			b.StopTimer()
			cancel()
			running.Wait()
		})
	}
}

// BenchmarkPutBesideIdleWatchers puts one key beside watches of others.
func BenchmarkPutBesideIdleWatchers(b *testing.B) {
	for _, watches := range []int{0, 100_000} {
		b.Run(fmt.Sprint("Watches=", watches), func(b *testing.B) {
			n := benchmarkNode(b)
			ctx, cancel := context.WithCancel(b.Context())
			var running sync.WaitGroup
			for i := range watches {
				running.Go(func() {
					for range n.Watch(ctx, fmt.Sprint("other", i)) {
					}
				})
			}
			for n.Status().Watchers < watches {
			}
			value := strings.Repeat("v", 256)
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime()
			for range b.N {
				_, err := n.Put(ctx, "key", value)
				require.NoError(b, err)
			}
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "µs-CPU/op")
			b.StopTimer()
			cancel()
			running.Wait()
		})
	}
}
