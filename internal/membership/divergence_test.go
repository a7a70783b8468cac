// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMajorityDecidesWhichHashIsRight(t *testing.T) {
	require.Empty(t, Divergent(nil))
	require.Empty(t, Divergent(map[uint64]uint64{1: 7}))
	require.Empty(t, Divergent(map[uint64]uint64{1: 7, 2: 7, 3: 7}))
	require.Equal(t, []uint64{3}, Divergent(map[uint64]uint64{1: 7, 2: 7, 3: 8}))
	require.Equal(t, []uint64{4, 5}, Divergent(map[uint64]uint64{1: 7, 2: 7, 3: 7, 5: 8, 4: 9}))
	require.Equal(t, []uint64{0}, Divergent(map[uint64]uint64{1: 7, 2: 8}), "no majority")
	require.Equal(t, []uint64{0}, Divergent(map[uint64]uint64{1: 7, 2: 7, 3: 8, 4: 9}), "half are no majority")
}
