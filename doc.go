// SPDX-License-Identifier: Apache-2.0

// Package coterie puts one replica of a small, strongly consistent store inside every instance of a
// service, to share configuration, elect a leader, hold locks and register services. The replicas
// agree through Raft; there is nothing else to run.
//
// The data model and the words are etcd's: keys with revisions, transactions, watches, leases, and
// on them locks and elections.
//
//	n, err := coterie.Open(ctx, coterie.Config{
//		Name: "a", Addr: "10.0.0.1:7400", Dir: "/var/lib/service",
//		Founders: []coterie.Founder{
//			{Name: "a", Addr: "10.0.0.1:7400"}, {Name: "b", Addr: "10.0.0.2:7400"}, {Name: "c", Addr: "10.0.0.3:7400"},
//		},
//	})
//	if err != nil { … }
//	defer n.Close()
//	err = n.Ready(ctx)
//
// The founders found the cluster once, when all of them are up. A node that comes later is given
// [Config].Join, addresses of some members, instead.
//
// There are few types: a [Node] is a replica, opened from a [Config]. It puts, gets and deletes
// [KeyValue]s, commits a [Txn], yields a watch of [Event]s, and grants a [Lease]. A [Session] keeps
// a lease alive, and a [Mutex] and an [Election] stand on one. [RunAsLeader] and [Follow] are the
// two main uses, each in one call. A [Cluster] is several nodes in one process; package coterietest
// has one for tests, with faults and virtual time.
//
// Every call works on every node. Reads are linearizable unless an option says otherwise; a write
// is applied once, though nodes and leaders fail while it is under way. docs/guarantees.md says
// what may have happened after each error.
package coterie
