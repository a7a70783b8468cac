// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
	"github.com/coterie-kv/coterie/etcdapi/internal/certs"
)

// call runs the subcommand, and returns its exit code and all output.
func call(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := Run(t.Context(), args, &out, &out)
	return code, out.String()
}

// node opens a node with one key and one lease, until the end of the test.
func node(t *testing.T, cfg coterie.Config) *coterie.Node {
	t.Helper()
	cfg.Logger, cfg.ElectionTimeout = slog.New(slog.DiscardHandler), 100*time.Millisecond
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

func fill(t *testing.T, n *coterie.Node) {
	t.Helper()
	require.NoError(t, n.Ready(t.Context()))
	l, err := n.Grant(t.Context(), time.Hour)
	require.NoError(t, err)
	_, err = n.Put(t.Context(), "k", "v", coterie.WithLease(l.ID))
	require.NoError(t, err)
}

// serve serves a node until the end of the test, and returns the address.
func serve(t *testing.T, n *coterie.Node, opts ...etcdapi.Option) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- etcdapi.Serve(ctx, l, n, opts...) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-served) })
	return l.Addr().String()
}

// requireSnapshot checks that a file has the data of fill.
func requireSnapshot(t *testing.T, name string) {
	t.Helper()
	c, err := etcdsnapshot.Read(t.Context(), name)
	require.NoError(t, err)
	require.EqualValues(t, 2, c.Revision())
	names, err := filepath.Glob(name + ".*")
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestSaveFromEndpoint(t *testing.T) {
	n := node(t, coterie.Config{InMemory: true})
	fill(t, n)
	name := filepath.Join(t.TempDir(), "saved.db")
	code, out := call(t, "save", name, "--endpoints", serve(t, n))
	require.Zero(t, code, out)
	require.Contains(t, out, "Snapshot saved at "+name)
	requireSnapshot(t, name)

	code, out = call(t, "status", name, "-w", "json")
	require.Zero(t, code, out)
	var s etcdsnapshot.Status
	require.NoError(t, json.Unmarshal([]byte(out), &s))
	require.EqualValues(t, 2, s.Revision)
	require.Equal(t, 1, s.TotalKey)
	require.Equal(t, etcdsnapshot.StorageVersion, s.Version)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, info.Size(), s.TotalSize+etcdsnapshot.ChecksumSize)
	code, out = call(t, "status", name)
	require.Zero(t, code)
	require.Contains(t, out, ", 2, 1, ")
}

func TestSaveFromEndpointWithTLSAndUsers(t *testing.T) {
	dir := t.TempDir()
	require.Zero(t, certs.Run(t.Context(), []string{"--dir", dir, "node=127.0.0.1", "root"}, io.Discard, io.Discard))
	file := func(name string) string { return filepath.Join(dir, name) }
	cfg, err := etcdapi.LoadTLS(etcdapi.TLS{CertFile: file("node.pem"), KeyFile: file("node-key.pem"), ClientCAFile: file("ca.pem")})
	require.NoError(t, err)
	n := node(t, coterie.Config{InMemory: true})
	fill(t, n)
	endpoint := "https://" + serve(t, n, etcdapi.WithTLS(cfg))
	name := filepath.Join(t.TempDir(), "saved.db")
	code, out := call(t, "save", name, "--endpoints", endpoint, "--cacert", file("ca.pem"), "--cert", file("root.pem"), "--key", file("root-key.pem"))
	require.Zero(t, code, out)
	requireSnapshot(t, name)
	code, _ = call(t, "save", name, "--endpoints", endpoint, "--cacert", file("ca.pem"), "--dial-timeout", "200ms")
	require.Equal(t, 1, code, "the endpoint requires a certificate")
	requireSnapshot(t, name)
	t.Setenv("ETCDCTL_ENDPOINTS", endpoint)
	t.Setenv("ETCDCTL_CERT", file("root.pem"))
	t.Setenv("ETCDCTL_KEY", file("root-key.pem"))
	code, out = call(t, "save", name, "--insecure-skip-tls-verify")
	require.Zero(t, code, out)
}

func TestSaveFromDirectory(t *testing.T) {
	dir := t.TempDir()
	plan, err := bootstrap.New(bootstrap.Flags{Name: "a", Token: "t", AdvertiseURLs: []string{"http://localhost:2380"}})
	require.NoError(t, err)
	cfg := plan.Config(dir)
	n := node(t, cfg)
	fill(t, n)
	name := filepath.Join(t.TempDir(), "saved.db")
	code, out := call(t, "save", name, "--data-dir", dir)
	require.Equal(t, 1, code)
	require.Contains(t, out, "is not the data directory of a coteried")
	require.NoError(t, plan.Save(dir))
	code, out = call(t, "save", name, "--data-dir", dir)
	require.Equal(t, 1, code, "the node runs")
	require.Contains(t, out, coterie.ErrDirInUse.Error())
	require.NoFileExists(t, name)
	require.NoFileExists(t, name+".part")
	require.NoError(t, n.Close())
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	code, out = call(t, "save", name, "--data-dir", dir)
	require.Zero(t, code, out)
	requireSnapshot(t, name)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)

	again := node(t, cfg) // the directory has not changed
	require.NoError(t, again.Ready(t.Context()))
	require.EqualValues(t, 2, again.Status().Revision)
}

func TestDirectoryOfOneOfSeveralMembers(t *testing.T) {
	network, dir := coterie.NewMemoryNetwork(), t.TempDir()
	list := "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380"
	plan, err := bootstrap.New(bootstrap.Flags{Name: "a", Token: "t", Members: list, AdvertiseURLs: []string{"http://10.0.0.1:2380"}})
	require.NoError(t, err)
	require.NoError(t, plan.Save(dir))
	a := plan.Config(dir)
	a.Network, a.Addr = network, a.Advertise
	b := a
	b.Dir, b.InMemory, b.Name, b.Addr, b.Advertise = "", true, "b", "10.0.0.2:2380", "10.0.0.2:2380"
	n := node(t, a)
	node(t, b)
	fill(t, n)
	require.NoError(t, n.Close())
	name := filepath.Join(t.TempDir(), "saved.db")
	code, out := call(t, "save", name, "--data-dir", dir)
	require.Equal(t, 1, code)
	require.Contains(t, out, "--incomplete")
	code, out = call(t, "save", name, "--data-dir", dir, "--incomplete")
	require.Zero(t, code, out)
	require.Contains(t, out, "warning: ")
	requireSnapshot(t, name)
}

func TestWrongArgumentsOfSnapshot(t *testing.T) {
	for _, args := range [][]string{
		{}, {"restore"}, {"save"}, {"save", "a", "b"}, {"save", "a", "--none"}, {"status"}, {"status", "a", "-w", "table"},
		{"save", "a", "--endpoints", "a:1,b:1"}, {"save", filepath.Join(t.TempDir(), "a"), "--user", "root"},
	} {
		code, out := call(t, args...)
		require.Equal(t, 128, code, "%q: %s", args, out)
	}
	code, out := call(t, "status", filepath.Join(t.TempDir(), "none"))
	require.Equal(t, 1, code, out)
	for _, args := range [][]string{{"-h"}, {"save", "-h"}, {"status", "-h"}} {
		code, out := call(t, args...)
		require.Zero(t, code)
		require.Contains(t, out, "Usage: coteried snapshot")
	}
}
