// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

// A program is the path of the built program.
type program string

func build(t *testing.T) program {
	t.Helper()
	name := filepath.Join(t.TempDir(), "coterie-inspect")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", name, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program(name)
}

// run runs the program, and returns its output and its exit code.
func (p program) run(t *testing.T, args ...string) (out, complaints string, code int) {
	t.Helper()
	var stdout, stderr strings.Builder
	c := exec.CommandContext(t.Context(), string(p), args...)
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil {
		require.True(t, errors.As(err, &exit), err)
	}
	return stdout.String(), stderr.String(), c.ProcessState.ExitCode()
}

func flip(t *testing.T, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[at] ^= 1
	require.NoError(t, os.WriteFile(name, b, 0o600))
}

// times returns the modification time and the size of each file in a directory.
func times(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err == nil {
			all[name] = info.ModTime().String() + " " + info.Mode().String()
		}
		return err
	}))
	return all
}

func TestInspectDirectoriesAndBackups(t *testing.T) {
	p, ctx := build(t), t.Context()
	dir, file := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "backup")
	n, err := coterie.Open(ctx, coterie.Config{Dir: dir, Name: "a"})
	require.NoError(t, err)
	_, err = n.Put(ctx, "k", "v")
	require.NoError(t, err)
	require.NoError(t, n.UpdateMetadata(ctx, n.ID(), map[string]string{"zone": "eu\n1"}))
	f, err := os.Create(file)
	require.NoError(t, err)
	_, err = n.Backup(ctx, f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, complaints, code := p.run(t, dir)
	require.Equal(t, uninspected, code)
	require.Contains(t, complaints, "in use")
	require.NoError(t, n.Close())
	status := n.Status()

	before := times(t, dir)
	out, complaints, code := p.run(t, dir)
	require.Equal(t, whole, code, complaints)
	require.Regexp(t, `(?m)^member +`+status.ID.String(), out)
	require.Regexp(t, `(?m)^revision +2, never compacted$`, out)
	require.Regexp(t, `(?m)^has +`+status.ID.String()+`.* voter$`, out)
	require.Regexp(t, `(?m)^metadata +"zone"="eu\\n1"$`, out)
	require.Regexp(t, `(?m)^cluster +[0-9a-f]{16} epoch [0-9a-f]{16}$`, out)
	require.Contains(t, out, "every byte is valid")
	out, _, code = p.run(t, "-json", dir)
	require.Equal(t, whole, code)
	var printed datadir.Inspection
	require.NoError(t, json.Unmarshal([]byte(out), &printed))
	found, err := datadir.Inspect(ctx, dir)
	require.NoError(t, err)
	found.DamagedFiles, found.OtherFormats = []datadir.DamagedFile{}, []coterie.FormatError{}
	found.Snapshots = []datadir.Snapshot{}
	require.Equal(t, found, printed, "JSON decodes into the Inspection")
	require.Equal(t, []any{status.ClusterID, status.ID, status.Applied, 1}, []any{found.ClusterID, found.Member, found.AppliedIndex, found.Keys})
	require.Contains(t, out, `"member": "`+status.ID.String()+`"`)
	require.Contains(t, out, `"cluster": "`+status.ClusterID.String()+`"`)
	require.Equal(t, before, times(t, dir), "nothing was changed")

	out, _, code = p.run(t, file)
	require.Equal(t, whole, code)
	require.Regexp(t, `(?m)^revision +2, never compacted$`, out)
	out, _, code = p.run(t, "-json", file)
	require.Equal(t, whole, code)
	require.Contains(t, out, `"clusterName": "coterie"`)
	require.Error(t, json.Unmarshal([]byte(out), &printed), "the JSON of a backup is no Inspection")

	for _, path := range []string{file, filepath.Join(dir, "identity")} {
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		newer := append([]byte(nil), whole...)
		newer[6] = 2
		require.NoError(t, os.WriteFile(path, newer, 0o600))
		out, _, code = p.run(t, strings.TrimSuffix(path, "/identity"))
		require.Equal(t, uninspected, code, out)
		require.Regexp(t, "(?m)^NOT READ .* has format version 2, this program reads version 1", out)
		require.NotContains(t, out, "DAMAGED")
		out, _, code = p.run(t, "-json", strings.TrimSuffix(path, "/identity"))
		require.Equal(t, uninspected, code)
		require.Contains(t, out, `"version": 2`)
		require.NoError(t, os.WriteFile(path, whole, 0o600))
	}

	flip(t, file, 40)
	out, _, code = p.run(t, file)
	require.Equal(t, damaged, code)
	require.Contains(t, out, "DAMAGED")
	identity := filepath.Join(dir, "identity")
	flip(t, identity, 10)
	out, _, code = p.run(t, dir)
	require.Equal(t, damaged, code)
	require.Contains(t, out, "DAMAGED")
	require.Contains(t, out, identity)
	out, _, code = p.run(t, "-json", dir)
	require.Equal(t, damaged, code)
	require.Contains(t, out, `"file": "`+identity+`"`)
}

func TestUsageAndErrors(t *testing.T) {
	p := build(t)
	_, usage, code := p.run(t, "-h")
	require.Equal(t, whole, code)
	require.Contains(t, usage, "usage")
	for _, args := range [][]string{{}, {"a", "b"}, {"-unknown"}} {
		out, complaints, code := p.run(t, args...)
		require.Equal(t, uninspected, code, args)
		require.Empty(t, out)
		require.Contains(t, complaints, "usage")
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "missing"), t.TempDir()} {
		_, complaints, code := p.run(t, path)
		require.Equal(t, uninspected, code, path)
		require.Contains(t, complaints, path)
	}
}

// A read that never ends, from a pipe for example, is abandoned after a second interrupt.
func TestInterruptsEndHangingInspection(t *testing.T) {
	const stdin = "/dev/stdin"
	if _, err := os.Stat(stdin); err != nil {
		t.Skip("there is no file that blocks")
	}
	c := exec.CommandContext(t.Context(), string(build(t)), stdin)
	_, err := c.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for range 500 {
		select {
		case err := <-ended:
			require.Error(t, err)
			return
		case <-again.C:
			_ = c.Process.Signal(os.Interrupt) // the program may have ended
		}
	}
	t.Fatal("the program is still running")
}
