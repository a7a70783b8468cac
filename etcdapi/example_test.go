// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"fmt"
	"log"
	"net"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// A client of etcd reaches a node over TCP.
func ExampleServe() {
	ctx, stop := context.WithCancel(context.Background())
	node, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- etcdapi.Serve(ctx, l, node) }()

	client, err := clientv3.New(clientv3.Config{Endpoints: []string{l.Addr().String()}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Put(ctx, "greeting", "hello"); err != nil {
		log.Fatal(err)
	}
	r, err := node.Get(ctx, "greeting") // the same store
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.KVs[0].Value)
	stop()
	fmt.Println(<-served)
	// Output:
	// hello
	// <nil>
}

// Code that is written for etcd takes a lock on an embedded node.
func ExampleNewClient() {
	ctx := context.Background()
	node, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	client := etcdapi.NewClient(node)
	defer client.Close()

	session, err := concurrency.NewSession(client)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close()
	mutex := concurrency.NewMutex(session, "job")
	if err := mutex.Lock(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("locked")
	if err := mutex.Unlock(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: locked
}

// One port serves etcd's services and those of the program: here a health service that knows the service "orders".
func ExampleRegister() {
	ctx := context.Background()
	node, err := coterie.Open(ctx, coterie.Config{
		InMemory: true, Metadata: map[string]string{etcdapi.MetadataClientURLs: "http://127.0.0.1:8080"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Ready(ctx); err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(etcdapi.ServerOptions(node)...)
	own := health.NewServer()
	own.SetServingStatus("orders", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, own)
	etcdapi.Register(server, node)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	defer server.Stop()

	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	status, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "orders"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("orders:", status.Status)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{l.Addr().String()}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	members, err := client.MemberList(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("members:", members.Members[0].ClientURLs)
	// Output:
	// orders: SERVING
	// members: [http://127.0.0.1:8080]
}
