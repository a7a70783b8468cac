// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coterie-kv/coterie/bench/harness"

// faultRows are the rows with crashes, starts and snapshots.
var faultRows = []row{
	beside("crash", "the time from a crash of the leader to the next put, with election timeouts of 1 s", "crashes",
		harness.Load{Work: "crash"}, ahead(mean, 1)),
	once(besideAlone("restart", "the time from the start of a single member with {keys} keys to its first read", "starts",
		harness.Load{Work: "restart", Keys: 1_000_000}, and(ahead(mean, 2), "bound", within(mean, 1e9)))),
	besideAlone("open/alone", "the time from the start of a new single member to its first put", "starts",
		harness.Load{Work: "open"}, and(ahead(mean, 1), "bound", within(mean, 200e6))),
	{
		name: "local/open/memory", about: "the time from the start of a new cluster of three in memory to its first put", unit: "starts",
		on:   []contender{onCoterie.with(inMemory)},
		load: harness.Load{Work: "open"}, verdict: within(mean, 200e6),
	},
	beside("put/1/snapshot", "puts by one caller among {keys} keys, with snapshots", "puts", snapshotLoad,
		and(ahead(p999, 1), "longest", ahead(longest, 1))),
	snapshotItself("itself", snapshotLoad),
	once(snapshotItself("itself/1M", harness.Load{Work: "put", Callers: 1, Keys: 1_000_000, Ops: 80_000})),
}

// snapshotLoad is long enough for a snapshot, which all systems take every 10,000 entries. With 1 M keys,
// coterie takes one only when its log has a sixteenth of their size.
var snapshotLoad = harness.Load{Work: "put", Callers: 1, Keys: 100_000, Ops: 12_000}

// snapshotItself returns a row that compares coterie with itself without snapshots.
func snapshotItself(name string, l harness.Load) row {
	return row{
		name: "local/put/1/snapshot/" + name, about: "puts by one caller among {keys} keys, with snapshots, beside the same without",
		unit: "puts", on: []contender{labeled("without snapshots", onCoterie.with(withoutSnapshots)), onCoterie}, load: l,
		verdict: and(and(ahead(p99, 1/1.2), "p99.9", ahead(p999, 0.5)), "longest", ahead(longest, 0.5)),
	}
}

// Changes of a setup.
func inMemory(s *harness.Setup)         { s.InMemory = true }
func withoutSnapshots(s *harness.Setup) { s.Snapshots = 1 << 40 }

// labeled returns the contender with another label.
func labeled(label string, c contender) contender {
	c.label = label
	return c
}

// once returns the row with one run and no warm-up.
func once(r row) row {
	r.once = true
	return r
}
