// SPDX-License-Identifier: Apache-2.0

// Notification connects systems that know nothing of each other except a directory of the store, which all of them watch.
// A heartbeat shows that a system is up. An order assigns a part of the work to a system, and progress shows how much of it
// is done. Heartbeats and progress have a lease, so they end with their system.
//
// Without flags, three nodes in one process show this and check it. To run it as three processes on one machine,
// use a terminal for each:
//
//	go run ./examples/notification -name a -addr 127.0.0.1:7461 -dir /tmp/notification/a \
//		-founders a=127.0.0.1:7461,b=127.0.0.1:7462,c=127.0.0.1:7463
//	go run ./examples/notification -name b -addr 127.0.0.1:7462 -dir /tmp/notification/b \
//		-founders a=127.0.0.1:7461,b=127.0.0.1:7462,c=127.0.0.1:7463
//	go run ./examples/notification -name c -addr 127.0.0.1:7463 -dir /tmp/notification/c \
//		-founders a=127.0.0.1:7461,b=127.0.0.1:7462,c=127.0.0.1:7463
//
// Each process is a system and a console. Type the line "b news" into any of them to order b to push news. Kill b while it
// does so: another system continues its work.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
)

func main() { process.Main(demo, serve) }

// serve runs one of three nodes, with a system and a console, until ctx ends.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	go read(ctx, node, os.Stdin)
	watching := make(chan error, 1)
	go func() {
		watching <- newConsole(node).watch(ctx, func(coterie.PrefixState) (bool, error) { return false, nil })
	}()
	for {
		err := serveOrders(ctx, node, cfg.Name)
		if !errors.Is(err, coterie.ErrSessionExpired) {
			return errors.Join(err, <-watching)
		}
		fmt.Printf("%s was cut off until its session expired, and opens another session\n", cfg.Name)
	}
}

// serveOrders runs a system until its session ends.
func serveOrders(ctx context.Context, node *coterie.Node, name string) error {
	s, err := join(ctx, node, name, 5*time.Second)
	if err != nil {
		return err
	}
	defer s.session.Close()
	s.step = time.Second
	return s.serve(ctx)
}

// read gives typed orders.
func read(ctx context.Context, node *coterie.Node, from io.Reader) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		system, part, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.Contains(part, "/") {
			fmt.Println("type the name of a system and a part")
			continue
		}
		if err := order(ctx, node, system, part); err != nil {
			fmt.Printf("order %s: %v\n", part, err)
		}
	}
}

// demo orders two systems to push a part of a message each. One of them crashes.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cluster, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true})
	if err != nil {
		return fmt.Errorf("open three nodes: %w", err)
	}
	defer cluster.Close()
	const ttl = 2 * time.Second
	push1, err := join(ctx, cluster.Node(1), "push1", ttl)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	push2, err := join(ctx, cluster.Node(2), "push2", ttl)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	push1.step, push2.step, push2.stuck = 50*time.Millisecond, 50*time.Millisecond, 50
	for _, s := range []*system{push1, push2} {
		go s.serve(ctx)
	}

	node := cluster.Node(0)
	var crashed time.Time // zero until push2 crashes
	var noticed bool
	return newConsole(node).watch(ctx, func(m coterie.PrefixState) (enough bool, err error) {
		if m.Events == nil { // both systems are up, and there are no orders yet
			return false, errors.Join(order(ctx, node, "push1", "north"), order(ctx, node, "push2", "south"))
		}
		for _, e := range m.Events {
			switch {
			case e.KV.Key == progress+"south" && e.KV.Value == "50" && crashed.IsZero():
				fmt.Println("push2 crashes with half of its part done")
				crashed = time.Now()
				if err := push2.session.Node().Close(); err != nil {
					return false, err
				}
			case e.KV.Key == systems+"push2" && e.Type == coterie.EventDelete:
				noticed = true
				fmt.Printf("the console notices after %v; the TTL of the lease is %v\n", time.Since(crashed).Round(time.Millisecond), ttl)
				if _, ok := m.KVs[progress+"south"]; ok || len(m.Events) != 2 {
					return false, errors.New("the progress did not end with its system in one revision")
				}
			case e.KV.Key == progress+"south" && noticed && e.Type == coterie.EventPut && e.KV.Value < "50":
				return false, errors.New("push1 did the first half of south again")
			}
		}
		north, south := m.KVs[done+"north"], m.KVs[done+"south"]
		if north.Version == 0 || south.Version == 0 {
			return false, nil
		}
		if !noticed || north.Value != "push1" || south.Value != "push1" || north.Version+south.Version != 2 {
			return true, fmt.Errorf("push1 should have done both parts, once: %v %v", north, south)
		}
		fmt.Println("both parts are done, each once")
		return true, nil
	})
}
