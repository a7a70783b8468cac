// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

func TestEachInstanceHearsEachLeader(t *testing.T) {
	s := terminals.Open(t)
	t.Chdir(t.TempDir()) // it gets the directories of all three
	names := []string{"a", "b", "c"}
	for _, name := range names {
		s.Run(name, name)
	}
	// greeted waits until each instance sees the greeting of one leader, and returns that leader.
	greeted := func(pattern string) (leader string) {
		for _, name := range names {
			leader = s.Await(`^\w sees: hello from (`+pattern+`)$`, name).Fields[1]
		}
		return leader
	}
	first := greeted(".")
	s.Stop(os.Interrupt, first)
	s.Run(first, first)
	second := greeted("[^" + first + "]")
	require.NotEqual(t, first, second)
	s.Kill(second)
	s.Run(second, second)
	greeted("[^" + second + "]")
	s.Stop(os.Interrupt)
}
