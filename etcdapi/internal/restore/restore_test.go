// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// snapshot returns the file of a snapshot with three revisions.
func snapshot(t *testing.T) string {
	t.Helper()
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.Ready(t.Context()))
	for _, v := range []string{"old", "new"} {
		_, err = n.Put(t.Context(), "k", v)
		require.NoError(t, err)
	}
	c, err := n.Contents(t.Context())
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "snapshot.db")
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, etcdsnapshot.Write(t.Context(), f, c))
	return name
}

func TestRestoredMembersFormACluster(t *testing.T) {
	source, network := snapshot(t), coterie.NewMemoryNetwork()
	list := "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380"
	var nodes []*coterie.Node
	for name, url := range map[string]string{"a": "http://10.0.0.1:2380", "b": "http://10.0.0.2:2380"} {
		dir := filepath.Join(t.TempDir(), name)
		var out bytes.Buffer
		args := []string{source, "--name", name, "--data-dir", dir, "--initial-cluster", list, "--initial-cluster-token", "t",
			"--initial-advertise-peer-urls", url, "--bump-revision", "100", "--mark-compacted"}
		require.Zero(t, Run(t.Context(), args, &out, &out), out.String())
		require.Contains(t, out.String(), "revision 103, 1 keys, 0 leases")
		plan, ok, err := bootstrap.Read(dir)
		require.NoError(t, err)
		require.True(t, ok)
		cfg := plan.Config(dir)
		cfg.Addr, cfg.Network, cfg.Logger = cfg.Advertise, network, slog.New(slog.DiscardHandler)
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		defer n.Close()
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		require.NoError(t, n.Ready(t.Context()))
		r, err := n.Get(t.Context(), "k")
		require.NoError(t, err)
		require.EqualValues(t, 103, r.Revision)
		require.Equal(t, "new", r.KVs[0].Value)
	}
}

func TestFileWithoutChecksumNeedsAFlag(t *testing.T) {
	source := snapshot(t)
	whole, err := os.Stat(source)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(source, whole.Size()-etcdsnapshot.ChecksumSize))
	t.Chdir(t.TempDir())
	var out bytes.Buffer
	require.Equal(t, 1, Run(t.Context(), []string{source}, &out, &out))
	require.Contains(t, out.String(), "it has no checksum")
	require.Zero(t, Run(t.Context(), []string{source, "--skip-hash-check"}, &out, &out), out.String())
	require.Contains(t, out.String(), "revision 3, 1 keys")
}

func TestLogOfEtcdMayBeElsewhere(t *testing.T) {
	database, err := os.ReadFile(snapshot(t))
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("etcd/member/snap", 0o700))
	require.NoError(t, os.WriteFile("etcd/member/snap/db", database[:len(database)-etcdsnapshot.ChecksumSize], 0o600))
	for log, args := range map[string][]string{"etcd/member/wal": nil, "elsewhere": {"--from-wal-dir", "elsewhere"}} {
		var out bytes.Buffer
		require.Equal(t, 1, Run(t.Context(), append(args, "etcd"), &out, &out))
		require.Contains(t, out.String(), "the write-ahead log of etcd is not in "+log+":")
	}
}

func TestRestoreRefusesItsArguments(t *testing.T) {
	source := snapshot(t)
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("used/member/snap", 0o700))
	for _, c := range []struct {
		code int
		text string
		args []string
	}{
		{128, "exactly one argument", nil},
		{128, "exactly one argument", []string{source, source}},
		{128, "--mark-compacted", []string{source, "--bump-revision", "7"}},
		{128, "--mark-compacted", []string{source, "--mark-compacted"}},
		{128, "couldn't find local name", []string{source, "--initial-cluster", "b=http://localhost:2380"}},
		{128, "not defined: -wal-dir", []string{source, "--wal-dir", "x"}},
		{1, "used is not empty", []string{source, "--data-dir", "used"}},
		{1, "no such file", []string{"none"}},
		{1, "not the data directory of an etcd", []string{"used"}},
		{1, "bound", []string{source, "--bump-revision", "9223372036854775807", "--mark-compacted"}},
	} {
		var out, complaints bytes.Buffer
		require.Equal(t, c.code, Run(t.Context(), c.args, &out, &complaints), "%q", c.args)
		require.Contains(t, complaints.String(), c.text)
		require.NoDirExists(t, "default.etcd")
	}
	var out bytes.Buffer
	require.Zero(t, Run(t.Context(), []string{source}, &out, &out), out.String())
	require.FileExists(t, "default.etcd/coteried.json")
	require.NoError(t, os.MkdirAll("volume/lost+found", 0o700))
	require.Zero(t, Run(t.Context(), []string{source, "--data-dir", "volume"}, &out, &out), out.String())
}
