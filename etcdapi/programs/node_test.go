// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// nodeVariable is the environment variable that makes this program a node. Its value is a nodeConfig as JSON.
const nodeVariable = "COTERIE_PROGRAMS_NODE"

// A nodeConfig is the configuration of a process that is a node with an endpoint.
type nodeConfig struct {
	Name, Dir, Addr, Endpoint string
	Founders                  []coterie.Founder
}

// beNode runs a node until the standard input ends, which it does when the test's process ends.
func beNode(config string) error {
	var c nodeConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	n, err := coterie.Open(ctx, coterie.Config{
		Name: c.Name, Dir: c.Dir, Addr: c.Addr, Founders: c.Founders, Logger: slog.New(slog.DiscardHandler),
		Retention: coterie.Retention{Age: -1, Revisions: -1, Bytes: -1},
	})
	if err != nil {
		return err
	}
	defer n.Close()
	l, err := net.Listen("tcp", c.Endpoint)
	if err != nil {
		return err
	}
	return etcdapi.Serve(ctx, l, n, etcdapi.WithClientURLs("http://"+c.Endpoint))
}

// A node is a process with a node that an endpoint serves.
type node struct {
	config  nodeConfig
	process *processtest.Process
	stdin   io.Closer // keeps the process alive
}

// startNodes starts processes that are the nodes of one cluster, until the end of the test.
func startNodes(t *testing.T, n int) (nodes []*node, endpoints []string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs processes")
	}
	var founders []coterie.Founder
	for i := range n {
		founders = append(founders, coterie.Founder{Name: fmt.Sprint("node", i), Addr: processtest.FreeAddr(t)})
	}
	for _, f := range founders {
		p := &node{config: nodeConfig{f.Name, filepath.Join(t.TempDir(), "data"), f.Addr, processtest.FreeAddr(t), founders}}
		p.start(t)
		nodes, endpoints = append(nodes, p), append(endpoints, p.config.Endpoint)
	}
	return nodes, endpoints
}

func (n *node) start(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	config, err := json.Marshal(n.config)
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), nodeVariable+"="+string(config))
	n.stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	n.process = processtest.Start(t, cmd)
}

// kill ends the process as kill -9 does.
func (n *node) kill() {
	n.process.Kill()
	n.stdin.Close()
}

// connect returns a client of endpoints.
func connect(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// awaitNode waits until the node of an endpoint serves linearizable reads.
func awaitNode(t *testing.T, endpoint string) {
	t.Helper()
	c := connect(t, endpoint)
	defer c.Close()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Get(ctx, "k")
		return err == nil
	}, 60*time.Second, 20*time.Millisecond, endpoint)
}
