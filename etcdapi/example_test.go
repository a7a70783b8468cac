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

// One port serves etcd's services and those of the program.
func ExampleRegister() {
	node, err := coterie.Open(context.Background(), coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	server := grpc.NewServer(etcdapi.ServerOptions(node)...)
	etcdapi.Register(server, node)
	// The program registers its own services here, and serves.
	_, ok := server.GetServiceInfo()["etcdserverpb.KV"]
	fmt.Println(ok)
	// Output: true
}
