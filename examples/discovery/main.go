// SPDX-License-Identifier: Apache-2.0

// Discovery registers the instances of a service, and a client calls them over HTTP: in turn, the
// instances of its own zone first, and without a failed call when one of them crashes or leaves.
//
// Without flags, five nodes in one process demonstrate and check this. To run three processes on one
// machine, use a terminal for each:
//
//	go run ./examples/discovery -name a -addr 127.0.0.1:7431 -dir /tmp/discovery/a \
//		-founders a=127.0.0.1:7431,b=127.0.0.1:7432,c=127.0.0.1:7433
//	go run ./examples/discovery -name b -addr 127.0.0.1:7432 -dir /tmp/discovery/b \
//		-founders a=127.0.0.1:7431,b=127.0.0.1:7432,c=127.0.0.1:7433
//	go run ./examples/discovery -name c -addr 127.0.0.1:7433 -dir /tmp/discovery/c \
//		-founders a=127.0.0.1:7431,b=127.0.0.1:7432,c=127.0.0.1:7433
//
// Each process is an instance, and calls the service twice a second. Stop one, or kill it: the calls of
// the others continue. Kill two: the calls of the last one continue, too, although it cannot learn of
// changes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
	"github.com/coterie-kv/coterie/registry"
)

const (
	service = "services/orders"
	ttl     = 2 * time.Second // how long a crashed instance is listed
)

func main() { process.Main(demo, serve) }

// serve runs one of three nodes until ctx ends: an instance, which is also a client.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	host, _, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return err
	}
	self, err := start(ctx, node, listener, registry.Instance{ID: cfg.Name}, nil)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer self.leave()
	orders, err := registry.NewPicker(ctx, node, service)
	if err != nil {
		return err
	}
	defer orders.Close()
	client := clientOf(orders, http.DefaultTransport)
	for tick := time.Tick(time.Second / 2); ; {
		select {
		case <-tick:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if id, err := call(ctx, client, http.MethodGet); err != nil {
			fmt.Printf("%s has no answer: %v\n", cfg.Name, err)
		} else {
			fmt.Printf("%s is answered by %s, one of %d\n", cfg.Name, id, len(orders.Instances()))
		}
	}
}

// An instance is one process of the service.
type instance struct {
	registry.Instance
	node         *coterie.Node
	server       http.Server
	registration *registry.Registration
	orders       chan<- string // receives the ID of the instance that gets an order
}

// start serves HTTP, and then registers the instance.
func start(
	ctx context.Context, node *coterie.Node, l net.Listener, self registry.Instance, orders chan<- string,
) (*instance, error) {
	i := &instance{Instance: self, node: node, orders: orders}
	i.Addr = l.Addr().String()
	i.server.Handler = i
	go i.server.Serve(l)
	var err error
	i.registration, err = registry.Register(ctx, node, service, i.Instance, registry.WithTTL(ttl))
	if err != nil {
		return nil, errors.Join(err, i.server.Close())
	}
	return i, nil
}

// ServeHTTP answers at once with the instance's ID. Only an order, which is a POST, takes longer than any
// caller waits.
func (i *instance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		select {
		case i.orders <- i.ID:
		case <-r.Context().Done():
		}
		<-r.Context().Done()
	}
	fmt.Fprint(w, i.ID)
}

// leave deregisters the instance. Only then it stops serving, when it has answered all calls.
func (i *instance) leave() {
	i.registration.Close()
	_ = i.server.Shutdown(context.Background()) // waits for calls; the error is of the listener, and does not matter
}

// clientOf returns an HTTP client that reaches the service as the host orders.
func clientOf(orders *registry.Picker, base http.RoundTripper) *http.Client {
	return &http.Client{Transport: &registry.Transport{Pickers: map[string]*registry.Picker{"orders": orders}, Base: base}}
}

// call calls the service, and returns the ID of the instance that answered.
func call(ctx context.Context, client *http.Client, method string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://orders/", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(resp.Status)
	}
	id, err := io.ReadAll(resp.Body)
	return string(id), err
}
