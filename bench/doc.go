// SPDX-License-Identifier: Apache-2.0

// Bench measures coterie beside etcd and beside other systems that a service can embed. Each row is a workload that runs
// on two systems in turn, on the same machine.
//
//	go run . -list               # the rows
//	go run . -run local/put      # the rows with matching names
//	go run . -quick              # shorter rounds, fewer keys: all rows in less than ten minutes
//	go run . -json results.json  # every round of every system
//	go run . -profile profiles   # CPU and allocation profiles of the systems
//	go run . -quick -growth      # the curves of growth, or some of them with -run, in less than eight minutes; -json writes them
//	go run ./plots growth.json   # the curves as SVG files
//	go run . -footprint          # a table of an idle cluster and of the size of a program
//
// The commands run in this directory, because bench is a module of its own: etcd's server has many dependencies.
//
// # Systems
//
// Each system runs in a child process, which is this program, started again, or a program of its own in the directory
// rivals. So the CPU time, the allocations and the memory of one system are measured apart from those of the other one.
// The process has all members of the cluster, mostly three, with directories and fsync on. They talk to each other over the
// loopback interface. Package [github.com/coterie-kv/coterie/bench/harness] has the workloads and the protocol between
// the processes.
//
//	etcd     etcd v3.7.3, package server/v3/embed, default configuration
//	coterie  nodes with default configuration
//	bare     gRPC's server with handlers that return constants: the bound for every server that uses gRPC
//	empty    calls that do nothing: the time that the harness itself takes
//
// Each result names the durability of its systems: the writes that are synced before a put is acknowledged.
//
// # Rows
//
// The prefix of a name says where the callers are.
//
//	local/  goroutines of the system's process. They call the nodes of coterie, and etcd through its in-process client
//	        v3client. The usage of the process includes that of the callers.
//	wire/   goroutines of this process, with 100 connections to the endpoints of the system: those of etcd, and etcdapi.Serve
//	        for coterie. The client is go.etcd.io/etcd/client/v3 for both.
//	rival/  as local/, beside a system with a program of its own. These rows run only if -run names them.
//
// # Results
//
// A row runs once for warming up, and then in rounds: A B A B A B. A row that fills, restarts or measures a store as a
// whole has a single round without a warm-up. The result of each system is the median of its rounds: throughput, latency,
// and for each operation the CPU time, the allocations and the allocated bytes of the process. On a busy machine the CPU time
// and the allocations are the quantities to compare.
//
// A row judges one quantity or more. Each verdict is a line, and the lines of all rows come together at the end:
//
//	name ratio goal pass|short
//
// A ratio above 1 always means that coterie is ahead. It is one of these:
//
//   - the throughput of coterie divided by that of the other system
//   - a latency, CPU time, number of allocations or size of memory of the other system, divided by coterie's
//   - for a goal that is a number: the number divided by coterie's figure, and the goal is 1
//   - for a goal that compares coterie with itself: its throughput with something divided by that without
//
// The spread is the least and the largest ratio of two rounds that followed each other.
//
// Each workload checks the results: reads return the value that was written, transactions find the revision that they
// expect, and watches deliver every event once and in order. A wrong result ends the program with status 1. A ratio that is
// short of its goal does not.
//
// # Adding a row
//
// A row is an entry in the list of its file, such as callRows in calls.go. It names the contenders, the load, and the
// judges. A new kind of workload is a job in package harness.
package main
