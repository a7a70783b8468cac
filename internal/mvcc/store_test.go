// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var seed = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")

func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", s)
	return rand.New(rand.NewPCG(s, 0))
}

// A naive store: all versions ever, in a list.
type naive struct {
	versions []KeyValue
	rev      int64
	compact  int64
}

func (m *naive) at(key string, rev int64) *KeyValue {
	for i := len(m.versions) - 1; i >= 0; i-- {
		if v := &m.versions[i]; v.Key == key && v.ModRevision <= rev {
			return v
		}
	}
	return nil
}

func (m *naive) scan(key, end string, rev int64) (out []KeyValue) {
	seen := map[string]bool{}
	for _, v := range m.versions {
		if !seen[v.Key] && Contains(key, end, v.Key) {
			seen[v.Key] = true
			if kv := m.at(v.Key, rev); kv != nil && !kv.Deleted() {
				out = append(out, *kv)
			}
		}
	}
	slices.SortFunc(out, func(a, b KeyValue) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return out
}

func collect(v *View, key, end string, rev int64) (out []KeyValue) {
	v.Ascend(key, end, rev, func(kv *KeyValue) bool { out = append(out, *kv); return true })
	return out
}

func compare(t *testing.T, v *View, m *naive, r *rand.Rand) {
	t.Helper()
	require.NoError(t, v.Check())
	low := max(m.compact, 1)
	for range 4 {
		rev := low + r.Int64N(m.rev-low+1)
		key, end := someRange(r)
		require.Equal(t, m.scan(key, end, rev), collect(v, key, end, rev), "range %q %q at %d", key, end, rev)
		require.Len(t, m.scan(key, end, m.rev), v.Count(key, end))
		k := someKey(r)
		var want, got *KeyValue
		if kv := m.at(k, rev); kv != nil && !kv.Deleted() {
			want = kv
		}
		if kv := v.Get(k, rev); kv != nil {
			got = kv
		}
		require.Equal(t, want, got)
		want, got = nil, nil
		for i := range m.versions {
			if kv := &m.versions[i]; kv.Key == k && kv.ModRevision > rev {
				want = kv
				break
			}
		}
		if kv := v.Next(k, rev); kv != nil {
			got = kv
		}
		require.Equal(t, want, got, "next of %q after %d", k, rev)
	}
	var want, got []KeyValue
	for _, kv := range m.versions {
		if kv.ModRevision >= m.compact {
			want = append(want, kv)
		}
	}
	v.Changes(0, m.rev, func(_ int64, changes []*KeyValue) bool {
		for _, kv := range changes {
			got = append(got, *kv)
		}
		return true
	})
	require.Equal(t, want, got)
}

func someKey(r *rand.Rand) string { return fmt.Sprintf("k%02d", r.IntN(40)) }

func someRange(r *rand.Rand) (string, string) {
	switch r.IntN(4) {
	case 0:
		return someKey(r), ""
	case 1:
		return someKey(r), fromKey
	}
	return someKey(r), someKey(r)
}

func TestAgainstNaive(t *testing.T) {
	r := random(t)
	s, m := New(), &naive{rev: 1, compact: -1}
	type kept struct {
		v *View
		m naive
	}
	var old []kept
	for step := range 3000 {
		for range 1 + r.IntN(3) {
			if r.IntN(3) > 0 {
				k := someKey(r)
				kv := KeyValue{Key: k, Value: fmt.Sprint(step), CreateRevision: m.rev + 1, ModRevision: m.rev + 1, Version: 1, Lease: r.Int64N(2)}
				if prev := m.at(k, m.rev+1); prev != nil && !prev.Deleted() {
					kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
				}
				s.Put(k, kv.Value, kv.Lease)
				m.versions = append(m.versions, kv)
				continue
			}
			key, end := someRange(r)
			gone := m.scan(key, end, m.rev+1)
			require.Len(t, s.Delete(key, end), len(gone))
			for _, kv := range gone {
				m.versions = append(m.versions, KeyValue{Key: kv.Key, ModRevision: m.rev + 1})
			}
		}
		if _, changed := s.Commit(); changed {
			m.rev++
		}
		require.Equal(t, m.rev, s.Revision())
		if r.IntN(50) == 0 && m.rev > max(m.compact, 1) {
			m.compact = max(m.compact, 1) + r.Int64N(m.rev-max(m.compact, 1)) + 1
			require.NoError(t, s.Compact(m.compact))
			require.ErrorIs(t, s.Compact(m.compact), ErrCompacted)
		}
		require.ErrorIs(t, s.Compact(m.rev+1), ErrFuture)
		if r.IntN(20) == 0 {
			compare(t, s.View(), m, r)
		}
		if r.IntN(200) == 0 {
			old = append(old, kept{s.View(), naive{slices.Clone(m.versions), m.rev, m.compact}})
		}
		if r.IntN(100) == 0 {
			again := reload(t, s.View())
			compare(t, again.View(), m, r)
			require.Equal(t, s.Bytes(), again.Bytes())
			require.Equal(t, s.Superseded(), again.Superseded())
			require.Equal(t, s.Hash(0), again.Hash(0))
			if r.IntN(2) == 0 {
				s = again
			}
		}
	}
	for _, k := range old {
		compare(t, k.v, &k.m, r)
	}
}

func reload(t *testing.T, v *View) *Store {
	l := NewLoader(v.Revision(), v.CompactRevision())
	v.Base(func(kv *KeyValue) bool {
		c := *kv
		require.NoError(t, l.Add(&c))
		return true
	})
	v.Changes(0, v.Revision(), func(_ int64, changes []*KeyValue) bool {
		for _, kv := range changes {
			c := *kv
			require.NoError(t, l.Add(&c))
		}
		return true
	})
	s, err := l.Store()
	require.NoError(t, err)
	return s
}
