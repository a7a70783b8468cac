// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// goroutinesEnd waits until no more goroutines run than before, and fails the test if that takes too long.
func goroutinesEnd(t *testing.T, before int) {
	t.Helper()
	for i := 0; runtime.NumGoroutine() > before; i++ {
		if i == 1_000_000 {
			stacks := make([]byte, 1<<20)
			require.Fail(t, "goroutines are left", "%s", stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

// freePorts returns the first of n consecutive ports on loopback that were free a moment ago.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		listeners := []net.Listener{}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listeners = append(listeners, l)
		first := l.Addr().(*net.TCPAddr).Port
		for i := 1; err == nil && i < n; i++ {
			if l, err = net.Listen("tcp", address(first+i)); err == nil {
				listeners = append(listeners, l)
			}
		}
		for _, l := range listeners {
			l.Close()
		}
		if err == nil {
			return first
		}
	}
	t.Fatal("no consecutive ports are free")
	return 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// everyNodeServes writes to and reads from each node of a cluster.
func everyNodeServes(t *testing.T, c *coterie.Cluster) {
	t.Helper()
	for i, n := range c.Nodes() {
		require.Same(t, n, c.Node(i))
		require.Equal(t, "node"+strconv.Itoa(i+1), n.Status().Name)
		key := fmt.Sprint("k", i)
		put(t, n, key, "v")
		for _, other := range c.Nodes() {
			require.Equal(t, "v", get(t, other, key).KVs[0].Value)
		}
	}
}

func TestOpenClusterOverTCP(t *testing.T) {
	before := runtime.NumGoroutine()
	first := freePorts(t, 3)
	for name, addr := range map[string]string{"free ports": "127.0.0.1:0", "consecutive ports": address(first)} {
		c, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{InMemory: true, Addr: addr})
		require.NoError(t, err, name)
		everyNodeServes(t, c)
		seen := map[string]bool{}
		for i, n := range c.Nodes() {
			addr := n.Status().Addr
			require.False(t, seen[addr], name)
			seen[addr] = true
			if name == "consecutive ports" {
				require.Equal(t, address(first+i), addr)
			}
			conn, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}
		require.NoError(t, c.Close())
		for addr := range seen {
			l, err := net.Listen("tcp", addr)
			require.NoError(t, err, "the port is free again")
			require.NoError(t, l.Close())
		}
	}
	goroutinesEnd(t, before)
}

func TestOpenClusterOnAUsedPort(t *testing.T) {
	before := runtime.NumGoroutine()
	first := freePorts(t, 3)
	for used := range 3 {
		l, err := net.Listen("tcp", address(first+used))
		require.NoError(t, err)
		dir := filepath.Join(t.TempDir(), "data")
		_, err = coterie.OpenCluster(t.Context(), 3, coterie.Config{Dir: dir, Addr: address(first)})
		var in *net.OpError
		require.ErrorAs(t, err, &in)
		require.NoDirExists(t, dir)
		require.NoError(t, l.Close())
		for i := range 3 {
			l, err := net.Listen("tcp", address(first+i))
			require.NoError(t, err, "port %d of 3, with number %d in use", i, used)
			require.NoError(t, l.Close())
		}
	}
	_, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{InMemory: true, Addr: "127.0.0.1:65534"})
	require.Error(t, err, "there is no third port")
	goroutinesEnd(t, before)
}

// The directory of the third node is in use, which OpenCluster finds after it has opened two nodes.
func TestOpenClusterClosesAllOnFailure(t *testing.T) {
	dir := t.TempDir()
	network := &countingPorts{Network: coterie.NewMemoryNetwork()}
	before := runtime.NumGoroutine()
	blocker, err := coterie.Open(t.Context(), coterie.Config{Dir: filepath.Join(dir, "node3")})
	require.NoError(t, err)
	_, err = coterie.OpenCluster(t.Context(), 3, coterie.Config{Dir: dir, Addr: "host:1", Network: network})
	require.ErrorIs(t, err, coterie.ErrDirInUse)
	require.Zero(t, network.open())
	require.NoError(t, blocker.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "node3")))
	goroutinesEnd(t, before)

	c, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{Dir: dir, Addr: "host:1", Network: network})
	require.NoError(t, err)
	everyNodeServes(t, c)
	require.NoError(t, c.Close())
	require.Zero(t, network.open())
}

func TestOpenClusterRejectsBadConfig(t *testing.T) {
	before := runtime.NumGoroutine()
	network := &countingPorts{Network: coterie.NewMemoryNetwork()}
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	cancel(reason)
	_, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true, Addr: "host:0", Network: network})
	require.ErrorIs(t, err, reason)
	require.Zero(t, network.open())

	sound := coterie.Config{InMemory: true, Addr: "host:0", Network: network}
	for name, c := range map[string]struct {
		n      int
		change func(*coterie.Config)
	}{
		"no node":           {0, func(*coterie.Config) {}},
		"a negative number": {-1, func(*coterie.Config) {}},
		"a name":            {3, func(c *coterie.Config) { c.Name = "a" }},
		"an advertisement":  {3, func(c *coterie.Config) { c.Advertise = "a:1" }},
		"founders":          {3, func(c *coterie.Config) { c.Founders = []coterie.Founder{{Name: "a", Addr: "a:1"}} }},
		"no port":           {3, func(c *coterie.Config) { c.Addr = "host" }},
		"no number":         {3, func(c *coterie.Config) { c.Addr = "host:http" }},
		"nowhere to write":  {3, func(c *coterie.Config) { c.InMemory = false }},
		"too short":         {3, func(c *coterie.Config) { c.ElectionTimeout = 1 }},
	} {
		cfg := sound
		c.change(&cfg)
		_, err := coterie.OpenCluster(t.Context(), c.n, cfg)
		require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
		require.Zero(t, network.open(), name)
	}
	goroutinesEnd(t, before)
}

func TestOpenClusterAgainKeepsData(t *testing.T) {
	// The addresses may differ each time: members are recognized by their names.
	same := address(freePorts(t, 3))
	for name, addr := range map[string]string{"memory": "", "the same ports": same, "free ports": "127.0.0.1:0"} {
		cfg := coterie.Config{Dir: t.TempDir(), Addr: addr, ElectionTimeout: 200 * time.Millisecond}
		var before *coterie.GetResponse
		for round := range 2 {
			c, err := coterie.OpenCluster(t.Context(), 3, cfg)
			require.NoError(t, err, name)
			for i, n := range c.Nodes() {
				require.DirExists(t, filepath.Join(cfg.Dir, "node"+strconv.Itoa(i+1)))
				now := get(t, n, "", coterie.WithPrefix())
				if round > 0 {
					require.Equal(t, before.KVs, now.KVs)
					require.Equal(t, before.Revision, now.Revision)
				}
			}
			for i, n := range c.Nodes() {
				put(t, n, fmt.Sprint("k", i), fmt.Sprint(round))
			}
			before = get(t, c.Node(0), "", coterie.WithPrefix())
			require.Len(t, before.KVs, 3)
			require.NoError(t, c.Close())
		}
		entries, err := os.ReadDir(cfg.Dir)
		require.NoError(t, err)
		require.Len(t, entries, 3)
	}
}

func TestOpenClusterSurvivesOneNode(t *testing.T) {
	before := runtime.NumGoroutine()
	c, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{InMemory: true})
	require.NoError(t, err)
	leader, err := c.Leader(t.Context())
	require.NoError(t, err)
	require.Equal(t, coterie.RoleLeader, leader.Status().Role)
	require.NoError(t, leader.Close())
	next, err := c.Leader(t.Context())
	require.NoError(t, err)
	require.NotSame(t, leader, next)
	put(t, next, "k", "v")
	for _, n := range c.Nodes() {
		if n != leader {
			require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
		}
	}
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "a second time")
	_, err = c.Leader(t.Context())
	require.ErrorIs(t, err, coterie.ErrClosed)
	for _, n := range c.Nodes() {
		require.ErrorIs(t, n.Err(), coterie.ErrClosed)
	}
	goroutinesEnd(t, before)
}

// A caller that changes the list of nodes changes its own copy.
func TestClusterNodesIsACopy(t *testing.T) {
	c, err := coterie.OpenCluster(t.Context(), 1, coterie.Config{InMemory: true})
	require.NoError(t, err)
	defer c.Close()
	n := c.Node(0)
	c.Nodes()[0] = nil
	require.Same(t, n, c.Node(0))
}
