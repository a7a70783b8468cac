// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coterie-kv/coterie/bench/harness"

// beside returns a row that runs on etcd and coterie, with callers in the process of the system.
func beside(name, about, unit string, l harness.Load, verdict []judge) row {
	return row{name: "local/" + name, about: about, unit: unit, on: []contender{onEtcd, onCoterie}, load: l, verdict: verdict}
}

// besideAlone returns the same with one member.
func besideAlone(name, about, unit string, l harness.Load, verdict []judge) row {
	return beside(name, about, unit, l, verdict).with(alone)
}

// Loads of many rows.
var (
	putLoad = harness.Load{Work: "put", Callers: 1000}
	getLoad = harness.Load{Work: "get", Callers: 1000, Keys: 1000}
)

// by returns the load with another number of callers.
func by(callers int, l harness.Load) harness.Load {
	l.Callers = callers
	return l
}

// at returns the load with callers of other members.
func at(p harness.Place, l harness.Load) harness.Load {
	l.Place = p
	return l
}

// callRows are the rows with callers that repeat one call.
var callRows = []row{
	beside("put/1000", "puts of new keys by 1000 callers of the leader", "puts", putLoad,
		and(and(ahead(throughput, 8), "cpu", ahead(cpu, 8)), "allocs", within(allocs, 15))),
	beside("put/1000/all", "puts of new keys by 1000 callers of all members", "puts", at(harness.OnAll, putLoad), ahead(throughput, 6)),
	beside("put/32", "puts of new keys by 32 callers of the leader", "puts", by(32, putLoad), ahead(throughput, 3)),
	beside("put/1", "puts of new keys by one caller of the leader", "puts", by(1, putLoad), ahead(mean, 1/0.75)),
	beside("put/1/follower", "puts of new keys by one caller of a follower", "puts", at(harness.OnFollower, by(1, putLoad)), ahead(mean, 1)),
	besideAlone("put/1/alone", "puts of new keys by one caller of a single member", "puts", by(1, putLoad), ahead(mean, 1/0.75)),
	besideAlone("put/200/alone", "puts of new keys by 200 callers of a single member", "puts", by(200, putLoad), ahead(throughput, 3)),
	beside("put/100/64KiB", "puts of 64 KiB by 100 callers of the leader", "puts",
		harness.Load{Work: "overwrite", Callers: 100, Keys: 1000, ValueBytes: 64 << 10}, ahead(throughput, 1)),
	beside("put/1/64KiB", "puts of 64 KiB by one caller of the leader", "puts",
		harness.Load{Work: "overwrite", Callers: 1, Keys: 1000, ValueBytes: 64 << 10}, ahead(mean, 1)),
	beside("put/100/compact", "puts by 100 callers while the history is compacted every 100 ms", "puts",
		harness.Load{Work: "compact", Callers: 100, Keys: 10_000}, ahead(throughput, 1)),
	beside("txn/1000/swap", "transactions that compare and put a key of their own, by 1000 callers", "transactions",
		harness.Load{Work: "swap", Callers: 1000}, ahead(throughput, 6)),
	beside("txn/32/100puts", "transactions of 100 puts of new keys, by 32 callers", "transactions",
		harness.Load{Work: "txn", Callers: 32, Batch: 100}, ahead(throughput, 1)),
	beside("delete/32/range", "a transaction of 100 puts, and the deletion of these keys as a range, by 32 callers", "deletions",
		harness.Load{Work: "delete", Callers: 32, Batch: 100}, ahead(throughput, 1)),

	beside("get/1000", "linearizable gets by 1000 callers of the leader", "gets", getLoad,
		and(ahead(throughput, 15), "allocs", within(allocs, 4))),
	beside("get/1000/follower", "linearizable gets by 1000 callers of a follower", "gets", at(harness.OnFollower, getLoad), ahead(throughput, 10)),
	beside("get/1", "linearizable gets by one caller of the leader", "gets", by(1, getLoad), ahead(mean, 2)),
	beside("get/1/follower", "linearizable gets by one caller of a follower", "gets", at(harness.OnFollower, by(1, getLoad)), ahead(mean, 1)),
	beside("get/1000/follower/five", "linearizable gets by 1000 callers of a follower of five members", "gets",
		at(harness.OnFollower, getLoad), ahead(throughput, 1)).with(five),
	beside("get/1/follower/five", "linearizable gets by one caller of a follower of five members", "gets",
		at(harness.OnFollower, by(1, getLoad)), ahead(mean, 1)).with(five),
	beside("get/1000/serializable", "serializable gets by 1000 callers", "gets", localRead(getLoad),
		and(ahead(throughput, 60), "allocs", within(allocs, 2))),
	beside("get/1/serializable", "serializable gets by one caller", "gets", localRead(by(1, getLoad)), ahead(mean, 20)),
	beside("range/1", "serializable ranges of 1000 keys, of {keys}, by one caller", "ranges",
		harness.Load{Work: "range", Local: true, Keys: 1_000_000, Batch: 1000}, ahead(mean, 5)),
	besideAlone("range/1/alone", "serializable ranges of 1000 keys, of {keys}, of a single member", "ranges",
		harness.Load{Work: "range", Local: true, Keys: 300_000, Batch: 1000}, ahead(mean, 65)),
	beside("count/1", "serializable counts of {keys} keys under a prefix, by one caller", "counts",
		harness.Load{Work: "count", Local: true, Keys: 1_000_000}, ahead(mean, 1000)),
	besideAlone("count/1/alone", "serializable counts of {keys} keys under a prefix, of a single member", "counts",
		harness.Load{Work: "count", Local: true, Keys: 300_000}, ahead(mean, 1000)),

	beside("lease/keepalive", "renewals of 10,000 leases by 100 callers of the leader", "renewals",
		harness.Load{Work: "keepalive", Callers: 100, Leases: 10_000}, ahead(throughput, 5)),
	beside("lease/grant", "grants of leases by 100 callers of the leader", "grants",
		harness.Load{Work: "grant", Callers: 100}, ahead(throughput, 1)),
	beside("lock/1", "locks and unlocks without contention, by one caller of the leader", "locks",
		harness.Load{Work: "lock", Callers: 1}, ahead(mean, 1/0.75)),

	harnessItself("put", "puts of new keys, by one caller", by(1, putLoad), 100),
	harnessItself("get", "linearizable gets, by one caller", by(1, getLoad), 60),
	harnessItself("get/serializable", "serializable gets, by one caller", localRead(by(1, getLoad)), 20),
}

// harnessItself returns a row that measures the harness: calls of a system that does nothing. The bound for the CPU time of
// a call is in nanoseconds.
func harnessItself(name, about string, l harness.Load, bound float64) row {
	return row{
		name: "local/harness/" + name, about: "calls that do nothing, as " + about, unit: "calls",
		on: []contender{{label: "empty", setup: harness.Setup{System: "empty"}}}, load: l, verdict: within(cpu, bound),
	}
}
