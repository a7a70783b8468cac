// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coterie-kv/coterie/bench/harness"

// sizeRows are the rows about memory, the number of keys and members, and a cluster without callers.
var sizeRows = []row{
	once(beside("memory", "memory of a member with {added} keys, after a collection: a third of that of the process", "fillings",
		harness.Load{Work: "memory", Added: 1_000_000},
		and(ahead(figure(harness.FigureResident), 1/0.6), "key", within(figure(harness.FigureHeapKey), 330)))),
	once(besideAlone("memory/alone", "memory of a single member with {added} keys, after a collection", "fillings",
		harness.Load{Work: "memory", Added: 1_000_000},
		and(ahead(figure(harness.FigureResident), 1/0.6), "key", within(figure(harness.FigureHeapKey), 330)))),
	once(itself("filling", "puts by 1000 callers: the seventh {ops} beside the first {ops}", "puts", onCoterie,
		harness.Load{Work: "filling", Callers: 1000, Ops: 100_000}, 0.9)),
	once(itself("growing", "puts by 1000 callers among {added} keys beside those among {keys} keys", "puts", onCoterie,
		harness.Load{Work: "growing", Callers: 1000, Keys: 1000, Added: 1_000_000}, 0.7)),
	{
		name: "local/standbys", about: "puts by 1000 callers with 5 members and {standbys} standbys, beside 5 members", unit: "puts",
		on: []contender{
			labeled("without standbys", onCoterie.with(five)),
			labeled("{standbys} standbys", onCoterie.with(five).with(func(s *harness.Setup) { s.Standbys = 50 })),
		},
		load: harness.Load{Work: "put", Callers: 1000}, verdict: ahead(throughput, 0.7),
	},
	{
		name: "local/idle", about: "three members without callers, for each member", unit: "runs",
		on: []contender{onEtcd, onCoterie}, load: harness.Load{Work: "idle"},
		verdict: and(and(within(figure(harness.FigureCPUPercent), 1),
			"goroutines", within(figure(harness.FigureGoroutines), 25)),
			"written", within(figure(harness.FigureWritten), 1)),
	},
}

func five(s *harness.Setup) { s.Members = 5 }
