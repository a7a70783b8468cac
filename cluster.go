// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
)

// A Cluster is several nodes in this process, for programs that keep replicas of their state on several
// disks, for trying things out, and for examples. For tests, see package coterietest.
type Cluster struct {
	nodes []*Node
}

// OpenCluster opens n founding nodes, named node1, node2 and so on, and returns when all of them are ready.
// With cfg.Addr they listen on its host, over TCP or cfg.Network: on consecutive ports, or on free ones if its
// port is 0. Without cfg.Addr they have a memory network of their own. Each node has a directory of its name
// below cfg.Dir. The rest of cfg is the same for all. ctx bounds the call.
//
// Errors: those of [Open] and [Node.Ready]; nothing is left open.
func OpenCluster(ctx context.Context, n int, cfg Config) (*Cluster, error) {
	if n < 1 || cfg.Name != "" || cfg.Advertise != "" || len(cfg.Founders) > 0 {
		return nil, fmt.Errorf("%w: OpenCluster needs at least one node, and neither Name, Advertise nor Founders", ErrInvalidOption)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	listeners, cfg, err := clusterListeners(n, cfg)
	if err != nil {
		return nil, err
	}
	for i, l := range listeners {
		cfg.Founders = append(cfg.Founders, Founder{Name: "node" + strconv.Itoa(i+1), Addr: l.Addr().String()})
	}
	c := &Cluster{}
	if c.nodes, err = openAll(ctx, cfg, listeners); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for _, n := range c.nodes {
		if err := n.Ready(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// openAll opens the founders of a configuration with their listeners, all at the same time, because a node may have much
// to load. It returns the nodes that are open, and an error if there are fewer than listeners.
func openAll(ctx context.Context, cfg Config, listeners []net.Listener) (nodes []*Node, err error) {
	opened, errs := make([]*Node, len(listeners)), make([]error, len(listeners))
	var opening sync.WaitGroup
	for i, l := range listeners {
		own := cfg
		own.Name, own.Addr, own.Advertise = cfg.Founders[i].Name, cfg.Founders[i].Addr, cfg.Founders[i].Addr
		own.Network = listening{cfg.Network, l}
		if cfg.Dir != "" {
			own.Dir = filepath.Join(cfg.Dir, own.Name)
		}
		opening.Go(func() {
			if opened[i], errs[i] = Open(ctx, own); errs[i] != nil {
				l.Close()
			}
		})
	}
	opening.Wait()
	return slices.DeleteFunc(opened, func(n *Node) bool { return n == nil }), cmp.Or(errs...)
}

// clusterListeners opens the ports of all nodes before the nodes, so that each node can be configured with
// the addresses of all.
func clusterListeners(n int, cfg Config) ([]net.Listener, Config, error) {
	if cfg.Addr == "" {
		cfg.Addr = "localhost:0"
		cfg.Network = NewMemoryNetwork()
	}
	if cfg.Network == nil {
		cfg.Network = tcpNetwork{}
	}
	host, port, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, cfg, fmt.Errorf("%w: Config.Addr: %v", ErrInvalidOption, err)
	}
	first, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, cfg, fmt.Errorf("%w: Config.Addr: %v", ErrInvalidOption, err)
	}
	var listeners []net.Listener
	for i := range uint64(n) {
		if first > 0 {
			port = strconv.FormatUint(first+i, 10)
		}
		l, err := cfg.Network.Listen(net.JoinHostPort(host, port))
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, cfg, fmt.Errorf("coterie: listening: %w", err)
		}
		listeners = append(listeners, l)
	}
	return listeners, cfg, nil
}

// listening is a network on which the node's port is open already, as l.
type listening struct {
	Network
	l net.Listener
}

func (n listening) Listen(string) (net.Listener, error) { return n.l, nil }

// Nodes returns the nodes in order: node1, node2 and so on.
func (c *Cluster) Nodes() []*Node { return append([]*Node(nil), c.nodes...) }

// Node returns the node with index i, from 0.
func (c *Cluster) Node(i int) *Node { return c.nodes[i] }

// Leader waits until one of the nodes leads and can serve, and returns it. By then it may have lost
// leadership again.
//
// Errors: ctx's cause, joined with ErrNoLeader; ErrClosed if no node runs.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	for {
		var running *Node
		for _, n := range c.nodes {
			if n.alive(ctx) != nil {
				continue
			}
			if running = n; n.lead.Now().Self {
				return n, n.Ready(ctx)
			}
		}
		if running == nil {
			if err := context.Cause(ctx); err != nil {
				return nil, errors.Join(err, ErrNoLeader)
			}
			return nil, fmt.Errorf("%w: every node of the cluster is closed", ErrClosed)
		}
		if err := running.Ready(ctx); err != nil && !errors.Is(err, ErrClosed) {
			return nil, err
		}
	}
}

// Close closes every node and returns their errors. The leader does not hand over, because no node remains.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.nodes {
		n.stop(nil, false)
	}
	for _, n := range c.nodes {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}
