// SPDX-License-Identifier: Apache-2.0

package mvcc_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/model"
	"github.com/coterie-kv/coterie/internal/model/modeltest"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A run applies the same operations to a store and a model.
type run struct {
	*testing.T
	*rand.Rand
	store  *mvcc.Store
	model  *model.Model
	hashes map[int64]uint64 // of the store at each revision, when it was the newest
	taken  []snapshot
}

// A snapshot is a view with its expected contents.
type snapshot struct {
	view  *mvcc.View
	model *model.Model
}

// A store agrees with the model in everything observable.
func TestStoreAgreesWithModel(t *testing.T) {
	r := modeltest.Random(t)
	for range modeltest.Few(15) {
		s := &run{T: t, Rand: r, store: mvcc.New(), model: model.New()}
		s.hashes = map[int64]uint64{1: s.store.Hash(0)}
		// Compaction and reloading must not be so frequent that too little is left to compare.
		compactions, reloads := 10+r.IntN(200), 50+r.IntN(200)
		for range 1000 {
			s.commit()
			if r.IntN(compactions) == 0 {
				s.compact()
			}
			if r.IntN(reloads) == 0 {
				s.reload()
			}
			if r.IntN(20) == 0 {
				modeltest.Compare(t, r, s.model, s.store.View())
				s.compareHash()
				s.checkTarget()
			}
			s.view()
		}
		for _, old := range s.taken {
			modeltest.Compare(t, r, old.model, old.view)
		}
	}
}

// commit makes a revision, or none, from some changes.
func (s *run) commit() {
	for range s.IntN(4) {
		s.change()
		if s.IntN(8) == 0 {
			modeltest.CompareReads(s, s.Rand, s.model, s.store)
		}
	}
	pending := s.model.Pending()
	require.Equal(s, pending, s.store.Pending())
	s.model.Commit()
	rev, changed := s.store.Commit()
	require.Equal(s, s.model.Revision(), rev)
	require.Equal(s, pending, changed)
	s.hashes[rev] = s.store.Hash(0)
}

func (s *run) change() {
	if s.IntN(3) > 0 {
		key, value, lease := modeltest.Key(s.Rand), strings.Repeat("v", s.IntN(100)), s.Int64N(3)
		want := modeltest.Value(s.model.Put(key, value, lease))
		prev, now := s.store.Put(key, value, lease)
		require.Equal(s, want, prev)
		require.Equal(s, *s.model.Get(key, 0), now)
		return
	}
	key, end := modeltest.Range(s.Rand)
	if s.IntN(4) > 0 {
		end = "" // else most ranges are empty
	}
	require.Equal(s, modeltest.Values(s.model.Delete(key, end)), s.store.Delete(key, end))
}

func (s *run) compact() {
	rev := modeltest.Revision(s.Rand, s.model)
	before := s.store.Superseded()
	code := s.model.Compact(rev)
	want := map[command.Code]error{command.Compacted: mvcc.ErrCompacted, command.FutureRevision: mvcc.ErrFuture}[code]
	require.Equal(s, want, s.store.Compact(rev), "compaction to %d", rev)
	require.LessOrEqual(s, s.store.Superseded(), before)
	modeltest.Compare(s, s.Rand, s.model, s.store.View())
}

// reload continues with a store that is rebuilt from a view. The difference is not observable.
func (s *run) reload() {
	v := s.store.View()
	l := mvcc.NewLoader(v.Revision(), v.CompactRevision())
	add := func(kv mvcc.KeyValue) bool {
		require.NoError(s, l.Add(kv))
		return true
	}
	v.Base(add)
	v.Changes(0, v.Revision(), func(_ int64, changes []mvcc.KeyValue) bool {
		for _, kv := range changes {
			add(kv)
		}
		return true
	})
	again, err := l.Store()
	require.NoError(s, err)
	require.Equal(s, v.Hash(0), again.Hash(0))
	modeltest.Compare(s, s.Rand, s.model, again.View())
	s.store = again
}

// compareHash compares the hash of a revision with its hash before any compaction.
func (s *run) compareHash() {
	rev := modeltest.Revision(s.Rand, s.model)
	if rev > 0 && s.store.CheckRevision(rev) == nil {
		require.Equal(s, s.hashes[rev], s.store.Hash(rev), "revision %d", rev)
	}
}

// view sometimes takes a view, and checks an earlier one.
func (s *run) view() {
	switch s.IntN(50) {
	case 0:
		taken := snapshot{s.store.View(), s.model.Clone()}
		if len(s.taken) < 5 {
			s.taken = append(s.taken, taken)
		} else {
			s.taken[s.IntN(len(s.taken))] = taken
		}
	case 1:
		if len(s.taken) > 0 {
			old := s.taken[s.IntN(len(s.taken))]
			modeltest.Compare(s, s.Rand, old.model, old.view)
		}
	}
}

// checkTarget checks that CompactTarget returns the lowest revision that satisfies the bounds.
func (s *run) checkTarget() {
	revisions, bytes := s.Int64N(50)-5, s.Int64N(10_000)-1000
	exceeded := func(m *model.Model) bool {
		_, superseded := modeltest.Bytes(m)
		// No revision before 2 has changes.
		return revisions >= 0 && m.Revision()-max(m.CompactRevision(), 2) > revisions || bytes >= 0 && superseded > bytes
	}
	compacted := func(rev int64) *model.Model {
		m := s.model.Clone()
		m.Compact(rev) // if rev is compacted already this does nothing
		return m
	}
	bounds := fmt.Sprintf("%d revisions, %d bytes", revisions, bytes)
	target := s.store.CompactTarget(revisions, bytes)
	if target == 0 {
		require.True(s, !exceeded(s.model) || s.store.CompactRevision() == s.store.Revision(), bounds)
		return
	}
	require.Greater(s, target, s.store.CompactRevision(), bounds)
	require.True(s, exceeded(compacted(target-1)), bounds)
	require.True(s, !exceeded(compacted(target)) || target == s.store.Revision(), bounds)
}

// A bound on bytes counts everything that compaction leaves, including tombstones of its own revision,
// and nothing that an earlier compaction has freed.
func TestCompactTargetCountsRemainingBytes(t *testing.T) {
	s := mvcc.New()
	do := func(change func()) {
		change()
		s.Commit()
	}
	put := func(size int) func() { return func() { s.Put("k", strings.Repeat("v", size), 0) } }
	do(put(10_000)) // revision 2
	do(func() { s.Delete("k", "") })
	do(put(1))
	require.EqualValues(t, 4, s.CompactTarget(-1, 0), "revision 3 would leave its tombstone")
	require.EqualValues(t, 3, s.CompactTarget(-1, 1000))

	require.NoError(t, s.Compact(3))
	for range 10 {
		do(put(1000)) // to revision 14
	}
	require.Less(t, s.Superseded(), int64(12_000))
	require.EqualValues(t, 10, s.CompactTarget(-1, 5000), "the first value was freed and no longer counts")
}

// A compaction replaces chunks of the history that a view shares.
func TestViewKeepsHistoryThatIsCompacted(t *testing.T) {
	const last = 1000
	s := mvcc.New()
	for range last - 1 {
		s.Put("k", "v", 0)
		s.Commit()
	}
	changes := func(v *mvcc.View) (n int) {
		v.Changes(0, last, func(_ int64, changes []mvcc.KeyValue) bool {
			n += len(changes)
			return true
		})
		return n
	}
	before := s.View()
	for rev := int64(100); rev <= last; rev += 150 {
		require.NoError(t, s.Compact(rev))
		require.Equal(t, last-int(rev)+1, changes(s.View()))
		require.Equal(t, last-1, changes(before))
		require.NoError(t, before.Check())
		require.NoError(t, s.View().Check())
	}
}

// A tombstone outlives a compaction to its revision, but not the next one.
func TestCompactionRemovesTombstones(t *testing.T) {
	s := mvcc.New()
	s.Put("k", "v", 0)
	s.Commit()
	s.Delete("k", "")
	s.Commit()
	require.NoError(t, s.Compact(3))
	_, kept := s.View().Next("k", 2)
	require.True(t, kept)
	s.Put("other", "v", 0)
	s.Commit()
	require.NoError(t, s.Compact(4))
	_, kept = s.View().Next("k", 0)
	require.False(t, kept)
	require.Zero(t, s.Superseded())
	require.NoError(t, s.View().Check())
}
