// SPDX-License-Identifier: Apache-2.0

// Package modeltest has the shared parts of the tests against the model: their source of random numbers,
// and the comparison of a store with a model.
package modeltest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/model"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// Random returns a source of random numbers and logs its seed. COTERIE_SEED sets the seed.
func Random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if given := os.Getenv("COTERIE_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("COTERIE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Few returns n, or less in a short run.
func Few(n int) int {
	if testing.Short() {
		return max(1, n/10)
	}
	return n
}

// Key returns one of about eighty keys. Many are prefixes of others, and they include the lowest and the
// highest byte.
func Key(r *rand.Rand) string {
	const alphabet = "\x00ab\xff"
	key := make([]byte, 1+r.IntN(3))
	for i := range key {
		key[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(key)
}

// Range returns a range: a single key, all keys from one on, or the keys between two, which may be in
// either order.
func Range(r *rand.Rand) (key, end string) {
	switch r.IntN(8) {
	case 0, 1:
		return Key(r), ""
	case 2:
		return Key(r), "\x00"
	case 3:
		return "\x00", "\x00"
	}
	return Key(r), Key(r)
}

// Revision returns a revision: usually a readable one, sometimes one just outside, or one that means the
// latest.
func Revision(r *rand.Rand, m *model.Model) int64 {
	oldest := max(m.CompactRevision(), 1)
	switch r.IntN(6) {
	case 0:
		return r.Int64N(3) - 2
	case 1:
		return oldest + r.Int64N(3) - 1
	case 2:
		return m.Revision() + r.Int64N(3) - 1
	}
	return oldest + r.Int64N(m.Revision()-oldest+1)
}

// A Reader is an mvcc.View, or an mvcc.Store with uncommitted changes.
type Reader interface {
	Revision() int64
	CompactRevision() int64
	CheckRevision(rev int64) error
	Get(key string, rev int64) (mvcc.KeyValue, bool)
	Ascend(key, end string, rev int64, fn func(mvcc.KeyValue) bool)
	Count(key, end string) int
}

// CompareReads compares random reads from a store and a model.
func CompareReads(t testing.TB, r *rand.Rand, m *model.Model, store Reader) {
	require.Equal(t, m.Revision(), store.Revision())
	require.Equal(t, m.CompactRevision(), store.CompactRevision())
	key, end := Range(r)
	require.Equal(t, len(m.Range(key, end, 0)), store.Count(key, end), "count of [%q, %q)", key, end)

	rev := Revision(r, m)
	readable := map[command.Code]error{command.Compacted: mvcc.ErrCompacted, command.FutureRevision: mvcc.ErrFuture}[m.Readable(rev)]
	require.Equal(t, readable, store.CheckRevision(rev), "revision %d", rev)
	if readable != nil {
		return
	}
	kv, ok := store.Get(key, rev)
	requireSame(t, m.Get(key, rev), kv, ok, "key %q at revision %d", key, rev)
	want, got := Values(m.Range(key, end, rev)), []mvcc.KeyValue(nil)
	store.Ascend(key, end, rev, func(kv mvcc.KeyValue) bool {
		got = append(got, kv)
		return true
	})
	require.Equal(t, want, got, "[%q, %q) at revision %d", key, end, rev)
	if len(want) > 0 { // a visit that ends early
		most := 1 + r.IntN(len(want))
		store.Ascend(key, end, rev, func(mvcc.KeyValue) bool {
			most--
			return most > 0
		})
		require.Zero(t, most, "[%q, %q) at revision %d", key, end, rev)
	}
}

// requireSame compares a version of the model, or nil, with the result of a look-up.
func requireSame(t testing.TB, want *mvcc.KeyValue, got mvcc.KeyValue, ok bool, format string, args ...any) {
	t.Helper()
	require.Equal(t, want != nil, ok, append([]any{format}, args...)...)
	require.Equal(t, Value(want), got, append([]any{format}, args...)...)
}

// Value returns a version of a model by value. A nil version becomes the zero KeyValue.
func Value(kv *mvcc.KeyValue) mvcc.KeyValue {
	if kv == nil {
		return mvcc.KeyValue{}
	}
	return *kv
}

// Values returns versions of a model by value.
func Values(kvs []*mvcc.KeyValue) (values []mvcc.KeyValue) {
	for _, kv := range kvs {
		values = append(values, *kv)
	}
	return values
}

// Compare compares everything observable in a view with the model, some of it at random.
func Compare(t testing.TB, r *rand.Rand, m *model.Model, view *mvcc.View) {
	require.NoError(t, view.Check())
	require.Equal(t, len(m.Range("\x00", "\x00", 0)), view.Keys())
	for range 4 {
		CompareReads(t, r, m, view)
	}
	for _, from := range []int64{0, Revision(r, m)} {
		to := max(from, Revision(r, m))
		require.Equal(t, Values(m.Changes(from, to)), changes(view, from, to), "changes from %d to %d", from, to)
	}
	compareWatches(t, r, m, view)
	compareKept(t, m, view)
}

// changes returns the changes of a view that have the revision of their entry.
func changes(view *mvcc.View, from, to int64) (found []mvcc.KeyValue) {
	view.Changes(from, to, func(rev int64, changes []mvcc.KeyValue) bool {
		for _, kv := range changes {
			if kv.ModRevision == rev {
				found = append(found, kv)
			}
		}
		return true
	})
	return found
}

// compareWatches compares the results for watches.
func compareWatches(t testing.TB, r *rand.Rand, m *model.Model, view *mvcc.View) {
	// A watch of a key begins at the compact revision at the earliest.
	key, after := Key(r), max(Revision(r, m), m.CompactRevision()-1)
	next, ok := view.Next(key, after)
	requireSame(t, m.Next(key, after), next, ok, "next change of %q after %d", key, after)
	all := m.Changes(0, m.Revision())
	for range min(4, len(all)) {
		kv := all[r.IntN(len(all))]
		previous, ok := view.Previous(*kv)
		requireSame(t, m.Previous(kv), previous, ok, "before %+v", kv)
	}
}

// compareKept compares the kept versions and their size.
func compareKept(t testing.TB, m *model.Model, view *mvcc.View) {
	var base, want []mvcc.KeyValue
	view.Base(func(kv mvcc.KeyValue) bool {
		base = append(base, kv)
		return true
	})
	for _, kv := range m.Range("\x00", "\x00", max(m.CompactRevision(), 1)) {
		if kv.ModRevision < m.CompactRevision() {
			want = append(want, *kv)
		}
	}
	require.Equal(t, want, base)
	total, superseded := Bytes(m)
	require.Equal(t, total, view.Bytes())
	require.Equal(t, superseded, view.Superseded())
}

// Bytes returns how many bytes the versions of a model take, by the measure of a mvcc.Store, and
// how many of them are not of living keys as they are.
func Bytes(m *model.Model) (total, superseded int64) {
	one := mvcc.New()
	one.Put("k", "", 0)
	overhead := one.Bytes() - 1
	for _, kv := range m.Kept() {
		bytes := int64(len(kv.Key)+len(kv.Value)) + overhead
		total += bytes
		if m.Get(kv.Key, 0) != kv {
			superseded += bytes
		}
	}
	return total, superseded
}
