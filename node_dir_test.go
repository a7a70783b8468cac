// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

func TestNodeSurvivesChdir(t *testing.T) {
	home, elsewhere := t.TempDir(), t.TempDir()
	t.Chdir(home)
	cfg := coterie.Config{Dir: "data", SnapshotEntries: 5}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Chdir(elsewhere)
	value := strings.Repeat("x", 1<<20)
	for i := range 20 { // several segments and snapshots
		put(t, n, fmt.Sprint(i), value)
	}
	require.NoError(t, n.Close())
	left, err := os.ReadDir(elsewhere)
	require.NoError(t, err)
	require.Empty(t, left)

	t.Chdir(home)
	in, err := datadir.Inspect(t.Context(), "data")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(home, "data"), in.Dir)
	require.EqualValues(t, 20, in.Keys)
	_, err = datadir.Recover(t.Context(), "data")
	require.NoError(t, err)
	require.EqualValues(t, 20, reopened(t, cfg).Status().Keys)
}

func TestDirectoryNameMayHaveDots(t *testing.T) {
	base := t.TempDir()
	cfg := coterie.Config{Dir: base + "/./dots/../dots2"}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	put(t, n, "k", "v")
	var backup bytes.Buffer
	_, err = n.Backup(t.Context(), &backup)
	require.NoError(t, err)
	require.NoError(t, n.Close())

	in, err := datadir.Inspect(t.Context(), cfg.Dir)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(base, "dots2"), in.Dir)
	_, err = datadir.Recover(t.Context(), cfg.Dir)
	require.NoError(t, err)
	require.Equal(t, 1, reopened(t, cfg).Status().Keys)

	cfg.Dir = base + "/./dots/../dots3"
	require.NoError(t, coterie.RestoreBackup(t.Context(), &backup, cfg))
	require.Equal(t, 1, reopened(t, cfg).Status().Keys)
	names, err := filepath.Glob(base + "/*")
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(base, "dots2"), filepath.Join(base, "dots3")}, names)
}

func reopened(t *testing.T, cfg coterie.Config) *coterie.Node {
	t.Helper()
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}
