// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A chosen is a Storage of a format.
type chosen struct{ format storage.Format }

func (c chosen) Format() storage.Format { return c.format }
func (c chosen) String() string         { return "chosen" }

// A renamed is segments under the name of another format.
type renamed struct {
	segments.Format
	name string
}

func (r renamed) Name() string { return r.name }

func TestStorageOfADirectoryIsKept(t *testing.T) {
	ctx := vfs.With(t.Context(), vfs.NewMemory().Mount())
	cfg := coterie.Config{Dir: "/node", Storage: chosen{segments.Format{}}}
	n, err := coterie.Open(ctx, cfg)
	require.NoError(t, err)
	require.NoError(t, n.Ready(ctx))
	put(t, n, "k", "v")
	var backup bytes.Buffer
	_, err = n.Backup(ctx, &backup)
	require.NoError(t, err)
	require.NoError(t, n.Close())

	cfg.Storage = chosen{renamed{name: "bolt"}}
	_, err = coterie.Open(ctx, cfg)
	require.ErrorIs(t, err, coterie.ErrStorageMismatch)
	for _, text := range []string{"/node", `"segments"`, `"bolt"`, "Config.Storage", "datadir.Convert", "coterie-inspect convert"} {
		require.ErrorContains(t, err, text)
	}
	require.ErrorIs(t, coterie.RestoreBackup(ctx, &backup, cfg), coterie.ErrDirNotEmpty)

	cfg.Storage = nil
	n, err = coterie.Open(ctx, cfg)
	require.NoError(t, err)
	require.NoError(t, n.Ready(ctx))
	resp, err := n.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "v", resp.KVs[0].Value)
	require.NoError(t, n.Close())
}

func TestSegmentsRejectADirectoryOfBolt(t *testing.T) {
	files := vfs.NewMemory().Mount()
	require.NoError(t, files.MkdirAll("/node"))
	file, err := files.Create(filepath.Join("/node", "log.db"))
	require.NoError(t, err)
	require.NoError(t, file.Close())
	_, err = coterie.Open(vfs.With(t.Context(), files), coterie.Config{Dir: "/node"})
	require.ErrorIs(t, err, coterie.ErrStorageMismatch)
	names, err := files.ReadDir("/node")
	require.NoError(t, err)
	require.NotContains(t, names, "vote")
}

func TestStorageWithoutAFormatIsInvalid(t *testing.T) {
	for name, cfg := range map[string]coterie.Config{
		"in memory":               {InMemory: true, Storage: chosen{segments.Format{}}},
		"no format":               {Dir: t.TempDir(), Storage: chosen{}},
		"a nil pointer":           {Dir: t.TempDir(), Storage: (*chosen)(nil)},
		"a nil pointer as format": {Dir: t.TempDir(), Storage: chosen{(*segments.Format)(nil)}},
	} {
		_, err := coterie.Open(t.Context(), cfg)
		require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
		require.ErrorContains(t, err, "Config.Storage", name)
		require.ErrorIs(t, coterie.RestoreBackup(t.Context(), bytes.NewReader(nil), cfg), coterie.ErrInvalidOption, name)
	}
}
