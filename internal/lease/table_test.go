// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func check(t testing.TB, v *View) {
	t.Helper()
	require.NoError(t, v.Check(func(int64, string) error { return nil }))
}

func TestGrantOnce(t *testing.T) {
	table := NewTable()
	require.True(t, table.Grant(Lease{7, time.Second}))
	require.False(t, table.Grant(Lease{7, time.Hour}), "the ID is in use")
	require.True(t, table.Grant(Lease{-7, time.Minute}), "IDs may be negative")
	require.Equal(t, []Lease{{-7, time.Minute}, {7, time.Second}}, slices.Collect(table.All()))
	require.Equal(t, 2, table.Len())
	require.True(t, table.Has(7))
	require.False(t, table.Has(8))
	table.Remove(7)
	table.Remove(8)
	require.Equal(t, []Lease{{-7, time.Minute}}, slices.Collect(table.All()))
	require.True(t, table.Grant(Lease{7, time.Hour}), "the ID may be used again")
	check(t, &table.View)
}

func TestKeysAreOrdered(t *testing.T) {
	table := NewTable()
	for _, id := range []int64{1, 2, -1} {
		table.Grant(Lease{id, time.Second})
	}
	for _, key := range []string{"c", "a", "\xff", "b", "a\x00"} {
		table.Attach(1, key)
	}
	table.Attach(2, "d")
	table.Attach(-1, "e")
	require.Equal(t, []string{"a", "a\x00", "b", "c", "\xff"}, slices.Collect(table.Keys(1)))
	require.Equal(t, []string{"d"}, slices.Collect(table.Keys(2)))
	require.Equal(t, []string{"e"}, slices.Collect(table.Keys(-1)))
	require.Empty(t, slices.Collect(table.Keys(3)))
	for key := range table.Keys(1) {
		require.Equal(t, "a", key)
		break
	}
	table.Detach(1, "b")
	table.Detach(1, "d") // attached to another lease
	require.Equal(t, []string{"a", "a\x00", "c", "\xff"}, slices.Collect(table.Keys(1)))
	require.Equal(t, 6, table.Attached())
	check(t, &table.View)
}

func TestViewIsImmutable(t *testing.T) {
	table := NewTable()
	for id := range int64(1000) {
		table.Grant(Lease{id + 1, time.Second})
		table.Attach(id+1, fmt.Sprint("key", id))
	}
	v := table.Freeze()
	for id := range int64(500) {
		table.Detach(id+1, fmt.Sprint("key", id))
		table.Remove(id + 1)
	}
	table.Grant(Lease{5000, time.Second})
	require.Equal(t, 1000, v.Len())
	require.Equal(t, 1000, v.Attached())
	require.Equal(t, []string{"key3"}, slices.Collect(v.Keys(4)))
	require.False(t, v.Has(5000))
	check(t, v)
	require.Equal(t, 501, table.Len())
	require.Equal(t, 500, table.Attached())
	check(t, &table.View)
}

func TestCheckFindsMissingLease(t *testing.T) {
	table := NewTable()
	table.Attach(1, "k")
	require.ErrorContains(t, table.Check(func(int64, string) error { return nil }), "does not exist")
	table.Grant(Lease{1, time.Second})
	check(t, &table.View)
	broken := errors.New("broken")
	require.ErrorIs(t, table.Check(func(int64, string) error { return broken }), broken)
}
