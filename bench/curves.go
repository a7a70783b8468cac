// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
)

// onBoth are the contenders of curves.
var onBoth = []contender{onEtcd, onCoterie}

// The quantities of most plots.
var (
	costs  = []quantity{cpu, throughput}
	delays = []quantity{p50, p99}
)

// curves are the curves of growth.
var curves = []curve{
	{
		name: "keys/put", about: "puts of existing keys by 1000 callers", axis: "keys",
		sizes: []int{1000, 10_000, 100_000, 1_000_000}, on: onBoth,
		load: harness.Load{Work: "overwrite", Callers: 1000}, resize: keys, quantities: costs,
	},
	{
		name: "keys/get", about: "serializable gets by one caller", axis: "keys",
		sizes: []int{1000, 10_000, 100_000, 1_000_000}, on: onBoth,
		load: harness.Load{Work: "get", Local: true}, resize: keys, quantities: costs,
	},
	{
		name: "keys/alone", about: "puts of existing keys by 1000 callers of a single member, with values of 32 bytes", axis: "keys",
		sizes: []int{1000, 10_000, 100_000, 1_000_000, 10_000_000}, on: []contender{onCoterie.with(alone)},
		load: harness.Load{Work: "overwrite", Callers: 1000, ValueBytes: 32}, resize: keys, quantities: costs,
	},
	{
		name: "values/put", about: "puts by 100 callers", axis: "bytes of a value",
		sizes: []int{8, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}, on: onBoth,
		load:       harness.Load{Work: "overwrite", Callers: 100, Keys: 100},
		resize:     func(size int, _ *contender, l *harness.Load) { l.ValueBytes = size },
		quantities: costs,
	},
	{
		name: "watchers/idle", about: "puts by 1000 callers beside watches of other keys", axis: "watches",
		sizes: []int{1, 10, 100, 1000, 10_000, 100_000}, on: onBoth, etcdUpTo: 10_000,
		load: harness.Load{Work: "idlers", Callers: 1000}, resize: watchers, quantities: costs,
		round: 3 * time.Second, // a third is without watches before, a third after
	},
	{
		name: "watchers/fanout", about: "events of one writer to watches of its key", axis: "watches",
		sizes: []int{1, 10, 100, 1000, 10_000}, on: onBoth,
		load: harness.Load{Work: "fanout"}, resize: watchers, quantities: costs,
	},
	{
		name: "leases/keepalive", about: "renewals by 100 callers", axis: "leases",
		sizes: []int{100, 1000, 10_000, 100_000}, on: onBoth, etcdUpTo: 10_000,
		load:   harness.Load{Work: "keepalive", Callers: 100},
		resize: func(size int, _ *contender, l *harness.Load) { l.Leases = size }, quantities: costs,
	},
	{
		name: "sessions/followers", about: "sessions with a TTL of 9 s on all members, and no other calls", axis: "sessions",
		sizes: []int{1, 1000, 10_000, 40_000}, on: onBoth, etcdUpTo: 1000,
		load:   harness.Load{Work: "sessions", Place: harness.OnAll},
		resize: func(size int, _ *contender, l *harness.Load) { l.Leases = size },
		quantities: []quantity{
			figure(harness.FigureCPUPercent).called("percent of a core for a member"),
			figure(harness.FigureHeap).called("bytes of live heap of a member"),
		},
		round: 3 * time.Second, // a session renews its lease every 3 s
	},
	{
		name: "callers/put", about: "puts of new keys", axis: "callers",
		sizes: []int{1, 10, 100, 1000, 4000, 10_000}, on: onBoth, etcdUpTo: 4000, // etcd rejects more than 5000 at once
		load: harness.Load{Work: "put"}, resize: callers, quantities: costs,
	},
	{
		name: "callers/get", about: "linearizable gets", axis: "callers",
		sizes: []int{1, 10, 100, 1000, 10_000}, on: onBoth, load: harness.Load{Work: "get", Keys: 1000}, resize: callers,
		quantities: costs,
	},
	{
		name: "members/put", about: "puts of new keys by 1000 callers", axis: "members",
		sizes: []int{1, 3, 5, 7}, on: onBoth, load: harness.Load{Work: "put", Callers: 1000},
		resize:     func(size int, c *contender, _ *harness.Load) { c.setup.Members = size },
		quantities: costs,
	},
	{
		name: "load/put", about: "puts of new keys by 1000 callers, which begin at given times", axis: "puts a second",
		sizes: []int{500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000}, on: onBoth, etcdUpTo: 32_000,
		load:       harness.Load{Work: "put", Callers: 1000},
		resize:     func(size int, _ *contender, l *harness.Load) { l.Rate = size },
		quantities: delays,
	},
}

// Changes of the size.
func keys(size int, _ *contender, l *harness.Load)     { l.Keys = size }
func watchers(size int, _ *contender, l *harness.Load) { l.Watchers = size }
func callers(size int, _ *contender, l *harness.Load)  { l.Callers = size }
