// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage"
)

// killedDir is the variable that makes this test the process that is killed.
const killedDir = "BOLTLOG_TEST_KILLED"

// TestKilledProcessLosesNothing kills a process that changes a log, and checks that the log has everything that the
// process has reported.
func TestKilledProcessLosesNothing(t *testing.T) {
	if dir := os.Getenv(killedDir); dir != "" {
		changeUntilKilled(t, dir)
	}
	dir := t.TempDir()
	kills := 20
	if testing.Short() {
		kills = 5
	}
	for range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), killedDir+"="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		var first, last, applied, vote uint64
		lines := bufio.NewScanner(out)
		for n := rand.IntN(60); lines.Scan(); n-- {
			_, err := fmt.Sscan(lines.Text(), &first, &last, &applied, &vote)
			require.NoError(t, err, lines.Text())
			if n == 0 {
				require.NoError(t, cmd.Process.Kill())
			}
		}
		require.Error(t, cmd.Wait())
		s := open(t, dir)
		loaded, err := s.Load()
		require.NoError(t, err)
		require.GreaterOrEqual(t, loaded.Last, last)
		require.GreaterOrEqual(t, loaded.First, first)
		require.GreaterOrEqual(t, loaded.Applied, applied)
		b, err := s.Vote().Load()
		require.NoError(t, err)
		require.GreaterOrEqual(t, number(b), vote)
		require.NoError(t, s.Close())
	}
}

func number(b []byte) (n uint64) {
	_, _ = fmt.Sscan(string(b), &n)
	return n
}

// changeUntilKilled changes a log and prints the state that is durable after each change.
func changeUntilKilled(t *testing.T, dir string) {
	s := open(t, dir)
	b, err := s.Vote().Load()
	require.NoError(t, err)
	vote, applied := number(b), s.loaded.Applied
	for i := 0; ; i++ {
		_, last := s.bounds()
		applied = max(applied, last)
		changes := []storage.Change{
			appended(entries(last+1, last+90, rand.IntN(2000))), truncated(last + 81), appended(entries(last+81, last+100, 10)),
		}
		write(t, s, applied, changes...)
		first, last := s.bounds()
		s.Extend(storage.Extent{Index: last, Term: 3})
		fmt.Println(first, last, applied, vote)
		vote++
		require.NoError(t, s.Vote().Save([]byte(fmt.Sprint(vote))))
		fmt.Println(first, last, applied, vote)
		if i%4 == 3 {
			require.NoError(t, s.Compact(last-50))
		}
	}
}
