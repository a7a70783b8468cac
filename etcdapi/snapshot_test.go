// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

func TestSnapshotOfNodeIsRead(t *testing.T) {
	n := open(t)
	put(t, n, "k", "v")
	put(t, n, "large", string(bytes.Repeat([]byte("x"), 100_000)))
	want, err := n.Contents(t.Context())
	require.NoError(t, err)
	remote, err := clientv3.New(clientv3.Config{Endpoints: []string{serve(t, n)}, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer remote.Close()
	for name, c := range map[string]*clientv3.Client{"in process": etcdapi.NewClient(n), "over TCP": remote} {
		r, err := c.SnapshotWithVersion(t.Context())
		require.NoError(t, err, name)
		require.Equal(t, etcdsnapshot.StorageVersion, r.Version)
		b, err := io.ReadAll(r.Snapshot)
		require.NoError(t, err, name)
		file := filepath.Join(t.TempDir(), "snapshot.db")
		require.NoError(t, os.WriteFile(file, b, 0o600))
		got, err := etcdsnapshot.Read(t.Context(), file)
		require.NoError(t, err, name)
		require.Equal(t, want.Revision(), got.Revision())
		var kvs int
		for range got.Versions() {
			kvs++
		}
		require.Equal(t, 2, kvs)
	}
}
