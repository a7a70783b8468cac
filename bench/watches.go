// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coterie-kv/coterie/bench/harness"

// watchRows are the rows with watches.
var watchRows = []row{
	beside("watch/fanout", "one writer, and 1000 watches of its key on the leader", "events",
		harness.Load{Work: "fanout", Watchers: 1000}, and(ahead(throughput, 5), "allocs", within(allocs, 1))),
	beside("watch/event", "the time from a put to its event on the leader, while nothing else happens", "events",
		harness.Load{Work: "event", Watchers: 1}, and(ahead(p50, 1.25), "p99", ahead(p99, 1.25))),
	beside("watch/event/follower", "the time from a put on the leader to its event on a follower, while nothing else happens", "events",
		harness.Load{Work: "event", Watchers: 1, Place: harness.OnFollower},
		and(ahead(p99, 1), "bound", within(p99, 10e6))),
	itself("watch/idle", "puts by 1000 callers beside 100,000 watches of other keys, and without", "puts", onCoterie,
		harness.Load{Work: "idlers", Callers: 1000, Watchers: 100_000}, 0.9),
	itself("watch/stalled", "puts by 1000 callers beside 100 watches of the same keys that never read, and without", "puts", onCoterie,
		harness.Load{Work: "stalled", Callers: 1000, Keys: 100, Watchers: 100}, 0.9),
}

// itself returns a row that compares coterie with itself, by the throughput and by the CPU time of an operation.
func itself(name, about, unit string, c contender, l harness.Load, goal float64) row {
	return row{
		name: "local/" + name, about: about, unit: unit, on: []contender{c}, load: l,
		verdict: and([]judge{{quantity: figure(harness.FigureRatio), bound: 1, goal: goal}},
			"cpu", []judge{{quantity: figure(harness.FigureCPU), bound: 1, goal: goal}}),
	}
}
