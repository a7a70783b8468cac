// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

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

// A Transport sends HTTP requests to the instances of a service. The host of the URL names the service.
func ExampleTransport() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "the order of", r.URL.Path)
	}))
	defer server.Close()
	r, err := registry.Register(ctx, n, "services/orders", registry.Instance{ID: "a", Addr: server.Listener.Addr().String()})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close()

	orders, err := registry.NewPicker(ctx, n, "services/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer orders.Close()
	client := &http.Client{Transport: &registry.Transport{Pickers: map[string]*registry.Picker{"orders": orders}}}
	resp, err := client.Get("http://orders/ann")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		log.Fatal(err)
	}
	// Output:
	// the order of /ann
}
