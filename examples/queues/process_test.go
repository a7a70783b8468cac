// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// An item that is typed into one process is done once, by any of them, even if a process that has it is killed or
// stopped. The last process can be stopped, too, although there is no quorum any more.
func TestItemsOutliveProcesses(t *testing.T) {
	s := terminals.Trio(t)
	// Wait for all three: a process that has not joined yet is no part of the quorum when another one is lost.
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
