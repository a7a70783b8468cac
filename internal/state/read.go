// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A reader is an mvcc.View, or the mvcc.Store including uncommitted changes of the current transaction.
type reader interface {
	Revision() int64
	CompactRevision() int64
	CheckRevision(rev int64) error
	Get(key string, rev int64) (mvcc.KeyValue, bool)
	Ascend(key, end string, rev int64, fn func(mvcc.KeyValue) bool)
	Count(key, end string) int
}

// Execute evaluates a Get, or a Txn that contains only Gets, on a view. It calls stop from time to time;
// once that returns true, Execute soon returns, with a meaningless result.
func Execute(v *mvcc.View, op *command.Op, stop func() bool) *command.Result {
	if op.Get != nil {
		r := read(v, op.Get, stop)
		r.Revision = v.Revision()
		return &r
	}
	path := choose(v, op.Txn, nil)
	if r := (&judge{kv: v, path: path}).refuse(op, false); r != nil {
		return r
	}
	r := &command.Result{Revision: v.Revision(), Succeeded: path[0]}
	ops := branch(op.Txn, path[0])
	for i := range ops {
		r.Ops = append(r.Ops, *Execute(v, &ops[i], stop))
	}
	return r
}

// IsOne reports whether a Get reads the latest version of one key, without an option that changes the response.
// [mvcc.View.Get] with revision 0 evaluates it.
func IsOne(g *command.Get) bool { return *g == command.Get{Key: g.Key} }

// Matches reports whether a key passes the revision filters of a Get.
func Matches(g *command.Get, kv mvcc.KeyValue) bool {
	return within(kv.ModRevision, g.MinModRevision, g.MaxModRevision) &&
		within(kv.CreateRevision, g.MinCreateRevision, g.MaxCreateRevision)
}

func within(rev, low, high int64) bool {
	return (low == 0 || rev >= low) && (high == 0 || rev <= high)
}

// stopEvery is the number of keys between two calls of stop.
const stopEvery = 1024

// Until returns a function that calls fn, but returns false once stop has returned true.
func Until(stop func() bool, fn func(mvcc.KeyValue) bool) func(mvcc.KeyValue) bool {
	if stop == nil {
		return fn
	}
	n := 0
	return func(kv mvcc.KeyValue) bool {
		n++
		return (n%stopEvery != 0 || !stop()) && fn(kv)
	}
}

// read evaluates a Get. The caller sets the revision of the result. A nil stop never stops.
func read(v reader, g *command.Get, stop func() bool) (r command.Result) {
	if err := v.CheckRevision(g.Revision); err != nil {
		return *refusal(v, revisionCode(err))
	}
	if g.CountOnly {
		r.Count = count(v, g, stop)
		return r
	}
	r.KVs, r.Count = find(v, g, stop)
	sortKeys(r.KVs, g)
	if g.Limit > 0 && int64(len(r.KVs)) > g.Limit {
		r.KVs, r.More = r.KVs[:g.Limit], true
	}
	if g.KeysOnly {
		for i := range r.KVs {
			r.KVs[i].Value = ""
			if g.SortBy != command.SortByValue {
				r.KVs[i].Lease = 0
			}
		}
	}
	return r
}

// find returns the keys that a Get finds, and the number of all keys in its range. If the result has the order of the
// keys, it is enough to find one key more than the limit.
func find(v reader, g *command.Get, stop func() bool) (kvs []mvcc.KeyValue, n int64) {
	plain := g.MinModRevision == 0 && g.MaxModRevision == 0 && g.MinCreateRevision == 0 && g.MaxCreateRevision == 0
	// As in etcd, the limit applies before a sort without an order, except that one more key is read.
	enough := int64(-1)
	if g.Limit > 0 && plain && (g.Order == command.SortNone || g.Order == command.SortAscend && g.SortBy == command.SortByKey) {
		enough = g.Limit + 1
	}
	if g.End != "" && plain && g.Revision <= 0 {
		n = int64(v.Count(g.Key, g.End)) // counting is cheaper than growing the slice
		if enough > 0 {
			n = min(n, enough)
		}
		if n > 0 {
			kvs = make([]mvcc.KeyValue, 0, n)
		}
	}
	v.Ascend(g.Key, g.End, g.Revision, Until(stop, func(kv mvcc.KeyValue) bool {
		if Matches(g, kv) {
			kvs = append(kvs, kv)
		}
		return int64(len(kvs)) != enough
	}))
	n = int64(len(kvs))
	if !plain || n == enough {
		n = count(v, g, stop)
	}
	return kvs, n
}

// count counts the keys in a Get's range. At the latest revision it needs no walk.
func count(v reader, g *command.Get, stop func() bool) int64 {
	if g.Revision <= 0 {
		return int64(v.Count(g.Key, g.End))
	}
	n := int64(0)
	v.Ascend(g.Key, g.End, g.Revision, Until(stop, func(mvcc.KeyValue) bool { n++; return true }))
	return n
}

// sortKeys sorts by the Get's target. Equal values stay in the order of their keys.
func sortKeys(kvs []mvcc.KeyValue, g *command.Get) {
	var by func(a, b mvcc.KeyValue) int
	switch g.SortBy {
	case command.SortByKey:
		if g.Order == command.SortDescend {
			slices.Reverse(kvs)
		}
		return
	case command.SortByVersion:
		by = func(a, b mvcc.KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case command.SortByCreateRevision:
		by = func(a, b mvcc.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case command.SortByModRevision:
		by = func(a, b mvcc.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	default:
		by = func(a, b mvcc.KeyValue) int { return strings.Compare(a.Value, b.Value) }
	}
	if g.Order == command.SortDescend {
		ascending := by
		by = func(a, b mvcc.KeyValue) int { return ascending(b, a) }
	}
	slices.SortStableFunc(kvs, by)
}
