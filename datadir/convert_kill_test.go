// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
)

// The environment of a process that changes a directory.
const (
	processTask   = "DATADIR_TASK"   // convert, recover or restore
	processDir    = "DATADIR_DIR"    // the directory
	processTo     = "DATADIR_TO"     // of convert: segments or bolt
	processBackup = "DATADIR_BACKUP" // of restore: the file of the backup
)

// TestChangingProcess is the process of the tests that kill it. It prints a line before it begins, and one when it is
// done.
func TestChangingProcess(t *testing.T) {
	task, dir := os.Getenv(processTask), os.Getenv(processDir)
	if task == "" {
		t.Skip("the process of other tests")
	}
	fmt.Println("changing")
	var err error
	switch task {
	case "convert":
		_, err = datadir.Convert(t.Context(), dir, storageNamed(os.Getenv(processTo)))
	case "recover":
		_, err = datadir.Recover(t.Context(), dir)
	case "restore":
		var f *os.File
		f, err = os.Open(os.Getenv(processBackup))
		require.NoError(t, err)
		err = coterie.RestoreBackup(t.Context(), f, coterie.Config{Name: "a", Dir: dir, Storage: bolt})
	}
	require.NoError(t, err)
	fmt.Println("changed")
}

func storageNamed(name string) coterie.Storage {
	if name == "bolt" {
		return bolt
	}
	return nil
}

// changeAndDie runs a process that changes a directory, and kills it after a time from its beginning. It reports
// whether the process was done before, and how long it took.
func changeAndDie(t *testing.T, after time.Duration, env ...string) (took time.Duration, done bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestChangingProcess$")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var began time.Time
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch lines.Text() {
		case "changing":
			began = time.Now()
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		case "changed":
			took, done = time.Since(began), true
		}
	}
	_ = cmd.Wait() // it may have been done before the signal
	require.NotZero(t, began)
	require.NoError(t, ctx.Err())
	return took, done
}

// killing calls round with a function that runs a process for a part of the time that it takes, or a little more.
// round calls the function once. killing checks that many of the processes were killed before they were done.
func killing(t *testing.T, round func(i int, run func(env ...string) (done bool))) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts 20 processes")
	}
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	takes, killed := 10*time.Second, 0
	for i := range 20 {
		round(i, func(env ...string) bool {
			after := takes
			if i > 0 {
				after = time.Duration(random.Int64N(int64(takes * 3 / 2)))
			}
			took, done := changeAndDie(t, after, env...)
			if done {
				takes = took
			} else {
				killed++
			}
			return done
		})
	}
	require.Greater(t, killed, 3)
	require.Less(t, killed, 20)
}

// However a process is killed, the directory has one of the two storages and everything in it.
func TestKilledConversionLosesNothing(t *testing.T) {
	cfg, status := realRun(t, nil)
	before := inspectDir(t, cfg.Dir)
	outcomes := map[string]int{}
	killing(t, func(i int, run func(...string) bool) {
		to := []string{"bolt", "segments"}[i%2]
		done := run(processTask+"=convert", processDir+"="+cfg.Dir, processTo+"="+to)
		after := inspectDir(t, cfg.Dir)
		outcomes[fmt.Sprint("done ", done, ", converted ", after.Storage == to)]++
		if done {
			require.Equal(t, to, after.Storage)
		}
		after.Storage = before.Storage
		require.Equal(t, before, after)

		// The node opens with the storage of the directory, or the conversion is repeated.
		if i%4 < 2 {
			cfg.Storage = storageNamed(inspectDir(t, cfg.Dir).Storage)
			n, err := coterie.Open(t.Context(), cfg)
			require.NoError(t, err)
			require.NoError(t, n.Ready(t.Context()))
			require.GreaterOrEqual(t, n.Status().Revision, status.Revision)
			require.NoError(t, n.Close())
		}
		_, err := datadir.Convert(t.Context(), cfg.Dir, storageNamed(to))
		if !errors.Is(err, datadir.ErrSameStorage) {
			require.NoError(t, err)
		}
		before = inspectDir(t, cfg.Dir)
		require.Equal(t, to, before.Storage)
		require.NoFileExists(t, filepath.Join(cfg.Dir, "conversion"))
		kept, err := filepath.Glob(filepath.Join(cfg.Dir, "*-*Z"))
		require.NoError(t, err)
		require.Len(t, kept, 1, "no remains of an interrupted conversion")
		require.NoError(t, os.RemoveAll(kept[0]))
	})
	t.Log(outcomes)
}

func TestKilledRecoveryOfBoltIsAtomic(t *testing.T) {
	cfg, status := realRun(t, bolt)
	killing(t, func(_ int, run func(...string) bool) {
		before := inspectDir(t, cfg.Dir)
		done := run(processTask+"=recover", processDir+"="+cfg.Dir)
		after := inspectDir(t, cfg.Dir)
		if after.Epoch == before.Epoch {
			require.False(t, done)
			after.Term = before.Term // it may be later
			require.Equal(t, before, after)
		}
		require.Equal(t, []any{before.Revision, before.Keys, before.DurableIndex}, []any{after.Revision, after.Keys, after.DurableIndex})
	})
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	ready(t, n)
	require.Equal(t, status.Revision, n.Status().Revision)
	require.NoError(t, n.Close())
}

func TestKilledRestoreToBoltIsAtomic(t *testing.T) {
	b := smallBackup(t)
	file := filepath.Join(t.TempDir(), "backup")
	require.NoError(t, os.WriteFile(file, b, 0o600))
	killing(t, func(_ int, run func(...string) bool) {
		cfg := coterie.Config{Name: "a", Dir: filepath.Join(t.TempDir(), "data"), Storage: bolt}
		done := run(processTask+"=restore", processDir+"="+cfg.Dir, processBackup+"="+file)
		err := restore(t, cfg, b)
		if done {
			require.ErrorIs(t, err, coterie.ErrDirNotEmpty)
		}
		if !errors.Is(err, coterie.ErrDirNotEmpty) {
			require.NoError(t, err)
		}
		in := inspectDir(t, cfg.Dir)
		require.Equal(t, "bolt", in.Storage)
		require.False(t, in.RestoreUnfinished)
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		ready(t, n)
		require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
		require.NoError(t, n.Close())
	})
}
