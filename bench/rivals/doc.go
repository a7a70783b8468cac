// SPDX-License-Identifier: Apache-2.0

// Package rivals has the parts that the programs below it share. Each program runs a system that a service can embed
// instead of coterie, so that bench can measure it:
//
//	raftboltdb  hashicorp/raft with raft-boltdb, and a map as the state machine
//	dragonboat  dragonboat v4 with its own log, and a map as the state machine
//	nats        the key-value buckets of NATS JetStream, with three replicas
//
// A program has three members in one process, which talk to each other over the loopback interface. The callers are
// goroutines of that process. Package harness has the workloads, the measurements and the protocol between bench and a
// program. A program also runs alone, in its directory:
//
//	go run . -work put -callers 1000 -for 3s
//
// It prints the durability of its system with the results: the writes that are synced before the system acknowledges a
// put.
//
// Each program is a module of its own, so that its dependencies are neither those of coterie nor those of bench. This
// package has none.
package rivals
