// SPDX-License-Identifier: Apache-2.0

// Package grpcresolver has gRPC clients call the instances of a service that package registry
// knows. It is a module of its own, so that who does not use gRPC has none of it.
//
//	conn, err := grpc.NewClient("coterie:///services/orders",
//		grpc.WithResolvers(grpcresolver.New(node)),
//		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`), …)
//
// What follows "coterie:///" is the service as registry.Register has it. Without a service config
// gRPC sends all calls to one instance; round_robin sends them to each in turn, and [NewBalancer]'s
// policy as registry's pickers do: of the zone first, by weight, by load, or by what is in flight.
//
// The instances are those that the node knows, and each change reaches the client at once. When the
// quorum is lost nobody can be told of a change: calls go on to those that were known last. Of
// these gRPC itself finds out who is reached; who is reached and cannot work is told by gRPC's
// health checks, which both policies heed.
//
// With TLS, the name that a server has to prove is the target's: "services%2Forders", which few
// certificates have. grpc.WithAuthority gives another one. Where HTTPS_PROXY is set, gRPC sends
// what is not local to the proxy, as if all instances were one: grpc.WithNoProxy prevents that.
package grpcresolver
