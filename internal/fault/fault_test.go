// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
)

func TestLimitErrorMatchesItsKind(t *testing.T) {
	err := error(&fault.LimitError{Limit: 2, Actual: 3, Kind: fault.ErrOverloaded, Unit: "calls wait", Field: "MaxPendingCalls"})
	require.ErrorIs(t, err, fault.ErrOverloaded)
	require.NotErrorIs(t, err, fault.ErrNoSpace)
	require.EqualError(t, err, "coterie: overloaded: 3 calls wait, the limit is 2 (Config.MaxPendingCalls)")
}
