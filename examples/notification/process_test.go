// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// A system is killed while it works: every console prints that it is down, and that another one continues its work. It gets
// orders again after its restart.
func TestAnotherProcessContinuesAnOrder(t *testing.T) {
	s := terminals.Trio(t)
	// Wait for all three: a process that has not joined yet is no part of the quorum when another one is lost.
	for _, name := range []string{"a", "b", "c"} {
		s.Await(`^`+name+` is up$`, name)
	}
	consoles := []string{"a", "c"}
	s.Type("a", "news")
	s.Await(`^type the name of a system and a part$`, "a")
	s.Type("a", "d news")
	s.Await(`^order news: no system "d" is up$`, "a")

	s.Type("a", "b news")
	for _, name := range consoles {
		s.Await(`^  news: 25%$`, name)
	}
	s.Kill("b")
	for _, name := range consoles {
		s.Await(`^b is down$`, name)
		s.Await(`^[ac] is ordered to push news$`, name)
		s.Await(`^  news: done by [ac]$`, name)
	}
	begun := map[string]bool{}
	for _, l := range s.Lines(`^  news: 0%$`) {
		require.False(t, begun[l.From], "a finished quarter is not done again")
		begun[l.From] = true
	}

	s.Start("b")
	s.Await(`^b is up$`, "c")
	s.Type("c", "b weather")
	s.Await(`^  weather: 0%$`, "a")
	s.Stop(syscall.SIGTERM)
}
