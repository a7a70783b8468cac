// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/boltlog"
)

var kills = flag.Int("kills", 0, "the number of processes that tests of killed processes kill, for each storage; 0: a few")

// killsOr returns the number of processes to kill, or few if the flag does not say.
func killsOr(few int) int {
	if *kills > 0 {
		return *kills
	}
	return few
}

// The environment variables with the directory and the storage of TestCounter's node.
const (
	counterDir     = "COTERIE_COUNTER_DIR"
	counterStorage = "COTERIE_COUNTER_STORAGE"
)

// storages are the choices of Config.Storage, by their names.
var storages = map[string]coterie.Storage{"segments": nil, "bolt": boltlog.New(boltlog.Options{})}

// counters are the keys that TestCounter writes in turn.
const counters = 7

// counterConfig makes a node take snapshots all the time, so that some processes die while they write one.
func counterConfig(dir, storage string) coterie.Config {
	return coterie.Config{Dir: dir, Storage: storages[storage], SnapshotEntries: 50}
}

// TestCounter is the process that TestKilledProcessLosesNothing kills, and does nothing otherwise. It counts, and
// prints each acknowledged number.
func TestCounter(t *testing.T) {
	dir := os.Getenv(counterDir)
	if dir == "" {
		t.Skip("for TestKilledProcessLosesNothing")
	}
	n, err := coterie.Open(t.Context(), counterConfig(dir, os.Getenv(counterStorage)))
	require.NoError(t, err)
	i := newestCounter(t, n)
	fmt.Println("counting", i)
	for {
		i++
		put(t, n, counter(i), strconv.Itoa(i))
		fmt.Println("counted", i)
	}
}

func counter(i int) string { return fmt.Sprint("counter", i%counters) }

// newestCounter returns the highest number in a node's data. It requires that all lower numbers are there.
func newestCounter(t *testing.T, n *coterie.Node) (newest int) {
	t.Helper()
	kvs := get(t, n, "counter", coterie.WithPrefix()).KVs
	for _, kv := range kvs {
		i, err := strconv.Atoi(kv.Value)
		require.NoError(t, err)
		require.Equal(t, counter(i), kv.Key)
		require.EqualValues(t, i+1, kv.ModRevision, "each number has its own revision, and there is no other revision")
		newest = max(newest, i)
	}
	require.Len(t, kvs, min(newest, counters))
	for _, kv := range kvs {
		i, _ := strconv.Atoi(kv.Value)
		require.Greater(t, i, newest-counters)
	}
	return newest
}

// Every write that a process acknowledged is there, no matter at which moment the process was killed.
func TestKilledProcessLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for storage, few := range map[string]int{"segments": 12, "bolt": 8} {
		t.Run(storage, func(t *testing.T) { killCounters(t, storage, killsOr(few)) })
	}
}

// killCounters kills processes that count, one after the other, and checks their directory.
func killCounters(t *testing.T, storage string, kills int) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	reached, killed := 0, 0
	for round := range kills {
		acknowledged := countAndDie(t, dir, storage, random, round%5 == 0)
		n, err := coterie.Open(t.Context(), counterConfig(dir, storage))
		require.NoError(t, err)
		require.NoError(t, n.Ready(t.Context()))
		require.NoError(t, n.Check(t.Context()))
		newest := newestCounter(t, n)
		require.GreaterOrEqual(t, newest, acknowledged)
		require.LessOrEqual(t, newest, acknowledged+1, "at most one write was in flight")
		require.NoError(t, n.Close())
		if acknowledged > reached {
			killed++
		}
		reached = newest
	}
	t.Log(kills, "kills, counted to", reached)
	require.Greater(t, killed, kills/2, "most were killed while they counted")
}

// countAndDie runs a process that counts, and kills it after a random number of acknowledgements and a random time.
// It returns the last acknowledged number. If look is set, it checks that no other node can open the directory while
// the process lives. The check takes a moment, so not every process gets it.
func countAndDie(t *testing.T, dir, storage string, random *rand.Rand, look bool) (last int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestCounter$")
	cmd.Env = append(os.Environ(), counterDir+"="+dir, counterStorage+"="+storage)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	limit, moment := random.IntN(120), time.Duration(random.IntN(3000))*time.Microsecond
	started := false
	for seen := 0; lines.Scan(); {
		var i int
		if _, err := fmt.Sscanf(lines.Text(), "counting %d", &i); err == nil {
			started, last = true, i
			if look {
				_, err := coterie.Open(t.Context(), counterConfig(dir, storage))
				require.ErrorIs(t, err, coterie.ErrDirInUse)
			}
		}
		if _, err := fmt.Sscanf(lines.Text(), "counted %d", &i); err == nil {
			require.Equal(t, last+1, i)
			last = i
			seen++
		}
		if started && seen == limit {
			// From here on the process may die at any moment. Its output is read to the end.
			time.AfterFunc(moment, func() { _ = cmd.Process.Kill() })
		}
	}
	require.True(t, started, "the process has not opened its node")
	require.NoError(t, lines.Err())
	require.Error(t, cmd.Wait(), "it was killed")
	require.NoError(t, ctx.Err())
	return last
}
