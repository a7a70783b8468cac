// SPDX-License-Identifier: Apache-2.0

package watchhub

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQueueHasWokenWatchersInOrder(t *testing.T) {
	h, q := NewHub(0), NewQueue()
	a, b, c := addTo(h, q, "a", ""), addTo(h, q, "b", ""), addTo(h, q, "a", "z")
	require.Nil(t, q.Pop())
	require.Empty(t, q.Wake())
	h.Notify([]Change{{2, "b"}})
	h.Notify([]Change{{3, "a"}, {3, "b"}})
	require.Len(t, q.Wake(), 1)
	for _, want := range []struct {
		w           *Watcher
		first, last int64
	}{{b, 2, 3}, {c, 2, 3}, {a, 3, 3}} {
		require.Same(t, want.w, q.Pop())
		first, last := want.w.Take()
		require.Equal(t, []int64{want.first, want.last}, []int64{first, last})
	}
	require.Nil(t, q.Pop())

	a.Poke()
	a.Poke()
	require.Same(t, a, q.Pop(), "a queue has a watcher once")
	require.Nil(t, q.Pop())
	a.Poke()
	require.Same(t, a, q.Pop())
	h.Remove(a)
	h.Notify([]Change{{4, "a"}})
	require.Same(t, c, q.Pop())
	require.Nil(t, q.Pop())
}
