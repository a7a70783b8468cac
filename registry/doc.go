// SPDX-License-Identifier: Apache-2.0

// Package registry is service discovery: the instances of a service register themselves, and clients
// pick one of them from memory.
//
//	r, err := registry.Register(ctx, node, "services/orders", registry.Instance{ID: "a", Addr: "10.0.0.7:80"})
//	…
//	defer r.Close()
//
//	orders, err := registry.NewPicker(ctx, node, "services/orders", registry.WithPreferredZone("eu-1"))
//	…
//	defer orders.Close()
//	err = orders.Wait(ctx) // a node that has just started knows no instance yet
//	…
//	picked, err := orders.Pick()
//	if err != nil { … }
//	defer picked.Done()
//	call(picked.Addr)
//
// # Instances
//
// An [Instance] is stored under a key below the prefix of its service, and the key has a lease. The
// instance is listed as long as its process lives and reaches the cluster. If the process ends without
// a call of [Registration.Close], the instance is listed until its lease expires. A [Registration]
// registers its instance again after any outage.
//
// A registered instance is alive. It may still be unable to do its work, and it may not be the only
// one: for exclusive work, take a [coterie.Mutex]. Do not report a load more often than a few times a
// minute, because each report is a write, and an event for each program that follows the service.
//
// # Clients
//
// [Resolve] reads the list once. [Follow] yields it after each change. A [Picker] keeps the list in
// memory and picks from it by a [Policy]; a [Transport] does so for HTTP requests. Module
// github.com/coterie-kv/coterie/grpcresolver does the same for gRPC.
//
// Without a quorum nothing can change the list, so a Picker continues with the last list that it knows.
// It never turns to an empty one.
//
// # Contexts
//
// A ctx bounds the call that takes it and nothing else. After [Register] and [NewPicker] have returned, the
// end of their ctx changes nothing. The result lives until its Close, or until the node closes. To
// tie it to a context, use [context.AfterFunc] with its Close method.
package registry
