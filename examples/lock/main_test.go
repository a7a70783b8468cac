// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// The demo checks itself. Here it runs in virtual time.
func TestDemo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, demo(t.Context()))
	})
}

// Three processes take turns, two after the holder is killed, and three again. The count that the lock protects shows
// that no two processes had it at a time.
func TestProcessesTakeTurns(t *testing.T) {
	s := terminals.Trio(t)
	const turn = `^(\w) has the lock with fencing token (\d+) and counts to (\d+)$`
	for _, name := range []string{"a", "b", "c"} {
		s.Await(turn, name)
	}
	killed := s.Await(turn).From
	// Await without a name may return a line that was printed a while ago. The last line says which process has the lock.
	for turns := s.Lines(turn); killed != turns[len(turns)-1].From; turns = s.Lines(turn) {
		killed = s.Await(turn).From
	}
	s.Kill(killed)
	for _, name := range []string{"a", "b", "c"} {
		if name != killed {
			s.Await(turn, name)
		}
	}
	s.Start(killed)
	last := number(t, s.Await(turn, killed), 2)
	s.Stop(syscall.SIGTERM)

	turns := s.Lines(turn) // lines of different processes may arrive in another order than that of the turns
	slices.SortFunc(turns, func(x, y terminals.Line) int { return cmp.Compare(number(t, x, 2), number(t, y, 2)) })
	count, missing := 0, 0
	for _, l := range turns {
		require.Greater(t, number(t, l, 3), count, l.Text)
		if missing += number(t, l, 3) - count - 1; number(t, l, 2) <= last {
			require.LessOrEqual(t, missing, 1, "only a process that is killed or stopped may count without printing it")
		}
		count = number(t, l, 3)
	}
}

func number(t *testing.T, l terminals.Line, field int) int {
	t.Helper()
	n, err := strconv.Atoi(l.Fields[field])
	require.NoError(t, err)
	return n
}
