// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// An instance is killed and started again, and then two are killed at once. The calls of the remaining
// processes are answered, and no call ever fails.
func TestNoCallFailsWhenProcessesAreKilled(t *testing.T) {
	s := terminals.Trio(t)
	all := []string{"a", "b", "c"}
	// Instances are called in turn, so each process calls each.
	answered := func(by []string, of string, callers ...string) {
		for _, caller := range callers {
			for _, name := range by {
				s.Await(`^`+caller+` is answered by `+name+`, one of `+of+`$`, caller)
			}
		}
	}
	answered(all, "3", all...)
	s.Kill("a")
	answered([]string{"b", "c"}, "2", "b", "c")
	s.Start("a")
	answered(all, "3", all...)
	s.Kill("b", "c")
	for range 8 { // longer than a TTL
		answered([]string{"a"}, "3", "a") // it cannot learn that two are gone
	}
	s.Stop(os.Interrupt, "a")
	require.Empty(t, s.Lines("has no answer"))
}
