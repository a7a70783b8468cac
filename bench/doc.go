// SPDX-License-Identifier: Apache-2.0

// Bench measures coterie beside etcd. Each row is a workload that runs on both systems in turn, on the same machine.
//
//	go run . -list               # the rows
//	go run . -run wire/put       # the rows whose names match
//	go run . -quick              # shorter rounds
//	go run . -json results.json  # every round of every system
//	go run . -profile profiles   # CPU and allocation profiles of the servers
//
// The commands run in this directory, because bench is a module of its own: etcd's server has many dependencies.
//
// # Systems
//
// The rows whose names begin with wire/ measure servers through gRPC. Each server is a child process: this program,
// started again. So the CPU time and the allocations of a server are measured apart from those of the clients. A
// server process has three members, with directories and fsync on, which talk to each other over the loopback
// interface. The client is go.etcd.io/etcd/client/v3 for every system.
//
//	etcd     etcd v3.7.3, package server/v3/embed, default configuration
//	coterie  three nodes with default configuration, and etcdapi.Serve on each
//	bare     gRPC's server with handlers that return constants: the bound for every server that uses gRPC
//
// # Results
//
// A row runs once for warming up, and then in rounds: A B A B A B. It reports for each system the median of the rounds:
// throughput, latency (mean, p50, p99, p99.9), and for each operation the CPU time of the server and of the clients,
// and the allocations and allocated bytes of the server. The ratio is that of the medians of the throughput, coterie's to
// the other's. The spread is the least and the largest ratio of two rounds that followed each other. On a busy machine the
// CPU time and the allocations are the quantities to compare. The last line of a row is
//
//	name ratio goal pass|short
//
// Each workload checks the results: reads return the value that was written, and watches deliver every event once and in
// order. A wrong result ends the program with status 1. A ratio that is short of its goal does not.
//
// # Adding a row
//
// A row is an entry in the list of its file, such as wireRows in wire.go. It names two systems, and a function
// that prepares the workload on one of them. The prepared workload runs for a given time, checks its results, and returns
// a sample.
package main
