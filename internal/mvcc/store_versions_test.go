// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A log is a naive store: the changes of each revision, from revision 2 on.
type log struct {
	revisions [][]KeyValue
	compacted int64
}

func (l *log) revision() int64 { return int64(len(l.revisions)) + 1 }

// first returns the first revision with changes that are kept.
func (l *log) first() int64 { return max(l.compacted, 2) }

// replay applies the changes of a revision to the keys as they were before.
func (l *log) replay(keys map[string]KeyValue, rev int64) {
	if rev < 2 {
		return
	}
	for _, kv := range l.revisions[rev-2] {
		if kv.Deleted() {
			delete(keys, kv.Key)
		} else {
			keys[kv.Key] = kv
		}
	}
}

// inOrder returns the versions of some keys in the order of the keys.
func inOrder(keys map[string]KeyValue) (kvs []KeyValue) {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		kvs = append(kvs, keys[key])
	}
	return kvs
}

var fewKeys = []string{"a", "ab", "b", "b\x00", "c", "never"}

// compare compares all reads of a view, at all revisions.
func (l *log) compare(t *testing.T, v *View) {
	t.Helper()
	require.NoError(t, v.Check())
	require.Equal(t, l.revision(), v.Revision())
	require.Equal(t, l.compacted, v.CompactRevision())
	keys := map[string]KeyValue{}
	for rev := int64(1); rev <= l.revision(); rev++ {
		if rev == l.first() {
			var base []KeyValue
			v.Base(func(kv KeyValue) bool { base = append(base, kv); return true })
			for _, kv := range l.revisions[rev-2] { // which replaced versions of the base
				if rev == l.compacted {
					delete(keys, kv.Key)
				}
			}
			require.Equal(t, inOrder(keys), base)
		}
		l.replay(keys, rev)
		if rev < l.compacted {
			continue
		}
		for _, key := range fewKeys {
			kv, ok := v.Get(key, rev)
			want, exists := keys[key]
			if ok != exists || kv != want {
				require.Equal(t, want, kv, "%q at revision %d", key, rev)
			}
		}
		var all []KeyValue
		v.Ascend("\x00", fromKey, rev, func(kv KeyValue) bool { all = append(all, kv); return true })
		require.Equal(t, inOrder(keys), all, "revision %d", rev)
	}
	v.hot.slots.Store(new([hotSlots]atomic.Pointer[byte]))
	for range 2 {
		for _, key := range fewKeys {
			kv, ok := v.Get(key, 0)
			want, exists := keys[key]
			require.Equal(t, exists, ok)
			require.Equal(t, want, kv)
		}
	}
	next := map[string]KeyValue{}
	for rev := l.revision(); rev >= l.first(); rev-- {
		for _, kv := range slices.Backward(l.revisions[rev-2]) {
			next[kv.Key] = kv
		}
		for _, key := range fewKeys {
			kv, ok := v.Next(key, rev-1)
			want, exists := next[key]
			if ok != exists || kv != want {
				require.Equal(t, want, kv, "%q from revision %d", key, rev)
			}
		}
	}
	at := l.first()
	v.Changes(0, v.Revision(), func(rev int64, changes []KeyValue) bool {
		require.Equal(t, at, rev)
		require.True(t, slices.Equal(l.revisions[rev-2], changes))
		at++
		return true
	})
	require.Equal(t, l.revision()+1, at)
}

// Few keys with many versions: a store, its views, and the store that a Loader makes of it agree with a naive one at every
// revision.
func TestStoreKeepsEveryVersion(t *testing.T) {
	r := random(t)
	runs := 30
	if testing.Short() {
		runs = 4
	}
	type taken struct {
		log  log
		view *View
	}
	for range runs {
		s, l := New(), log{compacted: -1}
		var views []taken
		deletions, changes := 2+r.IntN(60), 1+r.IntN(4)
		for range 1 + r.IntN(600) {
			made := randomRevision(r, s, deletions, changes)
			if _, changed := s.Commit(); changed {
				l.revisions = append(l.revisions, made)
			}
			switch r.IntN(60) {
			case 0:
				rev := s.Revision() - r.Int64N(s.Revision()-max(l.compacted, 0)+1)
				if s.Compact(rev) == nil {
					l.compacted = rev
				}
			case 1:
				s = reloaded(t, s.View())
			case 2:
				views = append(views, taken{l, s.View()})
			case 3:
				l.compare(t, s.View())
			}
		}
		l.compare(t, s.View())
		l.compare(t, reloaded(t, s.View()).View())
		for _, old := range views {
			old.log.compare(t, old.view)
		}
	}
}

// randomRevision makes a revision of some changes, and returns them.
func randomRevision(r *rand.Rand, s *Store, deletions, changes int) (made []KeyValue) {
	for i := range r.IntN(changes + 1) {
		key := fewKeys[r.IntN(len(fewKeys)-1)]
		if r.IntN(3) == 0 {
			key = fewKeys[0]
		}
		if r.IntN(deletions) > 0 {
			_, now := s.Put(key, fmt.Sprint(i), r.Int64N(2))
			made = append(made, now)
			continue
		}
		end := ""
		if r.IntN(2) == 0 {
			end = fromKey
		}
		for _, prev := range s.Delete(key, end) {
			made = append(made, KeyValue{Key: prev.Key, ModRevision: s.Revision() + 1})
		}
	}
	return made
}

// reloaded returns a store that has the versions of a view.
func reloaded(t *testing.T, v *View) *Store {
	l := NewLoader(v.Revision(), v.CompactRevision())
	v.Base(func(kv KeyValue) bool {
		require.NoError(t, l.Add(kv))
		return true
	})
	v.Changes(0, v.Revision(), func(_ int64, changes []KeyValue) bool {
		for _, kv := range changes {
			require.NoError(t, l.Add(kv))
		}
		return true
	})
	s, err := l.Store()
	require.NoError(t, err)
	require.Equal(t, v.Bytes(), s.Bytes())
	require.Equal(t, v.Superseded(), s.Superseded())
	return s
}
