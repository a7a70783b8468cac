// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// The demonstration checks itself. Here it runs in virtual time.
func TestDemo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, demo(t.Context()))
	})
}

// One process after the other is killed, among them the leader of the cluster. The two others continue to
// share the settings, and the killed one has them when it is started again. At the end one process starts
// alone, with the settings of its file.
func TestTwoOfThreeProcessesShareSettings(t *testing.T) {
	s := terminals.Trio(t)
	// Wait for all three: a founder that the cluster has never heard from does not count when another one
	// is lost.
	names := []string{"a", "b", "c"}
	for _, name := range names {
		s.Await(`^`+name+` has level=info rate=100$`, name)
	}
	s.Type("a", "speed=9")
	s.Await("^rejected: .*type level", "a")
	for i, killed := range names {
		s.Kill(killed)
		typed, other := names[(i+1)%3], names[(i+2)%3]
		s.Type(typed, "rate=-1")
		s.Await("^rejected: .*must be positive$", typed)
		s.Type(typed, fmt.Sprintf("rate=1%d", i))
		has := fmt.Sprintf(` has level=info rate=1%d$`, i)
		s.Await(has, typed)
		s.Await(has, other)
		s.Start(killed)
		s.Await(has, killed)
	}
	s.Type("b", "undo")
	s.Await(` has level=info rate=11$`, "c")
	s.Kill("a")
	s.Kill("b")
	s.Stop(os.Interrupt, "c") // an orderly stop: the last settings are in its file
	s.Start("c")
	s.Await(`^c has level=info rate=11$`, "c")
	s.Stop(os.Interrupt, "c")
}
