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

// The demonstration checks itself; here, in virtual time.
func TestTheDemonstrationHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, demo(t.Context()))
	})
}

// One process after the other is killed, so the leader of the cluster is among them. The two others go
// on sharing what is typed into one of them, and the killed one has it when it is started again; also
// when no other is there.
func TestTwoOfThreeProcessesGoOnSharing(t *testing.T) {
	s := terminals.Trio(t)
	// All three have to be there: one that the cluster has never heard of does not count when another
	// is gone.
	names := []string{"a", "b", "c"}
	for _, name := range names {
		s.Await(`^`+name+` has level=info rate=100$`, name)
	}
	s.Type("a", "speed=9")
	s.Await("^refused: .*type level", "a")
	for i, killed := range names {
		s.Kill(killed)
		typed, other := names[(i+1)%3], names[(i+2)%3]
		s.Type(typed, "rate=-1")
		s.Await("^refused: .*must be positive$", typed)
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
	s.Stop(os.Interrupt, "c") // in good order: what it has seen is in its file
	s.Start("c")
	s.Await(`^c has level=info rate=11$`, "c")
	s.Stop(os.Interrupt, "c")
}
