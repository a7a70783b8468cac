// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coterie-kv/coterie/bench/harness"

// A rival is a system with a program of its own, in a directory below rivals.
type rival struct {
	program, system string
	reads           bool // whether it has linearizable reads
}

// allRivals are the systems that a service can embed instead of coterie.
var allRivals = []rival{
	{program: "raftboltdb", system: "raftboltdb", reads: true},
	{program: "dragonboat", system: "dragonboat", reads: true},
	{program: "dragonboat", system: "dragonboat-snapshots", reads: true},
	{program: "nats", system: "nats-sync"},
	{program: "nats", system: "nats"},
}

// rivalRows returns the rows of all rivals. A flag of the command line selects them, because they build programs.
func rivalRows() (all []row) {
	for _, r := range allRivals {
		other := contender{label: r.system, program: r.program, setup: harness.Setup{System: r.system, Members: 3}}
		add := func(name, about, unit string, l harness.Load, verdict []judge) {
			all = append(all, row{
				name: "rival/" + r.system + "/" + name, about: about, unit: unit, on: []contender{other, onCoterie}, load: l, verdict: verdict,
			})
		}
		add("put/1000", "puts of new keys by 1000 callers of the leader", "puts", putLoad,
			and(ahead(throughput, 1), "allocs", ahead(allocs, 1)))
		add("put/32", "puts of new keys by 32 callers of the leader", "puts", by(32, putLoad), ahead(throughput, 1))
		add("put/1", "puts of new keys by one caller of the leader", "puts", by(1, putLoad), ahead(mean, 1))
		if r.reads {
			add("get/1000", "linearizable gets by 1000 callers of the leader", "gets", getLoad, ahead(throughput, 1))
			add("get/1", "linearizable gets by one caller of the leader", "gets", by(1, getLoad), ahead(mean, 1))
		}
		add("get/1/local", "gets of the leader's own state by one caller", "gets", localRead(by(1, getLoad)), ahead(mean, 1))
	}
	return all
}
