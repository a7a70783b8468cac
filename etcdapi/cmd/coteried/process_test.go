// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// asDaemon is the environment variable that makes the test binary a coteried.
const asDaemon = "COTERIED_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main()
	}
	os.Exit(m.Run())
}

// processTest skips a test that runs several processes, if tests are to be short.
func processTest(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs processes")
	}
	t.Parallel()
}

// A process is a coteried that runs, or has run.
type process struct {
	*processtest.Process // the last one
	t                    *testing.T
	args                 []string
	env                  []string
}

// run starts a process with flags. The test ends it, and prints its log if the test has failed.
func run(t *testing.T, args ...string) *process {
	t.Helper()
	return runWith(t, nil, args...)
}

// runWith is run with environment variables.
func runWith(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, args: args, env: env}
	p.start()
	return p
}

// start starts the process, for the first time or again.
func (p *process) start() {
	p.t.Helper()
	self, err := os.Executable()
	require.NoError(p.t, err)
	cmd := exec.Command(self, p.args...)
	cmd.Env = append([]string{asDaemon + "=1", "PATH=" + os.Getenv("PATH")}, p.env...)
	p.Process = processtest.Start(p.t, cmd)
}

// ready waits for the line that etcd prints, too.
func (p *process) ready() {
	p.t.Helper()
	p.Prints("ready to serve client requests")
}

// stop ends the process with SIGTERM, as an operator does.
func (p *process) stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	require.Zero(p.t, p.Exits())
}

// A place is where a member listens, and where its data is.
type place struct{ name, scheme, client, peer, dir string }

func newPlace(t *testing.T, name, scheme string) place {
	return place{name, scheme, processtest.FreeAddr(t), processtest.FreeAddr(t), filepath.Join(t.TempDir(), name)}
}

func (p place) clientURL() string { return p.scheme + "://" + p.client }
func (p place) peerURL() string   { return p.scheme + "://" + p.peer }
func (p place) entry() string     { return p.name + "=" + p.peerURL() }

// flags are the flags that a member needs on every start.
func (p place) flags(more ...string) []string {
	return append([]string{
		"--name", p.name, "--data-dir", p.dir, "--listen-client-urls", p.clientURL(), "--advertise-client-urls", p.clientURL(),
		"--listen-peer-urls", p.peerURL(), "--initial-advertise-peer-urls", p.peerURL(), "--election-timeout=500", "--heartbeat-interval=50",
	}, more...)
}

// A cluster is a cluster of processes.
type cluster struct {
	places  []place
	members []*process
}

// startCluster starts a cluster of n processes that all have some flags, and waits until they are ready.
func startCluster(t *testing.T, n int, scheme string, flags ...string) *cluster {
	c := &cluster{}
	var entries []string
	for i := range n {
		c.places = append(c.places, newPlace(t, fmt.Sprintf("m%d", i), scheme))
		entries = append(entries, c.places[i].entry())
	}
	for _, p := range c.places {
		first := []string{"--initial-cluster", strings.Join(entries, ","), "--initial-cluster-token", "test", "--initial-cluster-state=new"}
		c.members = append(c.members, run(t, p.flags(append(first, flags...)...)...))
	}
	for _, m := range c.members {
		m.ready()
	}
	return c
}

func (c *cluster) clientURLs() (urls []string) {
	for _, p := range c.places {
		urls = append(urls, p.clientURL())
	}
	return urls
}

// leader returns the number of the member that leads.
func (c *cluster) leader(t *testing.T, client *clientv3.Client) int {
	for i, p := range c.places {
		if s, err := client.Status(t.Context(), p.clientURL()); err == nil && s.Leader == s.Header.MemberId {
			return i
		}
	}
	require.Fail(t, "no member leads")
	return -1
}

// dial returns a client of endpoints.
func dial(t *testing.T, cfg *tls.Config, endpoints ...string) *clientv3.Client {
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: cfg, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// eventually calls fn until it succeeds.
func eventually(t *testing.T, fn func(ctx context.Context) error) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		err = fn(ctx)
		return err == nil
	}, 30*time.Second, 10*time.Millisecond, "%v", err)
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error { _, err := c.Put(ctx, key, value); return err })
}

// value returns the value of a key, from a linearizable read.
func value(t *testing.T, c *clientv3.Client, key string) (value string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		r, err := c.Get(ctx, key)
		if err == nil && len(r.Kvs) > 0 {
			value = string(r.Kvs[0].Value)
		}
		return err
	})
	return value
}
