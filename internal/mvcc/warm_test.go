// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWarmSearchesLargeTreesOnly(t *testing.T) {
	key := func(i int) string { return fmt.Sprintf("key-%08d", uint32(i)*2654435761%100_000_000) }
	s := New()
	keys := make([]string, WarmAtOnce)
	for i := range keys {
		keys[i] = key(i)
	}
	require.Zero(t, s.Warm(keys))
	for i := range warmFrom {
		s.Put(key(i), "value", 0)
		s.Commit()
	}
	require.NotZero(t, s.Warm(keys))
	require.NotZero(t, s.Warm(append(keys, keys...)))
	require.NotZero(t, s.Warm([]string{"", "key-5", "\xff"}))
	require.Zero(t, s.Warm(nil))
	require.Zero(t, s.Warm(keys[:1]))
	require.Zero(t, s.Warm([]string{"key-50000000", "key-50000001"}), "of neighbors")
	require.Zero(t, s.Warm([]string{"key-50000000", "key-50500000"}), "of 500 versions")
	require.Zero(t, testing.AllocsPerRun(100, func() { s.Warm(keys) }))
	require.NoError(t, s.Check())
}
