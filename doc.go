// SPDX-License-Identifier: Apache-2.0

// Package coterie puts one replica of a small, strongly consistent store inside every instance of a service.
// Services use it to share configuration, elect a leader, hold locks and register themselves. The replicas
// agree through Raft, and no other process is needed.
//
// The data model and the names are etcd's: keys with revisions, transactions, watches, leases, and locks and
// elections on top of them.
//
// # Opening a node
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
// The founders create the cluster together, once, when all of them are up. A node that is added later has
// [Config].Join instead: the addresses of some members.
//
// # Types
//
// A [Node] is a replica. [Node.Put], [Node.Get], [Node.Range], [Node.Delete] and [Node.Txn] read and write
// keys, [Node.Watch] yields their changes, and [Node.Grant] makes a lease. [NewNamespace] is a view of the keys
// with a prefix, and [NewUserView] one with the permissions of a user. A [Session] keeps a lease alive; a [Mutex] and an [Election] need one. [RunWithLock],
// [RunAsLeader] and [Follow] do the most common tasks in one call each.
//
// [OpenCluster] opens several nodes in one process. Package coterietest does so for tests, with faults and
// virtual time. Packages dsync, queue, stm, mirror, registry and sharedconfig are further recipes, and package
// datadir inspects and recovers the directories of nodes.
//
// # Guarantees
//
// Every call works on every node. Reads are linearizable unless an option says otherwise. A write is applied
// once, even if nodes and leaders fail in the meantime. docs/guarantees.md lists for each call and each
// failure whether the call may have had an effect.
//
// # Contexts
//
// The ctx of a call bounds the call, and nothing else. If it ends, the call returns an error that matches the
// cause of ctx. Anything that outlives the call that made it has a Close method and no ctx of its own: a
// [Node] or a [Session] continues after the ctx of [Open] or [NewSession] has ended. Iterators, and the channel
// of [Node.WatchChan], are part of their call and end with its ctx. The ctx of [Node.Txn] bounds the Commit.
//
// Calls have no timeout: without a deadline in ctx they wait for a quorum as long as it takes.
//
// # Results
//
// A call that executes an operation of the store returns a pointer to a response of its own, such as
// [*PutResponse] or [*GrantResponse], which embeds a [Header] with the revision. It is nil if there is an
// error, and otherwise belongs to the caller. [Node.Do] returns an [OpResponse], which has one of them, and
// [Node.Watch] yields a [WatchResponse]; both are plain values. A value that only describes something is
// returned as it is: a [Status], a [Member], a [ClusterLeader], a [Holder].
//
// IDs are 16 hex digits as text, in JSON as well. Durations and errors are text in JSON.
//
// # Errors
//
// Errors are compared with [errors.Is] and [errors.As]. [ErrMaybeApplied] is the only error after which a
// write may have happened. The comment of each call lists its errors.
package coterie
