// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// What is typed into one process is done by any of them, once: also what one had that was killed, and
// what one had that was stopped. The last one can be stopped, too, though there is no quorum any more.
func TestItemsOutliveProcesses(t *testing.T) {
	s := terminals.Trio(t)
	// All three have to be there: one that the cluster has never heard of does not count when another
	// is gone.
	for _, name := range []string{"a", "b", "c"} {
		s.Await(`^`+name+` takes items`, name)
	}

	s.Type("a", "drill")
	killed := s.Await(`^\w begins drill$`).From
	s.Kill(killed)
	heir := s.Await(`^\w begins drill$`).From
	s.Await(`^`+heir+` has done drill$`, heir)

	s.Start(killed)
	s.Type(killed, "sand")
	stopped := s.Await(`^\w begins sand$`).From
	s.Stop(syscall.SIGTERM, stopped)
	last := s.Await(`^\w begins sand$`).From
	for _, name := range []string{"a", "b", "c"} {
		if name != stopped && name != last {
			s.Stop(syscall.SIGTERM, name)
		}
	}
	s.Stop(syscall.SIGTERM, last)
	seen := map[string]bool{}
	for _, l := range s.Lines(`^\w has done (\w+)$`) {
		require.False(t, seen[l.Fields[1]], "%s is done twice", l.Fields[1])
		seen[l.Fields[1]] = true
	}
}
