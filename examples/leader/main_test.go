// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// The leader's process is killed. Another one leads, and the killed one starts again from its directory.
func TestKilledLeaderIsReplaced(t *testing.T) {
	s := terminals.Trio(t)
	// Wait for all three: a founder that the cluster has never heard from does not count when another one
	// is lost.
	const leads, knows = `^(\w) leads, with fencing token (\d+)$`, `(\w)(?:, which has| leads, with) fencing token (\d+)$`
	first, token := "", 0
	for _, name := range []string{"a", "b", "c"} {
		if l := s.Await(knows, name); number(t, l.Fields[2]) >= token {
			first, token = l.Fields[1], number(t, l.Fields[2])
		}
	}
	s.Kill(first)
	next := s.Await(leads)
	require.Greater(t, number(t, next.Fields[2]), token)

	s.Start(first)
	again := s.Await(knows, first)
	require.GreaterOrEqual(t, number(t, again.Fields[2]), number(t, next.Fields[2]))
	s.Stop(syscall.SIGTERM)
	require.NotEmpty(t, s.Lines(`^`+next.From+` no longer leads$`))
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}
