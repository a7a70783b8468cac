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

// A client calls a service whose instances come and go. It runs beside a node of its own.
type client struct {
	*http.Client
	base   http.RoundTripper
	node   *coterie.Node
	picker *registry.Picker
	calls  int // that were answered
}

// demo has four instances in two zones, and a client in one of these.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cluster, err := coterie.OpenCluster(ctx, 5, coterie.Config{InMemory: true})
	if err != nil {
		return fmt.Errorf("open five nodes: %w", err)
	}
	defer cluster.Close()
	network := coterie.NewMemoryNetwork() // for HTTP, which goes over TCP where there are several processes
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
		return fmt.Errorf("the own zone first: %w", err)
	}
	if err := c.expect(ctx, "a b c d", "a a b b"); err != nil {
		return fmt.Errorf("the own zone first: %w", err)
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
	fmt.Printf("%d calls were answered; of those that had not been sent, none has failed\n", c.calls)
	return nil
}

// use has the client pick instances in a way, from when it knows of one.
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

// call calls the service once, which must not fail, and returns who has answered.
func (c *client) call(ctx context.Context) (string, error) {
	who, err := call(ctx, c.Client, http.MethodGet)
	if err == nil {
		c.calls++
	}
	return who, err
}

// callUntil goes on calling until something is so.
func (c *client) callUntil(ctx context.Context, so func() bool) error {
	for !so() {
		if _, err := c.call(ctx); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// expect goes on calling until the client knows of certain instances and no others, and then checks
// that each one's share of the calls is what it should be.
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
		who, err := c.call(ctx)
		if err != nil {
			return err
		}
		answers = append(answers, who)
	}
	fmt.Printf("%s are listed, and calls answered by %s\n", list, strings.Join(answers, " "))
	slices.Sort(answers)
	if strings.Join(answers, " ") != shares {
		return fmt.Errorf("calls should be answered by %s", shares)
	}
	return nil
}

// crash has the instance crash that is carrying out an order, and returns its ID. The order fails, and
// is not sent to another: it may have been carried out. What comes later does not fail, though the
// client goes on trying who has crashed until the lease has ended.
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
	fmt.Printf("%s was listed for %v, and all calls went on\n", crashed.ID, time.Since(begin).Round(time.Millisecond))
	return crashed.ID, nil
}

// leave has an instance leave, the last one of the client's zone, which is known at once.
func (c *client) leave(ctx context.Context, leaves *instance) error {
	fmt.Printf("%s leaves, the last one of the client's zone\n", leaves.ID)
	leaves.leave()
	left, err := registry.Resolve(ctx, c.node, service)
	if err != nil {
		return err
	}
	if len(left) != 2 {
		return fmt.Errorf("there are %v, and not two", left)
	}
	return errors.Join(c.expect(ctx, "c d", "c c d d"), leaves.node.Close())
}

// loseQuorum closes a node, so that a minority is left. The instances go on serving, but their leases
// cannot be renewed any more; whoever knew of them goes on calling them, for longer than a TTL.
func (c *client) loseQuorum(ctx context.Context, node *coterie.Node) error {
	if err := node.Close(); err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, ttl/4)
	defer cancel()
	if _, err := registry.Resolve(asked, c.node, service); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("two of five nodes should not be able to tell: %v", err)
	}
	fmt.Println("the quorum is lost: nobody can tell who is there")
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
	return c.expect(ctx, "c d", "c d") // who begins only now goes by what its node knows
}
