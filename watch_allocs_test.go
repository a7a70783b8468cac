// SPDX-License-Identifier: Apache-2.0

// The race detector allocates, too.
//go:build !race

package coterie_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestAllocationsOfAnEvent(t *testing.T) {
	n := open(t)
	const watches = 1000
	ctx, cancel := context.WithCancel(t.Context())
	var running, missing sync.WaitGroup
	for range watches {
		events := n.Watch(ctx, "key")
		running.Go(func() {
			for r := range events {
				missing.Add(-len(r.Events))
			}
		})
	}
	write := func() {
		missing.Add(watches)
		_, err := n.Put(ctx, "key", "value")
		require.NoError(t, err)
		missing.Wait()
	}
	write() // until all watches run
	put := testing.AllocsPerRun(100, func() { require.NoError(t, errOf(n.Put(ctx, "other", "value"))) })
	all := testing.AllocsPerRun(100, write)
	t.Logf("%.3f allocations an event, %.0f a put", (all-put)/watches, put)
	require.LessOrEqual(t, all-put, 0.2*watches, "the first watch makes the events, and the others share them")
	cancel()
	running.Wait()
}

// A collection of garbage visits each object of each watch, so a program with many of them needs few.
func TestAllocationsOfAWatch(t *testing.T) {
	n := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	options := []coterie.WatchOption{coterie.WithCreatedNotify()}
	per := testing.AllocsPerRun(100, func() {
		for range n.Watch(ctx, "key", options...) {
			break
		}
	})
	t.Logf("%.0f allocations a watch", per)
	// The watch, its method, its channel, and the group of the key; three of context.AfterFunc, and two of this loop.
	require.LessOrEqual(t, per, 9.0)
}

// A PrevKV depends on the compaction, so it is not shared across one.
func TestSharedEventsAreOfTheSameCompaction(t *testing.T) {
	n := open(t)
	put(t, n, "k", "1")
	put(t, n, "k", "2")
	watch := func() *coterie.KeyValue {
		return next(t, n.WatchChan(t.Context(), "k", coterie.WithRevision(3), coterie.WithPrevKV())).Events[0].PrevKV
	}
	watch() // this watch goes on
	require.Equal(t, "1", watch().Value)
	require.NoError(t, errOf(n.Compact(t.Context(), 3)))
	require.Nil(t, watch())
}
