// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestViewRemembersLookUps(t *testing.T) {
	const keys = 3 * hotSlots
	key := func(i int) string { return fmt.Sprint("key-", i) }
	s := New()
	for i := range keys {
		s.Put(key(i), "old", 0)
		s.Commit()
	}
	old := s.View()
	for range hotAfter {
		require.Nil(t, old.hot.slots.Load())
		old.Get(key(1), 0)
	}
	require.NotNil(t, old.hot.slots.Load())
	for i := range keys / 2 {
		s.Put(key(i), "new", 0)
	}
	s.Delete(key(keys-1), "")
	s.Commit()
	now := s.View()
	require.Nil(t, now.hot.slots.Load(), "nothing was read")
	now.hot.slots.Store(new([hotSlots]atomic.Pointer[byte]))
	for range 2 {
		for i := range keys { // more than there are slots
			kv, ok := old.Get(key(i), 0)
			require.True(t, ok)
			require.Equal(t, "old", kv.Value)
			want := "old"
			if i < keys/2 {
				want = "new"
			}
			kv, ok = now.Get(key(i), 0)
			require.Equal(t, i != keys-1, ok)
			if ok {
				require.Equal(t, want, kv.Value)
			}
		}
	}
}
