// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// The programs, by the packages that they are built from.
const (
	etcd    = "go.etcd.io/etcd/server/v3"
	etcdctl = "go.etcd.io/etcd/etcdctl/v3"
	etcdutl = "go.etcd.io/etcd/etcdutl/v3"

	// benchmark is that of v3.7.0: its module has no v3.7.3 on proxy.golang.org.
	benchmark = "go.etcd.io/etcd/v3/tools/benchmark"

	coteried = "github.com/coterie-kv/coterie/etcdapi/cmd/coteried"
)

// A builder builds each program once.
type builder struct {
	mu    sync.Mutex
	dir   string
	built map[string]string // package to file
}

var programs builder

func TestMain(m *testing.M) {
	if config, ok := os.LookupEnv(nodeVariable); ok {
		if err := beNode(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	dir, err := os.MkdirTemp("", "programs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs.dir, programs.built = dir, map[string]string{}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// program returns the file of a program. It skips the test if the modules of the program cannot be downloaded.
func program(t *testing.T, pkg string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the programs of etcd and runs processes")
	}
	programs.mu.Lock()
	defer programs.mu.Unlock()
	if name, ok := programs.built[pkg]; ok {
		return name
	}
	name := filepath.Join(programs.dir, strings.Split(pkg, "/")[2])
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", name, pkg).CombinedOutput()
	for _, offline := range []string{"dial tcp", "no such host", "connection refused", "i/o timeout", "module lookup disabled"} {
		if err != nil && strings.Contains(string(out), offline) {
			t.Skipf("needs the modules of %s: %s", pkg, out)
		}
	}
	require.NoError(t, err, string(out))
	programs.built[pkg] = name
	return name
}

// run runs a program and returns its output.
func run(t *testing.T, pkg string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, pkg), args...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	require.NoError(t, err, "%v: %s%s", args, out, &complaints)
	return string(out)
}

// A server is a process of etcd, or of coteried.
type server struct {
	*clientv3.Client
	*processtest.Process
	dir, client string
}

// startEtcd starts etcd in a directory, until the end of the test.
func startEtcd(t *testing.T, dir string) *server {
	t.Helper()
	return startServer(t, etcd, dir, "http://"+processtest.FreeAddr(t), "http://"+processtest.FreeAddr(t), "--unsafe-no-fsync")
}

// startServer starts a program that has etcd's flags, with its URLs, as the only member of a cluster.
func startServer(t *testing.T, pkg, dir, client, peer string, args ...string) *server {
	t.Helper()
	s := launch(t, pkg, "m", dir, client, peer, append([]string{"--initial-cluster", "m=" + peer}, args...)...)
	s.await(t)
	return s
}

// launch starts a program that has etcd's flags, as a member with a name and URLs, and does not wait until it serves.
func launch(t *testing.T, pkg, name, dir, client, peer string, args ...string) *server {
	t.Helper()
	s := &server{dir: dir, client: client}
	s.Process = processtest.Start(t, exec.Command(program(t, pkg), append([]string{"--name", name, "--data-dir", dir, "--listen-client-urls", s.client,
		"--advertise-client-urls", s.client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer}, args...)...))
	t.Cleanup(s.stop)
	return s
}

// await waits until the server is healthy.
func (s *server) await(t *testing.T) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.client}, Logger: zap.NewNop()})
	require.NoError(t, err)
	s.Client = c
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for retry := time.NewTicker(50 * time.Millisecond); !s.healthy(ctx); {
		select {
		case <-retry.C:
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), s.Output())
		}
	}
}

// healthy reports whether the server serves. Unlike calls of its client, this request needs no user.
func (s *server) healthy(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.client+"/health", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// stop ends the process and waits for it.
func (s *server) stop() {
	s.closeClient()
	s.Signal(os.Interrupt)
	s.Exits() // the exit code may be that of the signal
}

// kill ends the process at once, so that it cannot write anything, and waits for it.
func (s *server) kill() {
	s.closeClient()
	s.Kill()
}

func (s *server) closeClient() {
	if s.Client != nil {
		s.Client.Close()
	}
}
