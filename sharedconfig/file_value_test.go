// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/sharedconfig"
)

func TestCloseSavesTheLastValue(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := config("limits")
		cfg.File = filepath.Join(t.TempDir(), "limits.json")
		for i := range 30 {
			v := open(t, c.Node(0), cfg)
			rate(t, v, i+1)
			v.Close()
			b, err := os.ReadFile(cfg.File)
			require.NoError(t, err)
			require.Contains(t, string(b), base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"Rate":%d}`, i+1)))
		}
	})
}

func TestFileIsIndependentOfWorkingDir(t *testing.T) {
	home := t.TempDir()
	t.Chdir(home)
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := config("limits")
		cfg.File = "limits.json"
		v := open(t, c.Node(0), cfg)
		t.Chdir(t.TempDir())
		rate(t, v, 42)
		v.Close()
		require.NoError(t, v.SaveErr())
		require.FileExists(t, filepath.Join(home, cfg.File))
	})
}

// A node without data and without a cluster starts with the file. The value of a cluster then replaces it, whatever
// its revision.
func TestOpenWithoutDataUsesTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "limits.json")
	cfg := config("limits")
	cfg.File = name
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		v := open(t, c.Node(0), cfg)
		for i := range 50 {
			rate(t, v, i+1)
		}
		put(t, c.Node(0), "limits", "bad")
		synctest.Wait()
		require.NoError(t, v.SaveErr())
	})
	files, err := os.ReadDir(filepath.Dir(name))
	require.NoError(t, err)
	require.Len(t, files, 1, "no other file is left")

	t.Run("no quorum", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, err := coterie.Open(t.Context(), coterie.Config{
				Name: "a", Addr: "a:1", InMemory: true, Network: coterie.NewMemoryNetwork(),
				Founders: []coterie.Founder{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}, {Name: "c", Addr: "c:1"}},
			})
			require.NoError(t, err)
			defer n.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			v, err := sharedconfig.Open(ctx, n, cfg)
			require.NoError(t, err)
			defer v.Close()
			require.Equal(t, 50, v.Load().Rate)

			other := cfg
			other.Keys = []string{"others"}
			_, err = sharedconfig.Open(ctx, n, other)
			require.ErrorIs(t, err, context.DeadlineExceeded, "the file has other keys")
		})
	})
	t.Run("no quorum of another cluster", func(t *testing.T) {
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			for range 200 { // the node has a higher revision than the file
				c.WaitRevision(put(t, c.Node(0), "other", "v"))
			}
			c.Partition([]int{0}, []int{1}, []int{2})
			time.Sleep(10 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			v, err := sharedconfig.Open(ctx, c.Node(1), cfg)
			require.NoError(t, err)
			defer v.Close()
			require.Equal(t, 50, v.Load().Rate)
		})
	})
	t.Run("a bad value", func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			put(t, c.Node(0), "limits", "bad")
			v := open(t, c.Node(0), cfg)
			require.Equal(t, 50, v.Load().Rate)
			require.Error(t, v.Err())
		})
	})
	t.Run("another cluster", func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			v := open(t, c.Node(0), cfg)
			require.Equal(t, 100, v.Load().Rate, "the cluster has no value, so the default is used")
			rate(t, v, 3)
			v.Close()
			require.Equal(t, 3, open(t, c.Node(0), cfg).Load().Rate)
		})
	})
}

// A node that was cut off has an older value than the file, which was written through another node.
func TestOpenWithoutQuorumUsesNewerFile(t *testing.T) {
	cfg := config("limits")
	cfg.File = filepath.Join(t.TempDir(), "limits.json")
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		c.WaitRevision(rate(t, open(t, c.Node(0), config("limits")), 42))
		c.Partition([]int{0}, []int{1, 2})
		time.Sleep(10 * time.Second)
		v := open(t, c.Node(1), cfg)
		rate(t, v, 77)
		v.Close()
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		v, err := sharedconfig.Open(ctx, c.Node(0), cfg)
		require.NoError(t, err)
		defer v.Close()
		require.Equal(t, 77, v.Load().Rate)
	})
}

func TestDamagedFileIsIgnored(t *testing.T) {
	dir := t.TempDir()
	cfg := config("limits")
	cfg.File = filepath.Join(dir, "limits.json")
	require.NoError(t, os.WriteFile(cfg.File, []byte(`{"cluster":1,"revision":9,"keys":["limits"],"docu`), 0o600))
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		require.Equal(t, 100, open(t, c.Node(0), cfg).Load().Rate)
		elsewhere := cfg
		elsewhere.File = filepath.Join(dir, "no such directory", "limits.json")
		v := open(t, c.Node(0), elsewhere)
		rate(t, v, 5)
		synctest.Wait()
		require.ErrorIs(t, v.SaveErr(), os.ErrNotExist)
		require.Equal(t, 5, v.Load().Rate)
	})
}
