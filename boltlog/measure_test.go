// SPDX-License-Identifier: Apache-2.0

package boltlog_test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/boltlog"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

var measure = flag.Int("measure", 0, "rounds of TestMeasure, which compares segments with bolt")

// A quantity is one figure of a round.
type quantity struct {
	name  string
	value float64
}

// TestMeasure compares both storages in one process, in turn, and prints the medians: docs/performance.md has
// them. Without -measure it runs a small round of everything and checks only the results.
func TestMeasure(t *testing.T) {
	rounds, scale := max(*measure, 1), 1
	if *measure == 0 {
		scale = 1000
	}
	var rows []string
	for _, w := range []struct {
		name string
		run  func(t *testing.T, s coterie.Storage) []quantity
	}{
		{"put, 1 caller", puts(1, 10_000/scale)},
		{"put, 32 callers", puts(32, 50_000/scale)},
		{"put, 1000 callers", puts(1000, 500_000/scale)},
		{"log of 1,000,000 entries", entries(1_000_000 / scale)},
	} {
		seen := map[string][2][]float64{}
		var names []string
		for range rounds {
			for i, s := range []coterie.Storage{nil, boltlog.New(boltlog.Options{})} {
				for _, q := range w.run(t, s) {
					if _, ok := seen[q.name]; !ok {
						names = append(names, q.name)
					}
					both := seen[q.name]
					both[i] = append(both[i], q.value)
					seen[q.name] = both
				}
			}
		}
		for _, name := range names {
			segments, bolt := median(seen[name][0]), median(seen[name][1])
			rows = append(rows, fmt.Sprintf("%-26s %-30s %12.2f %12.2f %8.2f", w.name, name, segments, bolt, bolt/segments))
		}
	}
	if *measure > 0 {
		fmt.Printf("%-26s %-30s %12s %12s %8s\n%s\n", "work", "quantity", "segments", "bolt", "ratio", strings.Join(rows, "\n"))
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// puts writes n values of 256 bytes to a cluster of three nodes over loopback TCP, from some callers.
func puts(callers, n int) func(*testing.T, coterie.Storage) []quantity {
	return func(t *testing.T, s coterie.Storage) []quantity {
		c, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{
			Addr: "127.0.0.1:0", Dir: t.TempDir(), Storage: s, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		leader, err := c.Leader(t.Context())
		require.NoError(t, err)
		value := strings.Repeat("v", 256)
		write := func(n int) {
			var all sync.WaitGroup
			for caller := range callers {
				all.Go(func() {
					for i := caller; i < n; i += callers {
						if _, err := leader.Put(t.Context(), fmt.Sprintf("key%08d", i), value); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		}
		write(n / 10) // warm up
		begin, cpu := time.Now(), processCPU()
		write(n)
		took, used := time.Since(begin), processCPU()-cpu
		got, err := leader.Get(t.Context(), "key", coterie.WithPrefix(), coterie.WithCountOnly())
		require.NoError(t, err)
		require.EqualValues(t, n, got.Count)
		require.NoError(t, c.Close())
		return []quantity{
			{"puts a second", float64(n) / took.Seconds()},
			{"µs of CPU a put, three nodes", float64(used.Microseconds()) / float64(n)},
		}
	}
}

// entries opens a log of n entries of 256 bytes, and compacts all but the newest hundredth of it.
func entries(n int) func(*testing.T, coterie.Storage) []quantity {
	return func(t *testing.T, s coterie.Storage) []quantity {
		var format storage.Format = segments.Format{}
		if s != nil {
			format = s.Format()
		}
		dir := t.TempDir()
		open := func() (*raftlog.Log, time.Duration) {
			begin := time.Now()
			l, err := raftlog.Open(vfs.OS{}, dir, format, false)
			require.NoError(t, err)
			return l, time.Since(begin)
		}
		l, _ := open()
		require.NoError(t, l.Identify(raftlog.Identity{Member: 1, Incarnation: 1}))
		require.NoError(t, l.Stable().SetUint64([]byte("CurrentTerm"), 1))
		data := make([]byte, 256)
		for first := 1; first <= n; first += 100 {
			var batch []*raft.Log
			for i := first; i < first+100; i++ {
				batch = append(batch, &raft.Log{Index: uint64(i), Term: 1, Data: data})
			}
			require.NoError(t, l.AwaitRoom(t.Context()))
			require.NoError(t, l.Logs().StoreLogs(batch))
		}
		require.NoError(t, l.Close(context.Background()))
		full := size(t, dir)
		l, took := open()
		last, err := l.Logs().LastIndex()
		require.NoError(t, err)
		require.EqualValues(t, n, last)
		require.NoError(t, l.Logs().DeleteRange(1, uint64(n-n/100)))
		require.NoError(t, l.Logs().StoreLogs([]*raft.Log{{Index: last + 1, Term: 1, Data: data}}))
		require.NoError(t, l.Close(context.Background()))
		return []quantity{
			{"s to open", took.Seconds()}, {"MB on the disk", float64(full) / 1e6},
			{"MB after compaction", float64(size(t, dir)) / 1e6},
		}
	}
}

func size(t *testing.T, dir string) (bytes int64) {
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	}))
	return bytes
}

func processCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
