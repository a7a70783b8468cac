// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

// limit limits a resource of this process until the returned function is called.
func limit(t *testing.T, resource int, n uint64) (restore func()) {
	t.Helper()
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(resource, &old))
	require.NoError(t, syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: old.Max}))
	return func() { require.NoError(t, syscall.Setrlimit(resource, &old)) }
}

// nextDescriptor returns the number of the next file that is opened.
func nextDescriptor(t *testing.T) uint64 {
	t.Helper()
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	return uint64(f.Fd())
}

// limitedProcess is set in the environment of a process with limited resources.
const limitedProcess = "DATADIR_LIMITED"

// A conversion for which the system has too few descriptors, or allows too little space for a file, fails at any step,
// and leaves the directory as it was. The limits are those of a process of its own.
func TestConvertWithoutResourcesFails(t *testing.T) {
	if os.Getenv(limitedProcess) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), limitedProcess+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	eachStorage(t, func(t *testing.T, storage coterie.Storage) {
		cfg, _ := realRun(t, storage)
		before := inspectDir(t, cfg.Dir)
		for want, short := range map[error]func(step uint64) (restore func()){
			syscall.EFBIG:      func(step uint64) func() { return limit(t, syscall.RLIMIT_FSIZE, step*step*512) },
			coterie.ErrNoSpace: func(step uint64) func() { return limit(t, syscall.RLIMIT_NOFILE, nextDescriptor(t)+step) },
		} {
			failed := 0
			for step, done := uint64(0), false; !done; step++ {
				require.Less(t, step, uint64(1000))
				restore := short(step)
				_, err := datadir.Convert(t.Context(), cfg.Dir, other(storage))
				restore()
				in := inspectDir(t, cfg.Dir)
				if done = err == nil; done {
					require.NotEqual(t, before.Storage, in.Storage)
					_, err := datadir.Convert(t.Context(), cfg.Dir, storage)
					require.NoError(t, err)
					kept, err := filepath.Glob(filepath.Join(cfg.Dir, "*-*Z"))
					require.NoError(t, err)
					for _, name := range kept {
						require.NoError(t, os.RemoveAll(name))
					}
					continue
				}
				require.ErrorIs(t, err, want, "step %d", step)
				require.Equal(t, before, in)
				failed++
			}
			require.Greater(t, failed, 2, want)
			t.Logf("%v: %d steps failed", want, failed)
			require.Equal(t, before, inspectDir(t, cfg.Dir))
		}
	})
}
