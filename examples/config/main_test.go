// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// One process after the other is killed, so the leader of the cluster is among them. The two others go
// on sharing what is typed into one of them, and the killed one has it when it is started again.
func TestTwoOfThreeProcessesGoOnSharing(t *testing.T) {
	s := terminals.Trio(t)
	// All three have to be there: one that the cluster has never heard of does not count when another
	// is gone.
	names := []string{"a", "b", "c"}
	for _, name := range names {
		s.Await(`^`+name+` has revision \d+: nothing$`, name)
	}
	s.Type("a", "log.level")
	s.Await("^type key=value to set a key$", "a")
	for i, killed := range names {
		s.Kill(killed)
		typed, other := names[(i+1)%3], names[(i+2)%3]
		s.Type(typed, fmt.Sprintf("rate=%d", i))
		has := fmt.Sprintf(`has revision \d+: rate=%d$`, i)
		s.Await(has, typed)
		s.Await(has, other)
		s.Start(killed)
		s.Await(has, killed)
	}
	s.Stop(os.Interrupt)
}
