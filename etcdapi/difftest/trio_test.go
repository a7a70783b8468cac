// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// A trio is a cluster of three members, each of which can be stopped and started again.
type trio struct {
	members []*endpoint
	start   [3]func() // called when the member does not run
	stop    [3]func() // called when the member runs
}

func (c *trio) startAll(t testing.TB, addrs []string, name string) *trio {
	started := make(chan struct{})
	for i := range 3 {
		go func() {
			c.start[i]()
			started <- struct{}{}
		}()
	}
	for range 3 {
		<-started
	}
	for i, addr := range addrs {
		c.members = append(c.members, dial(t, fmt.Sprintf("%s %d", name, i), addr))
	}
	c.leader(t)
	return c
}

// leader waits until the members agree on a leader, and returns its index.
func (c *trio) leader(t testing.TB) (index int) {
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		votes := map[uint64]int{}
		ids := map[uint64]int{}
		for i, e := range c.members {
			r, err := e.maintenance.Status(ctx, &pb.StatusRequest{})
			if err == nil && r.Leader != 0 {
				votes[r.Leader]++
				ids[r.Header.MemberId] = i
			}
		}
		for id, n := range votes {
			if i, known := ids[id]; known && n >= 2 {
				index = i
				return true
			}
		}
		return false
	}, 30*time.Second, 20*time.Millisecond)
	return index
}

// freeAddrs returns an address for each member.
func freeAddrs(t testing.TB) []string {
	return []string{processtest.FreeAddr(t), processtest.FreeAddr(t), processtest.FreeAddr(t)}
}

func startTrioOfNodes(t testing.TB) *trio {
	c, clients, peers := &trio{}, freeAddrs(t), freeAddrs(t)
	var founders []coterie.Founder
	for i, addr := range peers {
		founders = append(founders, coterie.Founder{Name: fmt.Sprint(i), Addr: addr})
	}
	for i := range 3 {
		cfg := config()
		cfg.InMemory, cfg.Dir = false, t.TempDir()
		cfg.ElectionTimeout = electionTimeout
		cfg.Name, cfg.Addr, cfg.Founders = founders[i].Name, founders[i].Addr, founders
		var stop func()
		c.start[i] = func() {
			n, err := coterie.Open(context.Background(), cfg)
			require.NoError(t, err)
			l := listen(t, clients[i])
			ctx, cancel := context.WithCancel(context.Background())
			served := make(chan error, 1)
			go func() { served <- etcdapi.Serve(ctx, l, n) }()
			stop = func() { // the node first, as a program that crashes
				require.NoError(t, n.Close())
				cancel()
				<-served
				stop = nil
			}
		}
		c.stop[i] = func() { stop() }
		t.Cleanup(func() {
			if stop != nil {
				stop()
			}
		})
	}
	return c.startAll(t, clients, "coterie")
}

// listen listens on an address that was in use until now.
func listen(t testing.TB, addr string) (l net.Listener) {
	require.Eventually(t, func() (ok bool) {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	}, 5*time.Second, 10*time.Millisecond)
	return l
}

func startTrioOfEtcd(t testing.TB) *trio {
	c, clients, peers := &trio{}, freeAddrs(t), freeAddrs(t)
	var initial []string
	for i, addr := range peers {
		initial = append(initial, fmt.Sprintf("%d=http://%s", i, addr))
	}
	for i := range 3 {
		dir := filepath.Join(t.TempDir(), "etcd")
		var e *embed.Etcd
		c.start[i] = func() {
			cfg := etcdConfig(dir, url.URL{Scheme: "http", Host: clients[i]}, url.URL{Scheme: "http", Host: peers[i]})
			cfg.TickMs, cfg.ElectionMs = uint(electionTimeout/time.Millisecond)/10, uint(electionTimeout/time.Millisecond)
			cfg.Name, cfg.InitialCluster = fmt.Sprint(i), strings.Join(initial, ",")
			require.Eventually(t, func() bool {
				var err error
				e, err = embed.StartEtcd(cfg)
				return err == nil
			}, 10*time.Second, 50*time.Millisecond)
		}
		c.stop[i] = func() {
			e.Close()
			e = nil
		}
		t.Cleanup(func() {
			if e != nil {
				closeEtcd(e)
			}
		})
	}
	return c.startAll(t, clients, "etcd")
}
