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

// The leader of three processes is killed, and the next leader is stopped until another one leads. Each new leader
// continues the job, and all other processes have its result, including the killed one after its restart and the stopped
// one after it resumes.
func TestProcessesContinueTheJob(t *testing.T) {
	s := terminals.Trio(t)
	names := []string{"a", "b", "c"}
	const leads = `^\w leads with fencing token (\d+) and continues after piece (\d+)$`
	followed := func(leader string) {
		for _, name := range names {
			if name != leader {
				s.Await(`^`+name+` has the first result of `+leader+`, piece \d+$`, name)
			}
		}
	}
	first := s.Await(leads)
	require.Equal(t, "0", first.Fields[2])
	followed(first.From)
	s.Kill(first.From)
	next := s.Await(leads)
	require.Greater(t, number(t, next.Fields[1]), number(t, first.Fields[1]))
	require.Positive(t, number(t, next.Fields[2]), "the pieces of the killed leader are not done again")
	s.Start(first.From)
	followed(next.From)

	s.Signal(syscall.SIGSTOP, next.From)
	third := s.Await(leads)
	require.Greater(t, number(t, third.Fields[1]), number(t, next.Fields[1]))
	s.Signal(syscall.SIGCONT, next.From)
	s.Await(`^`+next.From+` no longer leads$`, next.From)
	followed(third.From)
	s.Stop(syscall.SIGTERM) // a process that sees a result followed by an older one exits with status 1
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}
