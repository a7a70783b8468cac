// SPDX-License-Identifier: Apache-2.0

// Command oneport is a service with one port: it serves its own gRPC service and etcd's protocol, both on the node in its
// process.
//
//	oneport                      # places an order, reads it with an etcd client, and ends
//	oneport -addr :2379          # serves until it is interrupted
//	etcdctl get --prefix orders/ # beside it
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

func main() {
	addr := flag.String("addr", "", "address to serve until interrupted; without it the program shows one order and ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *addr == "" {
		err = demonstrate(ctx, os.Stdout)
	} else {
		err = listenAndServe(ctx, *addr)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func listenAndServe(ctx context.Context, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return serve(ctx, l)
}

// serve opens a node, and serves it on a listener until ctx ends.
func serve(ctx context.Context, l net.Listener) error {
	node, err := coterie.Open(ctx, coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		l.Close()
		return err
	}
	defer node.Close()
	server := grpc.NewServer(etcdapi.ServerOptions(node)...)
	registerOrders(server, &orders{node})
	etcdapi.Register(server, node)
	defer context.AfterFunc(ctx, server.Stop)()
	return server.Serve(l)
}

// demonstrate places an order with a client of the service, and reads it with a client of etcd.
func demonstrate(ctx context.Context, out io.Writer) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- serve(ctx, l) }()
	if err := useBoth(ctx, l.Addr().String(), out); err != nil {
		return err
	}
	stop()
	return <-served
}

func useBoth(ctx context.Context, addr string, out io.Writer) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	key, err := place(ctx, conn, "three lamps")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "placed", key)

	client, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer client.Close()
	resp, err := client.Get(ctx, "orders/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	for _, kv := range resp.Kvs {
		fmt.Fprintf(out, "etcd's client reads %s: %s\n", kv.Key, kv.Value)
	}
	return nil
}
