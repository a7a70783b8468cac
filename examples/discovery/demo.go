// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/registry"
)

// A client calls a service with changing instances. It has a node of its own.
type client struct {
	*http.Client
	base   http.RoundTripper
	node   *coterie.Node
	picker *registry.Picker
	calls  int // answered calls
}

// demo runs four instances in two zones, and a client in one of the zones.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cluster, err := coterie.OpenCluster(ctx, 5, coterie.Config{InMemory: true})
	if err != nil {
		return fmt.Errorf("open five nodes: %w", err)
	}
	defer cluster.Close()
	network := coterie.NewMemoryNetwork() // for HTTP, which uses TCP if there are several processes
	base := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return network.Dial(ctx, addr)
	}}
	defer base.CloseIdleConnections()
	orders := make(chan string, 1)
	instances := map[string]*instance{}
	for i, id := range []string{"a", "b", "c", "d"} {
		l, err := network.Listen(id + ":80")
		if err != nil {
			return err
		}
		self := registry.Instance{ID: id, Zone: []string{"east", "west"}[i/2]}
		if instances[id], err = start(ctx, cluster.Node(i), l, self, orders); err != nil {
			return fmt.Errorf("register %s: %w", id, err)
		}
		defer instances[id].server.Close()
	}

	c := &client{node: cluster.Node(4), base: base}
	if err := c.use(ctx); err != nil {
		return fmt.Errorf("in turn: %w", err)
	}
	if err := c.expect(ctx, "a b c d", "a a b b c c d d"); err != nil {
		return fmt.Errorf("in turn: %w", err)
	}
	if err := c.use(ctx, registry.WithPreferredZone("east")); err != nil {
		return fmt.Errorf("its own zone first: %w", err)
	}
	if err := c.expect(ctx, "a b c d", "a a b b"); err != nil {
		return fmt.Errorf("its own zone first: %w", err)
	}
	crashed, err := c.crash(ctx, instances, orders)
	if err != nil {
		return fmt.Errorf("a crash: %w", err)
	}
	leaves := instances[map[string]string{"a": "b", "b": "a"}[crashed]]
	if err := c.leave(ctx, leaves); err != nil {
		return fmt.Errorf("%s leaves: %w", leaves.ID, err)
	}
	if err := c.loseQuorum(ctx, instances["c"].node); err != nil {
		return fmt.Errorf("lose the quorum: %w", err)
	}
	fmt.Printf("%d calls were answered; no call failed that could be sent again\n", c.calls)
	return nil
}

// use makes the client pick instances by opts, and waits until it knows an instance.
func (c *client) use(ctx context.Context, opts ...registry.PickerOption) (err error) {
	if c.picker != nil {
		c.picker.Close()
	}
	if c.picker, err = registry.NewPicker(ctx, c.node, service, opts...); err != nil {
		return err
	}
	c.Client = clientOf(c.picker, c.base)
	return c.picker.Wait(ctx)
}

// call calls the service once, and returns the ID of the instance that answered. The call must not fail.
func (c *client) call(ctx context.Context) (string, error) {
	id, err := call(ctx, c.Client, http.MethodGet)
	if err == nil {
		c.calls++
	}
	return id, err
}

// callUntil calls the service until a condition holds.
func (c *client) callUntil(ctx context.Context, holds func() bool) error {
	for !holds() {
		if _, err := c.call(ctx); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// expect calls the service until the client knows exactly the instances of list. Then it checks that as
// many further calls as shares has IDs are answered by those instances.
func (c *client) expect(ctx context.Context, list, shares string) error {
	err := c.callUntil(ctx, func() bool {
		var ids []string
		for _, i := range c.picker.Instances() {
			ids = append(ids, i.ID)
		}
		return strings.Join(ids, " ") == list
	})
	if err != nil {
		return err
	}
	var answers []string
	for range strings.Fields(shares) {
		id, err := c.call(ctx)
		if err != nil {
			return err
		}
		answers = append(answers, id)
	}
	fmt.Printf("%s are listed, and calls answered by %s\n", list, strings.Join(answers, " "))
	slices.Sort(answers)
	if strings.Join(answers, " ") != shares {
		return fmt.Errorf("calls should be answered by %s", shares)
	}
	return nil
}

// crash crashes the instance that carries out an order, and returns its ID. The order fails, and is not
// sent to another instance, because it may have been carried out. Later calls do not fail, although the
// client tries the crashed instance until its lease has ended.
func (c *client) crash(ctx context.Context, instances map[string]*instance, orders <-chan string) (string, error) {
	ordered := make(chan error, 1)
	go func() {
		_, err := call(ctx, c.Client, http.MethodPost)
		ordered <- err
	}()
	var crashed *instance
	select {
	case id := <-orders:
		crashed = instances[id]
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	fmt.Printf("%s crashes, while it carries out an order\n", crashed.ID)
	begin := time.Now()
	if err := errors.Join(crashed.server.Close(), crashed.node.Close()); err != nil {
		return "", err
	}
	if err := <-ordered; err == nil || len(orders) > 0 {
		return "", fmt.Errorf("the order was sent again: %v", err)
	}
	fmt.Println("the order fails, and is not sent again")
	list := strings.Replace("a b c d", crashed.ID+" ", "", 1)
	other := strings.Fields(list)[0]
	if err := c.expect(ctx, list, other+" "+other); err != nil {
		return "", err
	}
	fmt.Printf("%s was listed for another %v, and no later call failed\n", crashed.ID, time.Since(begin).Round(time.Millisecond))
	return crashed.ID, nil
}

// leave makes the last instance of the client's zone leave. The list changes at once.
func (c *client) leave(ctx context.Context, leaves *instance) error {
	fmt.Printf("%s leaves, the last one of the client's zone\n", leaves.ID)
	leaves.leave()
	left, err := registry.Resolve(ctx, c.node, service)
	if err != nil {
		return err
	}
	if len(left) != 2 {
		return fmt.Errorf("there are %v instead of two", left)
	}
	return errors.Join(c.expect(ctx, "c d", "c c d d"), leaves.node.Close())
}

// loseQuorum closes a node, so that only a minority remains. The instances continue to serve, but their
// leases cannot be renewed any more. A client that knows them can call them for longer than a TTL.
func (c *client) loseQuorum(ctx context.Context, node *coterie.Node) error {
	if err := node.Close(); err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, ttl/4)
	defer cancel()
	if _, err := registry.Resolve(asked, c.node, service); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("two of five nodes should not be able to answer: %v", err)
	}
	fmt.Println("the quorum is lost: the list of instances cannot change")
	begin := time.Now()
	if err := c.callUntil(ctx, func() bool { return time.Since(begin) > ttl+ttl/4 }); err != nil {
		return err
	}
	if err := c.expect(ctx, "c d", "c d"); err != nil {
		return err
	}
	if err := c.use(ctx); err != nil {
		return err
	}
	return c.expect(ctx, "c d", "c d") // a client that begins now uses the list of its node
}
