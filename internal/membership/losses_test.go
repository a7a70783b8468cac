// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLossesAreOfOneIncarnation(t *testing.T) {
	var l Losses
	require.False(t, l.Has(1, 0))
	require.True(t, l.Add(1, 7))
	require.False(t, l.Add(1, 7))
	require.True(t, l.Has(1, 7))
	require.False(t, l.Has(1, 8))
	require.True(t, l.Add(1, 8))
	require.False(t, l.Has(1, 7))
}
