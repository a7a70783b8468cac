// SPDX-License-Identifier: Apache-2.0

// Package registry tells the instances of a service about each other: who is there, where, and whom
// to ask next.
//
//	r, err := registry.Register(ctx, node, "services/orders", registry.Instance{ID: "a", Addr: "10.0.0.7:80"})
//	…
//	orders, err := registry.NewPicker(ctx, node, "services/orders", registry.WithPreferredZone("eu-1"))
//	err = orders.Wait(ctx) // a node that has just begun knows of none
//	…
//	c, err := orders.Pick()
//	if err != nil { … }
//	defer c.Done()
//	call(c.Addr)
//
// An instance is a key under the service's prefix, with a lease: it is there while its process
// lives and reaches the cluster, and a TTL longer if it ends without saying so. A [Registration]
// comes back by itself after any outage. Those who ask have the list in memory: when the quorum is
// lost nobody can be told of a change, so they go on with the last known one, and never with none.
//
// Being registered says that a process is alive, not that it can do its work, and neither that it
// is the only one: whoever must be alone takes a lock. Do not report a load more often than a few
// times a minute: each report is a write, and an event for everyone who follows the service.
package registry
