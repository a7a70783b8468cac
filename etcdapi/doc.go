// SPDX-License-Identifier: Apache-2.0

// Package etcdapi gives a [coterie.Node] the protocol of etcd v3.7: etcdctl, and every program with a client of etcd,
// can use the node.
//
//	l, err := net.Listen("tcp", ":2379")
//	if err != nil { … }
//	err = etcdapi.Serve(ctx, l, node, etcdapi.WithClientURLs("http://10.0.0.1:2379"))
//
// A program that has a gRPC server already calls [Register], and its port serves etcd's services beside its own.
//
// # Without a network
//
// [NewClient] returns a *clientv3.Client that calls the node directly. Code that is written for etcd runs on an
// embedded node with it: the packages concurrency, namespace, ordering, leasing, mirror and naming, and the recipes.
// [NewConn] is the same for the generated clients.
//
// # Services
//
// The services are KV, Watch, Lease, Cluster, Maintenance, Auth, v3lock, v3election and grpc.health.v1. Their answers,
// limits and errors are those of etcd; docs/etcd-parity.md lists the differences. Every node with a vote answers every
// call, so a client may use any endpoint. The endpoint of a node without a vote answers as a learner of etcd does, unless it
// has [WithLearnerCalls].
//
// A call that needs the cluster has the time that etcd gives it, 5 s and two election timeouts. A write that has taken
// longer may still happen, as in etcd.
//
// # HTTP
//
// [Serve] answers HTTP on the same port: etcd's JSON gateway below /v3/, for instance POST /v3/kv/range, and the paths
// /health, /livez, /readyz, /version and /metrics. [NewHandler] returns them for a server of the caller, and [ServeMetrics]
// serves the paths for health and metrics on a listener of their own. Streams of the gateway work over websockets, too.
//
// # Users
//
// The service Auth changes the users and roles of the node, and enables the checks of permissions. Then the user of a
// call over a network is that of its token; or, over gRPC, the common name in the client's certificate
// ([WithCommonNames]). Otherwise the call has no user. Tokens are those of the node, or JSON web tokens ([WithJWT]).
// Calls of [NewClient] and [NewConn] are the program's own and not checked, unless they have a token, or the client has
// [WithUser].
//
// # Security
//
// [WithTLS] makes an endpoint use TLS, and [LoadTLS] returns a configuration that follows its files, requires
// certificates of clients, and rejects revoked ones. Connections, streams and requests are bounded: see
// [WithMaxConnections], [WithMaxStreams], and coterie.Config.MaxRequestBytes.
//
// # Module
//
// This package is a module of its own, so that programs without gRPC do not link it. Require it together with the root
// module:
//
//	go get github.com/coterie-kv/coterie@latest github.com/coterie-kv/coterie/etcdapi@latest
package etcdapi
