// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coterie-kv/coterie/bench/harness"

// wireRows are the commands with which users of etcd measure it, and the same commands beside gRPC alone.
var wireRows = []row{
	wireRow("put/leader", "puts of new keys to the leader", "puts", onEtcd, 2, harness.Load{Work: "put", Place: harness.OnLeader}),
	wireRow("put/all", "puts of new keys to all members", "puts", onEtcd, 2, harness.Load{Work: "put", Place: harness.OnAll}),
	wireRow("range/linearizable", "linearizable ranges of one key, of all members", "ranges", onEtcd, 1.3, oneKey),
	wireRow("range/serializable", "serializable ranges of one key, of all members", "ranges", onEtcd, 1.2, localRead(oneKey)),
	wireRow("bound/serializable", "serializable ranges beside a server of gRPC that returns a constant", "ranges", onBare, 0.8,
		localRead(oneKey)),
	{
		name: "wire/bound/linearizable", about: "the most that a server of gRPC can reach: one that returns a constant, beside linearizable ranges of etcd",
		unit: "ranges", on: []contender{onEtcd.with(endpoints), onBare.with(endpoints)}, conns: 100,
		load: by(1000, oneKey), verdict: ahead(throughput, 1.3),
	},
	wireRow("watch/fanout", "one writer, and 1000 watches of its key on 100 connections to all members", "events", onEtcd, 1,
		harness.Load{Work: "fanout", Place: harness.OnAll, Watchers: 1000}),
	{
		name: "wire/stream", about: "streams of 100,000 keys by one caller", unit: "streams",
		on: []contender{onEtcd.with(endpoints), onCoterie.with(endpoints)}, conns: 1,
		load: harness.Load{Work: "stream", Keys: 150_000, Batch: 100_000}, verdict: ahead(mean, 1),
	},
}

var (
	onBare = contender{label: "bare", setup: harness.Setup{System: "bare", Members: 3}}
	oneKey = harness.Load{Work: "get", Place: harness.OnAll, Keys: 1}
)

// wireRow returns a row of 1000 callers in this process, with 100 connections.
func wireRow(name, about, unit string, beside contender, goal float64, l harness.Load) row {
	return row{
		name: "wire/" + name, about: about, unit: unit, on: []contender{beside.with(endpoints), onCoterie.with(endpoints)},
		load: by(1000, l), conns: 100, verdict: ahead(throughput, goal),
	}
}

// localRead returns the load with serializable reads.
func localRead(l harness.Load) harness.Load {
	l.Local = true
	return l
}
