// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// A system is killed that pushes something: every console tells that it is gone, and that another goes
// on where it was. It is given orders again when it is back.
func TestAnotherProcessGoesOnWithAnOrder(t *testing.T) {
	s := terminals.Trio(t)
	// All three have to be there: one that the cluster has never heard of does not count when another
	// is gone.
	for _, name := range []string{"a", "b", "c"} {
		s.Await(`^`+name+` is there$`, name)
	}
	consoles := []string{"a", "c"}
	s.Type("a", "news")
	s.Await(`^type a system and what it is to push$`, "a")
	s.Type("a", "d news")
	s.Await(`^order news: there is no system "d"$`, "a")

	s.Type("a", "b news")
	for _, name := range consoles {
		s.Await(`^  news: 25%$`, name)
	}
	s.Kill("b")
	for _, name := range consoles {
		s.Await(`^b is gone$`, name)
		s.Await(`^[ac] is ordered to push news$`, name)
		s.Await(`^  news: done by [ac]$`, name)
	}
	begun := map[string]bool{}
	for _, l := range s.Lines(`^  news: 0%$`) {
		require.False(t, begun[l.From], "what was done is done again")
		begun[l.From] = true
	}

	s.Start("b")
	s.Await(`^b is there$`, "c")
	s.Type("c", "b weather")
	s.Await(`^  weather: 0%$`, "a")
	s.Stop(syscall.SIGTERM)
}
