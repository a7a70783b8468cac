// SPDX-License-Identifier: Apache-2.0

package slot_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/slot"
)

func TestOpenReturnsSealedRecords(t *testing.T) {
	b := make([]byte, slot.Size)
	copy(b, slot.Seal(append(make([]byte, slot.Header), "record"...)))
	record, ok := slot.Open(b)
	require.True(t, ok)
	require.Equal(t, "record", string(record))
}

func TestOpenRejectsDamage(t *testing.T) {
	sealed := slot.Seal(append(make([]byte, slot.Header), "record"...))
	for i := range sealed {
		sealed[i] ^= 0x80
		_, ok := slot.Open(sealed)
		require.False(t, ok, "byte %d", i)
		sealed[i] ^= 0x80
	}
	for n := range sealed {
		_, ok := slot.Open(sealed[:n])
		require.False(t, ok, "%d bytes", n)
	}
}
