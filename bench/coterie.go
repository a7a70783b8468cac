// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/bench/harness"
	"github.com/coterie-kv/coterie/etcdapi"
)

// A coterieCluster is a cluster of coterie in this process. One goroutine uses it.
type coterieCluster struct {
	setup   harness.Setup
	configs []coterie.Config
	links   []*link         // of each node
	nodes   []*coterie.Node // nil while one is closed
	stopped int             // the index of the node that stopFirst has closed
	fresh   int             // clusters that openFresh has opened
	sys     harness.System
	close   []func() error // of the endpoints and the reserved addresses
}

// openCoterie opens a cluster with the default configuration, and an endpoint on each node if the setup asks for them.
func openCoterie(ctx context.Context, s harness.Setup) (*harness.System, error) {
	c := &coterieCluster{setup: s}
	c.sys.Dir, c.sys.Durability = s.Dir, "a majority of the members has synced its log"
	if s.InMemory {
		c.sys.Dir, c.sys.Durability = "", "none: in memory"
	}
	c.sys.Crash, c.sys.Stop, c.sys.Start, c.sys.Fresh, c.sys.Close = c.crash, c.stopFirst, c.startFirst, c.openFresh, c.closeAll
	if err := c.configure(); err != nil {
		return nil, err
	}
	err := c.openAll(ctx)
	if err == nil && s.Endpoints {
		err = c.serve()
	}
	if err != nil {
		return nil, errors.Join(err, c.closeAll())
	}
	return &c.sys, nil
}

// configure makes the configurations of all nodes. The only node of a cluster has no address.
func (c *coterieCluster) configure() error {
	alone := c.setup.Members == 1 && c.setup.Standbys == 0
	addrs := make([]string, c.setup.Members+c.setup.Standbys)
	var network coterie.Network = tcp{}
	if c.setup.InMemory {
		network = coterie.NewMemoryNetwork()
	}
	if !alone {
		var err error
		var release func() error
		if addrs, release, err = harness.ReserveAddrs(len(addrs)); err != nil {
			return err
		}
		c.close = append(c.close, release)
	}
	var founders []coterie.Founder
	for i, addr := range addrs {
		l := &link{network: network}
		config := coterie.Config{
			Name: fmt.Sprintf("node%d", i+1), Addr: addr, Network: l, SnapshotEntries: c.setup.Snapshots,
			InMemory: c.setup.InMemory, Logger: slog.New(slog.DiscardHandler),
		}
		if !c.setup.InMemory {
			config.Dir = filepath.Join(c.setup.Dir, config.Name)
		}
		switch {
		case alone:
			config.Network = nil
		case i < c.setup.Members:
			founders = append(founders, coterie.Founder{Name: config.Name, Addr: addr})
		default:
			config.Join, config.NonVoter = addrs[:c.setup.Members], true
		}
		c.configs, c.links = append(c.configs, config), append(c.links, l)
	}
	if !alone {
		for i := range c.setup.Members {
			c.configs[i].Founders = founders
		}
	}
	return nil
}

func (c *coterieCluster) openAll(ctx context.Context) error {
	c.nodes = make([]*coterie.Node, len(c.configs))
	for i := range c.configs {
		if err := c.open(ctx, i); err != nil {
			return err
		}
		if i == c.setup.Members-1 || i >= c.setup.Members {
			if err := c.ready(ctx); err != nil { // standbys join one after the other
				return err
			}
		}
	}
	return nil
}

func (c *coterieCluster) open(ctx context.Context, i int) (err error) {
	c.links[i].join()
	c.nodes[i], err = coterie.Open(ctx, c.configs[i])
	return err
}

// ready waits until all nodes that are open can serve, and arranges their stores.
func (c *coterieCluster) ready(ctx context.Context) error {
	for _, n := range c.nodes {
		if n != nil {
			if err := n.Ready(ctx); err != nil {
				return err
			}
		}
	}
	for {
		i := slices.IndexFunc(c.nodes, func(n *coterie.Node) bool { return n != nil && n.Status().Role == coterie.RoleLeader })
		if i >= 0 {
			c.arrange(i)
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// arrange sets the stores, that of a leader first.
func (c *coterieCluster) arrange(leader int) {
	c.sys.Stores = []harness.Store{coterieStore{c.nodes[leader]}}
	for i, n := range c.nodes {
		if n != nil && i != leader {
			c.sys.Stores = append(c.sys.Stores, coterieStore{n})
		}
	}
}

// serve opens an endpoint on each node.
func (c *coterieCluster) serve() error {
	for _, s := range c.sys.Stores {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		serving, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- etcdapi.Serve(serving, l, s.(coterieStore).node) }()
		c.sys.Addrs = append(c.sys.Addrs, l.Addr().String())
		c.close = append(c.close, func() error {
			cancel()
			return <-served
		})
	}
	return nil
}

// first returns the index of the node of the first store.
func (c *coterieCluster) first() int {
	return slices.Index(c.nodes, c.sys.Stores[0].(coterieStore).node)
}

// crash cuts the leader off, and then closes it. All of its connections end at once, as those of a process that dies do.
func (c *coterieCluster) crash(context.Context) (repair func(context.Context) error, err error) {
	i := c.first()
	node := c.nodes[i]
	c.links[i].cut()
	closed := make(chan error, 1)
	go func() { closed <- node.Close() }()
	c.nodes[i] = nil
	c.sys.Stores = c.sys.Stores[1:]
	return func(ctx context.Context) error {
		<-closed // it may have an error because it was cut off
		if err := c.open(ctx, i); err != nil {
			return err
		}
		return c.ready(ctx)
	}, nil
}

func (c *coterieCluster) stopFirst(context.Context) error {
	c.stopped = c.first()
	node := c.nodes[c.stopped]
	c.nodes[c.stopped], c.sys.Stores[0] = nil, nil
	return node.Close()
}

func (c *coterieCluster) startFirst(ctx context.Context) error {
	if err := c.open(ctx, c.stopped); err != nil {
		return err
	}
	return c.ready(ctx)
}

func (c *coterieCluster) openFresh(ctx context.Context) (harness.Store, func() error, error) {
	c.fresh++
	s := c.setup
	s.Dir = filepath.Join(s.Dir, fmt.Sprintf("fresh%d", c.fresh))
	sys, err := openCoterie(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	return sys.Stores[0], sys.Close, nil
}

func (c *coterieCluster) closeAll() error {
	var errs []error
	for _, end := range c.close {
		errs = append(errs, end())
	}
	for i, n := range c.nodes {
		if n != nil {
			c.links[i].cut() // a leader without connections does not try to hand over
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// pause waits for a moment.
func pause(ctx context.Context) error {
	select {
	case <-time.After(5 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
