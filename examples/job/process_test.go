// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// The leader of three processes is killed, and the next one stopped for as long as another leads. Each
// time that one goes on with the job where it was, and all who do not lead have its result: so have the
// killed one when it is started again, and the stopped one when it goes on.
func TestProcessesGoOnWithTheJob(t *testing.T) {
	s := terminals.Trio(t)
	names := []string{"a", "b", "c"}
	const leads = `^\w leads, with fencing token (\d+), and goes on after piece (\d+)$`
	takesOver := func(leader string) {
		for _, name := range names {
			if name != leader {
				s.Await(`^`+name+` takes over the result of `+leader+`, which has done piece \d+$`, name)
			}
		}
	}
	first := s.Await(leads)
	require.Equal(t, "0", first.Fields[2])
	takesOver(first.From)
	s.Kill(first.From)
	next := s.Await(leads)
	require.Greater(t, number(t, next.Fields[1]), number(t, first.Fields[1]))
	require.Positive(t, number(t, next.Fields[2]), "what the killed one has done is not done again")
	s.Start(first.From)
	takesOver(next.From)

	s.Signal(syscall.SIGSTOP, next.From)
	third := s.Await(leads)
	require.Greater(t, number(t, third.Fields[1]), number(t, next.Fields[1]))
	s.Signal(syscall.SIGCONT, next.From)
	s.Await(`^`+next.From+` leads no more$`, next.From)
	takesOver(third.From)
	s.Stop(syscall.SIGTERM) // 1 is the status of one that saw a result followed by an older one
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}
