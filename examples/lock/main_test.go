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

// The demonstration checks itself; here, in virtual time.
func TestTheDemonstrationHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, demo(t.Context()))
	})
}

// Three processes take turns, two when the holder is killed, and three again. The count that the lock
// protects tells that no two had it at a time.
func TestProcessesTakeTurns(t *testing.T) {
	s := terminals.Trio(t)
	const turn = `^(\w) has the lock, with fencing token (\d+), and counts to (\d+)$`
	for _, name := range []string{"a", "b", "c"} {
		s.Await(turn, name)
	}
	killed := s.Await(turn).From
	// What is awaited without a name may have been printed a while ago: this is whose turn it is.
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

	turns := s.Lines(turn) // which may have come in another order than that of the turns
	slices.SortFunc(turns, func(x, y terminals.Line) int { return cmp.Compare(number(t, x, 2), number(t, y, 2)) })
	count, missing := 0, 0
	for _, l := range turns {
		require.Greater(t, number(t, l, 3), count, l.Text)
		if missing += number(t, l, 3) - count - 1; number(t, l, 2) <= last {
			require.LessOrEqual(t, missing, 1, "only who is killed, or is stopped, can count and not say so")
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
