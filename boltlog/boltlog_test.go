// SPDX-License-Identifier: Apache-2.0

package boltlog_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/boltlog"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestNodeRestartsFromItsFile(t *testing.T) {
	ctx := t.Context()
	cfg := coterie.Config{Dir: t.TempDir(), Storage: boltlog.New(boltlog.Options{})}
	for i := range 3 {
		n, err := coterie.Open(ctx, cfg)
		require.NoError(t, err)
		require.NoError(t, n.Ready(ctx))
		for j := range 20 {
			_, err := n.Put(ctx, strconv.Itoa(i)+"/"+strconv.Itoa(j), strings.Repeat("v", 1000))
			require.NoError(t, err)
		}
		got, err := n.Get(ctx, "", coterie.WithPrefix())
		require.NoError(t, err)
		require.Len(t, got.KVs, 20*(i+1))
		require.NoError(t, n.Close())
	}
	names, err := filepath.Glob(filepath.Join(cfg.Dir, "*"))
	require.NoError(t, err)
	for _, name := range names {
		require.Contains(t, []string{"lock", "log.db", "log.extent", "snapshots"}, filepath.Base(name))
	}

	cfg.Storage = nil
	_, err = coterie.Open(ctx, cfg)
	require.ErrorIs(t, err, coterie.ErrStorageMismatch)
}

func TestDamagedFileIsErrCorrupt(t *testing.T) {
	ctx := t.Context()
	cfg := coterie.Config{Dir: t.TempDir(), Storage: boltlog.New(boltlog.Options{})}
	n, err := coterie.Open(ctx, cfg)
	require.NoError(t, err)
	require.NoError(t, n.Ready(ctx))
	_, err = n.Put(ctx, "k", strings.Repeat("v", 1000))
	require.NoError(t, err)
	require.NoError(t, n.Close())
	name := filepath.Join(cfg.Dir, "log.db")
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	damaged := strings.ReplaceAll(string(b), strings.Repeat("v", 1000), strings.Repeat("w", 1000))
	require.NoError(t, os.WriteFile(name, []byte(damaged), 0o600))
	_, err = coterie.Open(ctx, cfg)
	require.ErrorIs(t, err, coterie.ErrCorrupt)
	require.ErrorContains(t, err, name)
	require.ErrorContains(t, err, "checksum of entry")
}

func TestNodeInMemoryRejectsStorage(t *testing.T) {
	cfg := coterie.Config{InMemory: true, Storage: boltlog.New(boltlog.Options{})}
	_, err := coterie.Open(t.Context(), cfg)
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
	_, err = coterie.Open(vfs.With(t.Context(), vfs.NewMemory().Mount()), coterie.Config{Dir: "/node", Storage: cfg.Storage})
	require.ErrorContains(t, err, "needs a file system of the operating system")
}
