// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"math"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
)

// In Myers' paper, the length of a jump follows from the two jumps before it.
func TestFarLengthIsThatOfJumpPointers(t *testing.T) {
	far := []int{0} // the number of older versions that the far predecessor has
	for older := 1; older < 100_000; older++ {
		last := far[older-1]
		want := older - 1
		if older-1-last == last-far[last] {
			want = far[last]
		}
		far = append(far, want)
		require.EqualValues(t, older-want, farLength(uint64(older)), "%d older versions", older)
	}
	require.EqualValues(t, 1, farLength(math.MaxUint64/2+1))
	require.EqualValues(t, uint64(math.MaxInt64), farLength(math.MaxInt64))
}

func TestLinksRoundTrip(t *testing.T) {
	for _, l := range []links{
		{},
		{index: 1},
		{pred: place{1, 0}},
		{pred: place{1 << 40, 0}},
		{index: 7, pred: place{1 << 40, 6}, far: place{1<<40 - 1, 1_000_000}},
		{index: math.MaxInt32, pred: place{2, math.MaxInt32}, far: place{1, math.MaxInt32}},
	} {
		kv := KeyValue{Key: "key", Value: "value", CreateRevision: 3, ModRevision: 1 << 40, Version: math.MaxInt64, Lease: math.MinInt64}
		v := newVersion(&kv, l)
		require.Equal(t, l, v.links())
		require.Equal(t, kv, v.keyValue())
		require.False(t, v.deleted())

		kv = KeyValue{Key: "key", ModRevision: 1 << 40}
		v = newVersion(&kv, l)
		require.Equal(t, l, v.links())
		require.Equal(t, kv, v.keyValue())
		require.True(t, v.deleted())
	}
}

// overwritten returns a store with some versions of one key, from revision 2 on.
func overwritten(versions int) *Store {
	s := New()
	for range versions {
		s.Put("key", "value", 0)
		s.Commit()
	}
	return s
}

// requireFewSteps checks the number of versions that a read at each of some revisions reads.
func requireFewSteps(t *testing.T, v *View) {
	t.Helper()
	versions := v.revision - v.history.first + 1
	most := 3 * bits.Len64(uint64(versions))
	for rev := v.history.first; rev <= v.revision; rev += 1 + versions/5000 {
		at, steps := v.live.find("key"), 0
		if !at.exists() {
			at = v.tombstones.since("key", rev)
		}
		for {
			l := at.links()
			older := l.since(rev)
			if older.rev == 0 {
				break
			}
			at = v.history.at(older)
			steps++
		}
		require.LessOrEqual(t, steps, most, "revision %d", rev)
		require.Equal(t, rev, at.modRevision())
	}
}

func TestReadOfOldRevisionTakesFewSteps(t *testing.T) {
	const versions = 100_000
	s := overwritten(versions)
	view := s.View()
	requireFewSteps(t, view)

	// The links of versions that are made later lead beyond the compaction.
	require.NoError(t, s.Compact(versions/3))
	requireFewSteps(t, s.View())
	for range versions {
		s.Put("key", "value", 0)
		s.Commit()
	}
	requireFewSteps(t, s.View())

	// A Loader finds a history that begins amid the versions.
	l := NewLoader(s.Revision(), s.CompactRevision())
	s.Base(func(kv KeyValue) bool { return l.Add(kv) == nil })
	s.Changes(0, s.Revision(), func(_ int64, changes []KeyValue) bool { return l.Add(changes[0]) == nil })
	loaded, err := l.Store()
	require.NoError(t, err)
	requireFewSteps(t, loaded.View())

	s.Delete("key", "")
	s.Commit()
	requireFewSteps(t, s.View())
	requireFewSteps(t, view)
}

// A revision that deletes many keys is not searched for one of them.
func TestReadsBeforeDeletionOfManyKeys(t *testing.T) {
	const keys = 10_000
	key := func(i int) string { return string([]byte{'k', byte(i >> 8), byte(i)}) }
	s := New()
	for range 2 {
		for i := range keys {
			s.Put(key(i), "value", 0)
		}
		s.Commit()
	}
	s.Delete("k", "l")
	s.Commit()
	v := s.View()
	require.NoError(t, v.Check())
	for i := range keys {
		then, ok := v.Get(key(i), 2)
		last, _ := v.Get(key(i), 3)
		next, _ := v.Next(key(i), 2)
		if _, exists := v.Get(key(i), 4); !ok || exists || then.Version != 1 || last.Version != 2 || next.Version != 2 || next.ModRevision != 3 {
			t.Fatalf("key %d: %+v, %+v, %+v", i, then, last, next)
		}
		if next, _ := v.Next(key(i), 3); !next.Deleted() || next.Key != key(i) {
			t.Fatalf("key %d: %+v", i, next)
		}
	}
}
