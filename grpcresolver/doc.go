// SPDX-License-Identifier: Apache-2.0

// Package grpcresolver lets gRPC clients call the instances of a service that package
// [github.com/coterie-kv/coterie/registry] lists.
//
//	conn, err := grpc.NewClient("coterie:///services/orders",
//		grpc.WithResolvers(grpcresolver.New(node)),
//		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`), …)
//
// # Targets
//
// The part of the target after "coterie:///" is the service, as [registry.Register] takes it.
//
// # Balancing
//
// Without a service config, gRPC sends all calls to one instance. With round_robin it sends them to each
// instance in turn. The policy of [NewBalancer] picks as a [registry.Picker] does: it can prefer a zone, and
// use weights, reported loads, or the number of calls in flight.
//
// # Failures
//
// A client has the instances that its node knows, and gets each change at once. Without a quorum the list
// cannot change, so calls continue to the last known instances. gRPC itself notices which of them it cannot
// reach. For instances that are reachable and cannot work, enable gRPC's health checks; round_robin and
// NewBalancer's policy both use them.
//
// # TLS and proxies
//
// With TLS, the certificate of a server must have the name of the target, such as "services%2Forders", which
// few certificates have. Set another name with grpc.WithAuthority. If HTTPS_PROXY is set, gRPC sends all
// calls that are not local to the proxy, as if all instances were one. grpc.WithNoProxy prevents that.
//
// # Module
//
// This package is a module of its own, so that programs without gRPC do not link it. Require it together with
// the root module:
//
//	go get github.com/coterie-kv/coterie@latest github.com/coterie-kv/coterie/grpcresolver@latest
//
// docs/versioning.md says which versions of the two modules fit together.
package grpcresolver
