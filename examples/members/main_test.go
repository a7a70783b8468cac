// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// This runs the demonstration as a program, which starts itself as other processes.
func TestDemo(t *testing.T) {
	s := terminals.Open(t)
	s.Run("operator")
	s.Wait("operator")
	for _, step := range steps {
		require.NotEmpty(t, s.Lines(`^`+regexp.QuoteMeta(step.name)+` `), "%q has printed nothing", step.name)
	}
}
