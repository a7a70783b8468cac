// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"testing"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// The leader of three processes is killed: the others report that, and report when it is back. When two
// are killed, the last one prints that it has no leader, and still ends at SIGTERM.
func TestProcessesMonitorEachOther(t *testing.T) {
	s := terminals.Trio(t)
	names := []string{"a", "b", "c"}
	for _, name := range names {
		s.Await(`^`+name+`: all of the 3 members are up$`, name)
	}
	leader := s.Await(`^\w leads, reaches 3 of 3 voters`).From
	s.Kill(leader)
	for _, name := range names {
		if name != leader {
			s.Await(`^`+name+`: ALERT: of 3 members, these are down: \[`+leader+`\]$`, name)
		}
	}
	s.Await(`^\w leads, reaches 2 of 3 voters`)
	s.Start(leader)
	for _, name := range names {
		s.Await(`^`+name+`: all of the 3 members are up$`, name)
	}

	for _, name := range names {
		if name != leader {
			s.Kill(name)
		}
	}
	s.Await(`^`+leader+` has no leader, and stays at revision \d+$`, leader)
	s.Stop(syscall.SIGTERM, leader)
}
