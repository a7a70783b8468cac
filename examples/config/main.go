// SPDX-License-Identifier: Apache-2.0

// Config shares configuration: every instance follows one prefix of the store, and any of them may
// change it.
//
// Without flags, three nodes in one process show and check that. As three processes on one machine,
// each in a terminal of its own:
//
//	go run ./examples/config -name a -addr 127.0.0.1:7401 -dir /tmp/config/a \
//		-peers a=127.0.0.1:7401,b=127.0.0.1:7402,c=127.0.0.1:7403
//	go run ./examples/config -name b -addr 127.0.0.1:7402 -dir /tmp/config/b \
//		-peers a=127.0.0.1:7401,b=127.0.0.1:7402,c=127.0.0.1:7403
//	go run ./examples/config -name c -addr 127.0.0.1:7403 -dir /tmp/config/c \
//		-peers a=127.0.0.1:7401,b=127.0.0.1:7402,c=127.0.0.1:7403
//
// Each prints the configuration whenever it changes. A line such as log.level=debug, typed into any
// of them, changes it for all.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
)

// prefix is where the configuration lives in the store.
const prefix = "config/"

func main() { process.Main(demo, serve) }

// serve runs one of three nodes: it follows the configuration until ctx ends, and sets what is
// typed.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits until a majority of the %d nodes is up\n", cfg.Name, len(cfg.Peers))
	go set(ctx, node, os.Stdin)
	for m, err := range coterie.Follow(ctx, node, prefix) {
		if err != nil {
			return err
		}
		fmt.Printf("%s has revision %d: %s\n", cfg.Name, m.Revision, describe(m))
	}
	return nil
}

// set stores what is read, in lines of the form key=value.
func set(ctx context.Context, node *coterie.Node, from io.Reader) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if !ok {
			fmt.Println("type key=value to set a key")
			continue
		}
		if _, err := node.Put(ctx, prefix+key, value); err != nil {
			fmt.Printf("setting %s: %v\n", key, err)
		}
	}
}

// describe shows a whole configuration in a line.
func describe(m coterie.Mirror) string {
	if len(m.KVs) == 0 {
		return "nothing"
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(m.KVs)) {
		pairs = append(pairs, strings.TrimPrefix(key, prefix)+"="+m.KVs[key].Value)
	}
	return strings.Join(pairs, " ")
}

// demo has one of three nodes follow what the others change, and checks what it sees.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cluster, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true})
	if err != nil {
		return fmt.Errorf("open three nodes: %w", err)
	}
	defer cluster.Close()
	node1, node2, node3 := cluster.Node(0), cluster.Node(1), cluster.Node(2)

	// The usual loop, pulled one by one, to tell what node3 sees after each change.
	see, stop := iter.Pull2(coterie.Follow(ctx, node3, prefix))
	defer stop()
	for _, step := range []struct {
		name string
		node *coterie.Node
		ops  []coterie.Op // all of them at once
		want string
	}{
		{"nothing is set", node1, nil, "nothing"},
		{"node1 sets a key", node1, []coterie.Op{coterie.OpPut(prefix+"log.level", "info")}, "log.level=info"},
		{
			"node2 sets two keys at once", node2,
			[]coterie.Op{coterie.OpPut(prefix+"log.level", "debug"), coterie.OpPut(prefix+"rate", "50")},
			"log.level=debug rate=50",
		},
		{"node1 deletes a key", node1, []coterie.Op{coterie.OpDelete(prefix + "log.level")}, "rate=50"},
	} {
		if _, err := step.node.Txn(ctx).Then(step.ops...).Commit(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		m, err, _ := see()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if describe(m) != step.want {
			return fmt.Errorf("%s: node3 has %s", step.name, describe(m))
		}
		fmt.Printf("%-28s node3 has %s\n", step.name, describe(m))
	}
	return nil
}
