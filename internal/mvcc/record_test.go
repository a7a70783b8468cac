// SPDX-License-Identifier: Apache-2.0

// With the race detector a pool forgets objects at random.
//go:build !race

package mvcc

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLookupsDoNotAllocate(t *testing.T) {
	s := New()
	s.Put("deleted", "value", 0)
	s.Put("key", "value", 0)
	s.Commit()
	s.Delete("deleted", "")
	s.Commit()
	v := s.View()
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		_, now := v.Get("key", 0)
		_, then := v.Get("key", 2)
		_, deleted := v.Get("deleted", 0)
		if !now || !then || deleted || v.Count("key", "") != 1 {
			t.Error("a look-up found another key")
		}
	}), 0.5) // the collector may empty the pool
}

func TestPutAllocatesVersionAndRecord(t *testing.T) {
	s := New()
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		s.Put("key", "value", 0)
		s.Commit()
	}), 3.5) // the version, its record, and the growth of the tree and of the history
}
