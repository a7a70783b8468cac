// SPDX-License-Identifier: Apache-2.0

// Hello is one instance of a service. Start three, in three terminals, then stop or kill any of them:
//
//	go run . a
//	go run . b
//	go run . c
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/coterie-kv/coterie"
)

func main() {
	name := os.Args[1]
	addrs := map[string]string{"a": "127.0.0.1:7401", "b": "127.0.0.1:7402", "c": "127.0.0.1:7403"}
	cfg := coterie.Config{Name: name, Addr: addrs[name], Dir: "data-" + name}
	for name, addr := range addrs { // the same in each instance: they found the cluster together, once
		cfg.Founders = append(cfg.Founders, coterie.Founder{Name: name, Addr: addr})
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, cfg); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, cfg coterie.Config) error {
	n, err := coterie.Open(ctx, cfg) // the replica in this process
	if err != nil {
		return err
	}
	defer n.Close()
	if err := n.Ready(ctx); err != nil { // returns when there is a leader and this replica is up to date
		return err
	}

	go func() { // each instance sees each change
		for state, err := range coterie.Follow(ctx, n, "greeting") {
			if err != nil {
				return // ctx has ended
			}
			if kv, ok := state.KVs["greeting"]; ok {
				fmt.Println(cfg.Name, "sees:", kv.Value)
			}
		}
	}()

	// One instance leads. If it stops, another one leads at once; if it crashes, after its TTL.
	return coterie.RunAsLeader(ctx, n, "leader", cfg.Name, func(ctx context.Context, token int64) error {
		if _, err := n.Put(ctx, "greeting", "hello from "+cfg.Name); err != nil {
			return err
		}
		<-ctx.Done() // the work of the leader goes here
		return ctx.Err()
	}, coterie.WithTTL(3*time.Second))
}
