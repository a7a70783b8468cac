// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"log"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/registry"
)

// Two instances register, and a client picks them in turn.
func Example() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	for _, id := range []string{"a", "b"} { // usually, each in its own process
		r, err := registry.Register(ctx, n, "services/orders", registry.Instance{ID: id, Addr: id + ".example:80"})
		if err != nil {
			log.Fatal(err)
		}
		defer r.Close()
	}

	orders, err := registry.NewPicker(ctx, n, "services/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer orders.Close()
	if err := orders.Wait(ctx); err != nil { // until the node knows an instance
		log.Fatal(err)
	}
	for range 3 {
		picked, err := orders.Pick()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("call", picked.Addr)
		picked.Done()
	}
	// Output:
	// call a.example:80
	// call b.example:80
	// call a.example:80
}
