// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The checksum covers the place of a batch, so a batch from earlier contents of the blocks is rejected.
func TestMisplacedBatchIsDamage(t *testing.T) {
	b := newBatch()
	b.entry(entry(1, 1))
	sealed := b.seal(place{7, 24})
	segment := append(make([]byte, 24), sealed...)
	_, _, ok := place{7, 24}.open(segment)
	require.True(t, ok)
	_, _, ok = place{8, 24}.open(segment)
	require.False(t, ok)
	_, _, ok = place{7, 32}.open(append(make([]byte, 32), sealed...))
	require.False(t, ok)
}
