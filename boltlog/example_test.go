// SPDX-License-Identifier: Apache-2.0

package boltlog_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/boltlog"
)

func Example() {
	dir, err := os.MkdirTemp("", "boltlog")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	config := coterie.Config{Dir: dir, Storage: boltlog.New(boltlog.Options{})}
	node, err := coterie.Open(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	if err := node.Ready(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := node.Put(ctx, "greeting", "hello"); err != nil {
		log.Fatal(err)
	}
	if err := node.Close(); err != nil {
		log.Fatal(err)
	}

	// The directory keeps its storage: Open must name the same one again.
	if node, err = coterie.Open(ctx, config); err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	got, err := node.Get(ctx, "greeting")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Storage, got.KVs[0].Value)
	// Output: bolt hello
}
