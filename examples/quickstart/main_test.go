// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/coterie-kv/coterie/examples/internal/terminals"
)

// Its three nodes are in one process, as its documentation says, and it checks itself.
func TestEveryStepHolds(t *testing.T) {
	s := terminals.Open(t)
	s.Run("quickstart")
	s.Wait("quickstart")
	s.Await("^done ", "quickstart")
}
