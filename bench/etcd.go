// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	"github.com/coterie-kv/coterie/bench/harness"
)

// An etcdCluster is a cluster of etcd in this process. One goroutine uses it.
type etcdCluster struct {
	setup   harness.Setup
	configs []*embed.Config
	members []*embed.Etcd // nil while one is closed
	fresh   int           // clusters that openFresh has opened
	release func() error  // of the addresses
	sys     harness.System
	leader  int // the index of the member of the first store
}

// openEtcd starts a cluster with the default configuration.
func openEtcd(ctx context.Context, s harness.Setup) (*harness.System, error) {
	if s.Standbys > 0 || s.InMemory {
		return nil, errors.New("bench has neither learners of etcd nor etcd in memory")
	}
	c := &etcdCluster{setup: s}
	c.sys.Dir, c.sys.Durability = s.Dir, "a majority of the members has synced its log"
	c.sys.Crash, c.sys.Stop, c.sys.Start, c.sys.Fresh, c.sys.Close = c.crash, c.stopFirst, c.startFirst, c.openFresh, c.closeAll
	if err := c.configure(); err != nil {
		return nil, err
	}
	if err := c.startAll(ctx); err != nil {
		return nil, errors.Join(err, c.closeAll())
	}
	return &c.sys, nil
}

func (c *etcdCluster) configure() error {
	addrs, release, err := harness.ReserveAddrs(2 * c.setup.Members)
	if err != nil {
		return err
	}
	c.release = release
	var initial []string
	for i := range c.setup.Members {
		config := embed.NewConfig()
		config.Name = fmt.Sprintf("member%d", i+1)
		config.Dir = filepath.Join(c.setup.Dir, config.Name)
		config.LogLevel = "fatal"
		if c.setup.Snapshots > 0 {
			config.SnapshotCount = c.setup.Snapshots
		}
		peer, client := url.URL{Scheme: "http", Host: addrs[2*i]}, url.URL{Scheme: "http", Host: addrs[2*i+1]}
		config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		initial = append(initial, config.Name+"="+peer.String())
		c.configs = append(c.configs, config)
	}
	for _, config := range c.configs {
		config.InitialCluster = strings.Join(initial, ",")
	}
	c.members = make([]*embed.Etcd, c.setup.Members)
	return nil
}

func (c *etcdCluster) start(i int) (err error) {
	c.members[i], err = embed.StartEtcd(c.configs[i])
	return err
}

func (c *etcdCluster) startAll(ctx context.Context) error {
	for i := range c.configs {
		if err := c.start(i); err != nil {
			return err
		}
	}
	return c.ready(ctx)
}

// ready waits until all members that run serve, and arranges their stores.
func (c *etcdCluster) ready(ctx context.Context) error {
	for _, e := range c.members {
		if e == nil {
			continue
		}
		select {
		case <-e.Server.ReadyNotify():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		c.leader = slices.IndexFunc(c.members, func(e *embed.Etcd) bool { return e != nil && e.Server.Leader() == e.Server.MemberID() })
		if c.leader >= 0 {
			break
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	c.sys.Stores, c.sys.Addrs = nil, nil
	add := func(e *embed.Etcd) {
		c.sys.Stores = append(c.sys.Stores, etcdStore{v3client.New(e.Server)})
		c.sys.Addrs = append(c.sys.Addrs, e.Clients[0].Addr().String())
	}
	add(c.members[c.leader])
	for i, e := range c.members {
		if e != nil && i != c.leader {
			add(e)
		}
	}
	return nil
}

// crash stops the leader without a hand-over, and then closes its connections.
func (c *etcdCluster) crash(context.Context) (repair func(context.Context) error, err error) {
	i, e := c.leader, c.members[c.leader]
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		e.Server.HardStop()
		e.Close()
	}()
	c.members[i] = nil
	c.sys.Stores = c.sys.Stores[1:]
	return func(ctx context.Context) error {
		<-closed
		if err := c.start(i); err != nil {
			return err
		}
		return c.ready(ctx)
	}, nil
}

func (c *etcdCluster) stopFirst(context.Context) error {
	i, e := c.leader, c.members[c.leader]
	c.members[i], c.sys.Stores[0] = nil, nil
	e.Close()
	return nil
}

func (c *etcdCluster) startFirst(ctx context.Context) error {
	if err := c.start(c.leader); err != nil {
		return err
	}
	return c.ready(ctx)
}

func (c *etcdCluster) openFresh(ctx context.Context) (harness.Store, func() error, error) {
	c.fresh++
	s := c.setup
	s.Dir = filepath.Join(s.Dir, fmt.Sprintf("fresh%d", c.fresh))
	sys, err := openEtcd(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	return sys.Stores[0], sys.Close, nil
}

// closeAll closes all members. It stops their servers first: etcd's Close waits until a member serves or its server stops, and
// a member without a majority never serves.
func (c *etcdCluster) closeAll() error {
	for _, e := range c.members {
		if e != nil {
			e.Server.HardStop()
			e.Close()
		}
	}
	return c.release()
}
