// SPDX-License-Identifier: Apache-2.0

// Package harness runs workloads on stores and measures them. Module bench and the programs that it compares with coterie
// share it, so that the same callers run on every system. It depends on the standard library alone.
//
// # Systems
//
// A [System] is a running cluster. It has a [Store] for each member, through which callers use it. A store can do more
// than the methods of Store: the other interfaces of this package, such as [Watcher] and [Txner], are optional, and a
// workload that needs one of them fails on a store that lacks it.
//
// # Workloads
//
// A [Load] names a workload and its parameters, and [Prepare] returns it as a [Job] that is ready to run. A run makes calls
// for a given time, checks their results, and returns a [Sample]: the number of operations, their latency, and the CPU
// time, the allocations and the allocated bytes of the process.
//
// # Processes
//
// Each system runs in a process of its own, a child, so that the usage of one is not that of another. The child executes
// [Serve], and its parent starts it with [Start]. They speak a line protocol: the parent writes a [Question] as a line of
// JSON to the standard input of the child, and the child answers it with an [Answer] as a line of JSON on its standard
// output. The first question opens the system. At the end of its input the child closes the system and exits.
//
//	→ {"open":{"system":"coterie","dir":"/tmp/bench1/coterie","members":3}}
//	← {"durability":"…","usage":{"cpuNanos":81000000,"allocs":9120,…}}
//	→ {"prepare":{"work":"put","callers":1000,"place":"leader","valueBytes":256}}
//	← {"usage":{…}}
//	→ {"runNanos":1000000000}
//	← {"sample":{"ops":98000,"elapsedNanos":1000400000,"latency":{"meanNanos":…},"server":{…},"opsPerSecond":97960.8},"usage":{…}}
//
// The callers of such a workload are goroutines of the child, so the usage in the sample is that of the system and of its
// callers. For a system with endpoints, the parent can be the client instead: it asks for the usage of the child with an
// empty question before and after a run, and calls Prepare itself with stores that use the endpoints.
package harness
