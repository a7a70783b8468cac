// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/boltlog"
	"github.com/coterie-kv/coterie/datadir"
)

func TestConvertDirectory(t *testing.T) {
	p, ctx := build(t), t.Context()
	dir := filepath.Join(t.TempDir(), "data")
	cfg := coterie.Config{Dir: dir, Name: "a"}
	n, err := coterie.Open(ctx, cfg)
	require.NoError(t, err)
	_, err = n.Put(ctx, "k", "v")
	require.NoError(t, err)
	_, complaints, code := p.run(t, "convert", "-to", "bolt", dir)
	require.Equal(t, uninspected, code)
	require.Contains(t, complaints, "in use")
	require.NoError(t, n.Close())

	for _, c := range []struct {
		from, to string
		storage  coterie.Storage
	}{{"segments", "bolt", boltlog.New(boltlog.Options{})}, {"bolt", "segments", nil}} {
		out, complaints, code := p.run(t, "convert", "-to", c.to, "-json", dir)
		require.Equal(t, whole, code, complaints)
		var done datadir.Conversion
		require.NoError(t, json.Unmarshal([]byte(out), &done))
		require.Equal(t, []string{dir, c.from, c.to}, []string{done.Dir, done.From, done.To})
		require.DirExists(t, done.Kept)
		require.NotZero(t, done.LastIndex)

		out, _, code = p.run(t, dir)
		require.Equal(t, whole, code)
		require.Regexp(t, `(?m)^storage +`+c.to+`$`, out)
		_, complaints, code = p.run(t, "convert", "-to", c.to, dir)
		require.Equal(t, uninspected, code)
		require.Contains(t, complaints, "has this storage already: "+dir+" has "+c.to)

		cfg.Storage = c.storage
		n, err := coterie.Open(ctx, cfg)
		require.NoError(t, err)
		r, err := n.Get(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, "v", r.KVs[0].Value)
		require.NoError(t, n.Close())
	}

	flip(t, filepath.Join(dir, "identity"), 20)
	_, complaints, code = p.run(t, "convert", "-to", "bolt", dir)
	require.Equal(t, damaged, code)
	require.Contains(t, complaints, filepath.Join(dir, "identity"))
	flip(t, filepath.Join(dir, "identity"), 20)
	kept, err := filepath.Glob(filepath.Join(dir, "*-*Z"))
	require.NoError(t, err)
	for _, name := range kept {
		require.NoError(t, os.RemoveAll(name))
	}
	out, complaints, code := p.run(t, "convert", "-to", "bolt", dir)
	require.Equal(t, whole, code, complaints)
	require.Contains(t, out, "converted: "+dir+" from segments to bolt; the log has the entries 1 to ")
	require.Contains(t, out, "\nkept: the old files, in "+dir+"/segments-")
}

func TestConvertUsage(t *testing.T) {
	p := build(t)
	_, usage, code := p.run(t, "convert", "-h")
	require.Equal(t, whole, code)
	require.Contains(t, usage, "usage: coterie-inspect convert")
	for _, args := range [][]string{{}, {"d"}, {"-to", "bolt"}, {"-to", "other", "d"}, {"-to", "bolt", "d", "e"}, {"-unknown"}} {
		out, complaints, code := p.run(t, append([]string{"convert"}, args...)...)
		require.Equal(t, uninspected, code, args)
		require.Empty(t, out)
		require.Contains(t, complaints, "usage")
	}
	missing := filepath.Join(t.TempDir(), "missing")
	_, complaints, code := p.run(t, "convert", "-to", "bolt", missing)
	require.Equal(t, uninspected, code)
	require.Contains(t, complaints, missing)
	require.NoDirExists(t, missing)
}
