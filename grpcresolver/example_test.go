// SPDX-License-Identifier: Apache-2.0

package grpcresolver_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/grpcresolver"
	"github.com/coterie-kv/coterie/registry"
)

// Two servers register, and a client calls them over TCP.
func Example() {
	ctx := context.Background()
	node, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()

	for _, id := range []string{"a", "b"} { // usually, each in its own process
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		s := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(s, health.NewServer())
		go func() { _ = s.Serve(l) }()
		defer s.Stop()
		r, err := registry.Register(ctx, node, "services/orders", registry.Instance{ID: id, Addr: l.Addr().String()})
		if err != nil {
			log.Fatal(err)
		}
		defer r.Close()
	}

	conn, err := grpc.NewClient("coterie:///services/orders",
		grpc.WithResolvers(grpcresolver.New(node)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(answer.Status)
	}
	// Output:
	// SERVING
	// SERVING
	// SERVING
}

// A client prefers the instances of its own zone, and picks the one with the fewest calls in flight.
func ExampleNewBalancer() {
	node, err := coterie.Open(context.Background(), coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()

	balancer.Register(grpcresolver.NewBalancer()) // at the beginning of main
	conn, err := grpc.NewClient("coterie:///services/orders",
		grpc.WithResolvers(grpcresolver.New(node)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"coterie": {"policy": "least_in_flight", "zone": "eu-1"}}]}`),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(conn.Target())
	// Output:
	// coterie:///services/orders
}
