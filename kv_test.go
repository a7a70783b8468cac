// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// open opens a single node, in memory, for one test.
func open(t testing.TB, change ...func(*coterie.Config)) *coterie.Node {
	t.Helper()
	cfg := coterie.Config{InMemory: true}
	for _, c := range change {
		c(&cfg)
	}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, n.Check(context.Background()))
		require.NoError(t, n.Close())
	})
	require.NoError(t, n.Ready(t.Context()))
	return n
}

// errOf drops the response of a call and returns its error.
func errOf(_ any, err error) error { return err }

func put(t testing.TB, n *coterie.Node, key, val string, opts ...coterie.PutOption) *coterie.PutResponse {
	t.Helper()
	r, err := n.Put(t.Context(), key, val, opts...)
	require.NoError(t, err)
	return r
}

func get(t testing.TB, n *coterie.Node, key string, opts ...coterie.GetOption) *coterie.GetResponse {
	t.Helper()
	r, err := n.Get(t.Context(), key, opts...)
	require.NoError(t, err)
	return r
}

func del(t testing.TB, n *coterie.Node, key string, opts ...coterie.DeleteOption) *coterie.DeleteResponse {
	t.Helper()
	r, err := n.Delete(t.Context(), key, opts...)
	require.NoError(t, err)
	return r
}

func keys(kvs []coterie.KeyValue) []string {
	out := []string{}
	for _, kv := range kvs {
		out = append(out, kv.Key)
	}
	return out
}

func TestT01_EmptyStoreIsRevision1(t *testing.T) {
	n := open(t)
	require.EqualValues(t, 1, get(t, n, "k").Revision)
	require.EqualValues(t, -1, n.Status().CompactRevision)
	require.NoError(t, errOf(n.Compact(t.Context(), 0)), "compacting to 0 succeeds once")
	require.ErrorIs(t, errOf(n.Compact(t.Context(), 0)), coterie.ErrCompacted)
	require.EqualValues(t, 2, put(t, n, "k", "v").Revision)
}

func TestT03_OperationsWithoutRevision(t *testing.T) {
	ctx := t.Context()
	n := open(t)
	require.EqualValues(t, 2, put(t, n, "k", "v").Revision)
	require.EqualValues(t, 2, del(t, n, "missing").Revision)
	l, err := n.Grant(ctx, coterie.MinTTL)
	require.NoError(t, err)
	_, err = n.KeepAliveOnce(ctx, l.ID)
	require.NoError(t, err)
	require.NoError(t, errOf(n.Revoke(ctx, l.ID)))
	require.NoError(t, errOf(n.Compact(ctx, 2)))
	for _, txn := range []*coterie.Txn{
		n.Txn(ctx).Then(coterie.OpGet("k")),
		n.Txn(ctx).Then(coterie.OpDelete("missing")),
		n.Txn(ctx).If(coterie.Compare(coterie.Version("k"), "=", 7)).Then(coterie.OpPut("k", "w")),
	} {
		r, err := txn.Commit()
		require.NoError(t, err)
		require.EqualValues(t, 2, r.Revision)
	}
	require.EqualValues(t, 3, put(t, n, "k", "v").Revision, "a put of an identical value does")
}

func TestT05_HeaderIsCurrentWhenReadingThePast(t *testing.T) {
	n := open(t)
	put(t, n, "k", "old")
	put(t, n, "k", "new")
	r := get(t, n, "k", coterie.WithRevision(2))
	require.Equal(t, "old", r.KVs[0].Value)
	require.EqualValues(t, 3, r.Revision)
}

func TestT06_CountIgnoresLimitAndFilters(t *testing.T) {
	n := open(t)
	for i := range 5 {
		put(t, n, fmt.Sprint("k", i), "v") // revisions 2 to 6
	}
	r := get(t, n, "k", coterie.WithPrefix(), coterie.WithLimit(2))
	require.Equal(t, []string{"k0", "k1"}, keys(r.KVs))
	require.EqualValues(t, 5, r.Count)
	require.True(t, r.More)

	r = get(t, n, "k", coterie.WithPrefix(), coterie.WithMinModRevision(4), coterie.WithMaxModRevision(5), coterie.WithLimit(2))
	require.Equal(t, []string{"k2", "k3"}, keys(r.KVs))
	require.EqualValues(t, 5, r.Count)
	require.False(t, r.More, "more compares what is left after the filters")

	r = get(t, n, "k", coterie.WithPrefix(), coterie.WithMinCreateRevision(6))
	require.Equal(t, []string{"k4"}, keys(r.KVs))
	r = get(t, n, "k", coterie.WithPrefix(), coterie.WithMaxCreateRevision(2))
	require.Equal(t, []string{"k0"}, keys(r.KVs))
	require.EqualValues(t, 5, get(t, n, "k", coterie.WithPrefix(), coterie.WithCountOnly(), coterie.WithLimit(1)).Count)
}

func TestT07_Sort(t *testing.T) {
	n := open(t)
	put(t, n, "a", "3") // create 2
	put(t, n, "b", "1") // create 3
	put(t, n, "c", "2") // create 4
	put(t, n, "b", "1") // mod 5, version 2
	put(t, n, "a", "3") // mod 6, version 2
	put(t, n, "a", "3") // mod 7, version 3
	for _, c := range []struct {
		by    coterie.SortTarget
		order coterie.SortOrder
		limit int64
		want  string
	}{
		{coterie.SortByKey, coterie.SortAscend, 0, "abc"},
		{coterie.SortByKey, coterie.SortDescend, 0, "cba"},
		{coterie.SortByVersion, coterie.SortAscend, 0, "cba"},
		{coterie.SortByVersion, coterie.SortDescend, 0, "abc"},
		{coterie.SortByCreateRevision, coterie.SortAscend, 0, "abc"},
		{coterie.SortByCreateRevision, coterie.SortDescend, 0, "cba"},
		{coterie.SortByModRevision, coterie.SortAscend, 0, "cba"},
		{coterie.SortByModRevision, coterie.SortDescend, 0, "abc"},
		{coterie.SortByValue, coterie.SortAscend, 0, "bca"},
		{coterie.SortByValue, coterie.SortDescend, 0, "acb"},
		{coterie.SortByValue, coterie.SortAscend, 2, "bc"},
		{coterie.SortByValue, coterie.SortNone, 0, "bca"},
		{coterie.SortByVersion, coterie.SortNone, 1, "b"}, // the limit comes first, but for one key more
	} {
		r := get(t, n, "", coterie.WithPrefix(), coterie.WithSort(c.by, c.order), coterie.WithLimit(c.limit))
		require.Equal(t, c.want, strings.Join(keys(r.KVs), ""), "%+v", c)
	}
	_, err := n.Get(t.Context(), "a", coterie.WithSort(9, coterie.SortAscend))
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
}

func TestT08_KeysOnlyHasNoLease(t *testing.T) {
	n := open(t)
	l, err := n.Grant(t.Context(), coterie.MinTTL)
	require.NoError(t, err)
	put(t, n, "k", "v", coterie.WithLease(l.ID))
	kv := get(t, n, "k", coterie.WithKeysOnly()).KVs[0]
	require.Equal(t, coterie.KeyValue{Key: "k", CreateRevision: 2, ModRevision: 2, Version: 1}, kv)
	kv = get(t, n, "k", coterie.WithKeysOnly(), coterie.WithSort(coterie.SortByValue, coterie.SortAscend)).KVs[0]
	require.Equal(t, l.ID, kv.Lease)
	require.Empty(t, kv.Value)
}

func TestT09_CompactRevisionIsReadable(t *testing.T) {
	n := open(t)
	put(t, n, "k", "1")
	put(t, n, "k", "2")
	put(t, n, "k", "3")
	require.NoError(t, errOf(n.Compact(t.Context(), 3)))
	require.Equal(t, "2", get(t, n, "k", coterie.WithRevision(3)).KVs[0].Value)
	require.Equal(t, "3", get(t, n, "k").KVs[0].Value)
	_, err := n.Get(t.Context(), "k", coterie.WithRevision(2))
	var compacted *coterie.CompactedError
	require.ErrorAs(t, err, &compacted)
	require.ErrorIs(t, err, coterie.ErrCompacted)
	require.EqualValues(t, 3, compacted.Revision)
}

func TestT12_NegativeRevisionIsTheLatest(t *testing.T) {
	n := open(t)
	put(t, n, "k", "v")
	require.Equal(t, "v", get(t, n, "k", coterie.WithRevision(-1)).KVs[0].Value)
	require.NoError(t, errOf(n.Compact(t.Context(), 2)))
	_, err := n.Txn(t.Context()).Then(coterie.OpGet("k", coterie.WithRevision(-1)), coterie.OpPut("x", "y")).Commit()
	require.ErrorIs(t, err, coterie.ErrCompacted, "but not inside a transaction")
	for r, err := range n.Watch(t.Context(), "k", coterie.WithRevision(-1)) {
		require.ErrorIs(t, err, coterie.ErrCompacted, "%v", r)
	}
	_, err = n.Get(t.Context(), "k", coterie.WithRevision(99))
	require.ErrorIs(t, err, coterie.ErrFutureRevision)
}

func TestT13_RecreatedKeyStartsAtVersion1(t *testing.T) {
	n := open(t)
	put(t, n, "k", "1")
	put(t, n, "k", "2")
	del(t, n, "k")
	put(t, n, "k", "3")
	require.Equal(t, coterie.KeyValue{Key: "k", Value: "3", CreateRevision: 5, ModRevision: 5, Version: 1}, get(t, n, "k").KVs[0])
	require.Empty(t, get(t, n, "k", coterie.WithRevision(4)).KVs)
}

func TestT16_PutMovesOrDetachesKey(t *testing.T) {
	ctx := t.Context()
	n := open(t)
	a, err := n.Grant(ctx, coterie.MinTTL)
	require.NoError(t, err)
	b, err := n.Grant(ctx, coterie.MinTTL)
	require.NoError(t, err)
	held := func(id coterie.LeaseID) []string {
		l, err := n.TimeToLive(ctx, id)
		require.NoError(t, err)
		return l.Keys
	}
	put(t, n, "k", "v", coterie.WithLease(a.ID))
	require.Equal(t, []string{"k"}, held(a.ID))
	put(t, n, "k", "v", coterie.WithLease(b.ID))
	require.Empty(t, held(a.ID))
	require.Equal(t, []string{"k"}, held(b.ID))
	put(t, n, "k", "w", coterie.WithIgnoreLease())
	require.Equal(t, []string{"k"}, held(b.ID))
	put(t, n, "k", "v")
	require.Empty(t, held(b.ID))
	require.NoError(t, errOf(n.Revoke(ctx, b.ID)))
	require.Len(t, get(t, n, "k").KVs, 1)
}

func TestT46_CompactionBounds(t *testing.T) {
	n := open(t)
	put(t, n, "k", "1")
	put(t, n, "k", "2")
	require.ErrorIs(t, errOf(n.Compact(t.Context(), 4)), coterie.ErrFutureRevision)
	require.NoError(t, errOf(n.Compact(t.Context(), 3)))
	require.ErrorIs(t, errOf(n.Compact(t.Context(), 3)), coterie.ErrCompacted)
	require.ErrorIs(t, errOf(n.Compact(t.Context(), 2)), coterie.ErrCompacted)
	require.EqualValues(t, 3, n.Status().CompactRevision)
}

func TestPutOptions(t *testing.T) {
	ctx := t.Context()
	n := open(t)
	_, err := n.Put(ctx, "k", "", coterie.WithIgnoreValue())
	require.ErrorIs(t, err, coterie.ErrKeyNotFound)
	_, err = n.Put(ctx, "k", "v", coterie.WithIgnoreLease())
	require.ErrorIs(t, err, coterie.ErrKeyNotFound)
	require.Nil(t, put(t, n, "k", "1", coterie.WithPrevKV()).PrevKV)
	prev := put(t, n, "k", "2", coterie.WithPrevKV()).PrevKV
	require.Equal(t, &coterie.KeyValue{Key: "k", Value: "1", CreateRevision: 2, ModRevision: 2, Version: 1}, prev)
	put(t, n, "k", "", coterie.WithIgnoreValue())
	require.Equal(t, coterie.KeyValue{Key: "k", Value: "2", CreateRevision: 2, ModRevision: 4, Version: 3}, get(t, n, "k").KVs[0])
	_, err = n.Put(ctx, "k", "v", coterie.WithIgnoreValue())
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
	_, err = n.Put(ctx, "k", "v", coterie.WithIgnoreLease(), coterie.WithLease(1))
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
}

func TestRanges(t *testing.T) {
	n := open(t)
	for _, k := range []string{"a", "b", "ba", "bb", "c", "\xff", "\xffz"} {
		put(t, n, k, "v")
	}
	for _, c := range []struct {
		key  string
		opt  coterie.RangeOption
		want []string
	}{
		{"b", coterie.WithPrefix(), []string{"b", "ba", "bb"}},
		{"\xff", coterie.WithPrefix(), []string{"\xff", "\xffz"}},
		{"", coterie.WithPrefix(), []string{"a", "b", "ba", "bb", "c", "\xff", "\xffz"}},
		{"", coterie.WithFromKey(), []string{"a", "b", "ba", "bb", "c", "\xff", "\xffz"}},
		{"bb", coterie.WithFromKey(), []string{"bb", "c", "\xff", "\xffz"}},
		{"b", coterie.WithRange("c"), []string{"b", "ba", "bb"}},
		{"c", coterie.WithRange("b"), []string{}},
		{"b", coterie.WithRange("b"), []string{}},
		{"zzz", coterie.WithRange("zzzz"), []string{}},
	} {
		r := get(t, n, c.key, c.opt)
		require.Equal(t, c.want, keys(r.KVs), "%q", c.key)
		require.EqualValues(t, len(c.want), r.Count)
		require.EqualValues(t, len(c.want), get(t, n, c.key, c.opt, coterie.WithCountOnly()).Count)
		require.EqualValues(t, len(c.want), get(t, n, c.key, c.opt, coterie.WithRevision(n.Status().Revision-1+1)).Count)
		var streamed []string
		for kv, err := range n.Range(t.Context(), c.key, c.opt) {
			require.NoError(t, err)
			streamed = append(streamed, kv.Key)
		}
		require.True(t, slices.Equal(c.want, streamed), "%q", c.key)
	}
	r := del(t, n, "b", coterie.WithPrefix(), coterie.WithPrevKV())
	require.EqualValues(t, 3, r.Deleted)
	require.Equal(t, []string{"b", "ba", "bb"}, keys(r.PrevKVs))
	require.EqualValues(t, 9, r.Revision, "one revision for all")
}

// As in clientv3. A call that took one of the two would read or delete keys that its caller did not mean.
func TestPrefixAndFromKeyExcludeEachOther(t *testing.T) {
	n := open(t)
	put(t, n, "ns/k", "v")
	ctx, prefix, from := t.Context(), coterie.WithPrefix(), coterie.WithFromKey()
	for name, ks := range map[string]interface {
		coterie.KV
		coterie.Watcher
	}{"node": n, "namespace": coterie.NewNamespace(n, "ns/")} {
		for _, opts := range [][]coterie.RangeOption{{prefix, from}, {from, prefix}, {prefix, from, coterie.WithRange("z")}} {
			var errs []error
			var scan []coterie.ScanOption
			var get []coterie.GetOption
			var remove []coterie.DeleteOption
			var watch []coterie.WatchOption
			for _, o := range opts {
				scan, get, remove, watch = append(scan, o), append(get, o), append(remove, o), append(watch, o)
			}
			errs = append(errs, errOf(ks.Get(ctx, "k", get...)), errOf(ks.Delete(ctx, "k", remove...)))
			errs = append(errs, errOf(ks.Txn(ctx).Then(coterie.OpGet("k", get...)).Commit()))
			errs = append(errs, errOf(ks.Txn(ctx).Else(coterie.OpDelete("k", remove...)).Commit()))
			errs = append(errs, errOf(ks.Do(ctx, coterie.OpGet("k", get...))), errOf(ks.Do(ctx, coterie.OpDelete("k", remove...))))
			for _, err := range ks.Range(ctx, "k", scan...) {
				errs = append(errs, err)
			}
			for _, err := range ks.Watch(ctx, "k", watch...) {
				errs = append(errs, err)
			}
			for r := range ks.WatchChan(ctx, "k", watch...) {
				errs = append(errs, r.Err)
			}
			require.Len(t, errs, 9)
			for i, err := range errs {
				require.ErrorIs(t, err, coterie.ErrInvalidOption, "%s, call %d", name, i)
				require.ErrorContains(t, err, "WithPrefix and WithFromKey exclude each other")
			}
		}
		require.Len(t, get(t, n, "ns/k").KVs, 1, "nothing was deleted")
		twice, err := ks.Get(ctx, "", prefix, prefix)
		require.NoError(t, err)
		require.EqualValues(t, 1, twice.Count)
	}
}

func TestRangeReadsOneRevision(t *testing.T) {
	n := open(t)
	for i := range 1000 {
		put(t, n, fmt.Sprintf("k%04d", i), "old")
	}
	seen := 0
	for kv, err := range n.Range(t.Context(), "k", coterie.WithPrefix()) {
		require.NoError(t, err)
		require.Equal(t, "old", kv.Value)
		if seen++; seen == 10 {
			del(t, n, "k", coterie.WithPrefix())
			require.NoError(t, errOf(n.Compact(t.Context(), n.Status().Revision)))
		}
	}
	require.Equal(t, 1000, seen)
	for _, err := range n.Range(t.Context(), "k", coterie.WithPrefix(), coterie.WithRevision(5)) {
		require.ErrorIs(t, err, coterie.ErrCompacted)
	}
}

func TestBadInputChangesNothing(t *testing.T) {
	ctx := t.Context()
	n := open(t, func(c *coterie.Config) { c.MaxRequestBytes = 1000 })
	put(t, n, "k", "v")
	wait := coterie.OpGet("k", coterie.WithWaitRevision(1))
	badCompare := coterie.Compare(coterie.Value("k"), coterie.Equal, "v").WithRange("")
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"put empty key":    {errOf(n.Put(ctx, "", "v")), coterie.ErrEmptyKey},
		"get empty key":    {errOf(n.Get(ctx, "")), coterie.ErrEmptyKey},
		"delete empty key": {errOf(n.Delete(ctx, "")), coterie.ErrEmptyKey},
		"oversized":        {errOf(n.Put(ctx, "k", strings.Repeat("x", 1000))), coterie.ErrTooLarge},
		"unknown lease":    {errOf(n.Put(ctx, "k", "v", coterie.WithLease(7))), coterie.ErrLeaseNotFound},
		"revoke unknown":   {errOf(n.Revoke(ctx, 7)), coterie.ErrLeaseNotFound},
		"keep unknown":     {errOf(n.KeepAliveOnce(ctx, 7)), coterie.ErrLeaseNotFound},
		"TTL of nothing":   {errOf(n.Grant(ctx, 300)), coterie.ErrTTLRange},
		"TTL for ever":     {errOf(n.Grant(ctx, coterie.MaxTTL+1)), coterie.ErrTTLRange},
		"future":           {errOf(n.Get(ctx, "k", coterie.WithRevision(100))), coterie.ErrFutureRevision},
		"future compact":   {errOf(n.Compact(ctx, 100)), coterie.ErrFutureRevision},
		"both local kinds": {
			errOf(n.Get(ctx, "k", coterie.WithSerializable(), coterie.WithWaitRevision(1))), coterie.ErrInvalidOption,
		},
		"duplicate put": {
			errOf(n.Txn(ctx).Then(coterie.OpPut("x", "1"), coterie.OpPut("x", "2")).Commit()), coterie.ErrDuplicateKey,
		},
		"too many ops": {
			errOf(n.Txn(ctx).Then(make([]coterie.Op, 129)...).Commit()), coterie.ErrTooManyOps,
		},
		"operator": {
			errOf(n.Txn(ctx).If(coterie.Compare(coterie.Value("k"), "==", "v")).Commit()), coterie.ErrInvalidOption,
		},
		"range of compare": {errOf(n.Txn(ctx).If(badCompare).Commit()), coterie.ErrInvalidOption},
		"wait in then":     {errOf(n.Txn(ctx).Then(wait).Commit()), coterie.ErrInvalidOption},
		"wait in else":     {errOf(n.Txn(ctx).Then(coterie.OpPut("x", "")).Else(wait).Commit()), coterie.ErrInvalidOption},
		"nested compare": {
			errOf(n.Txn(ctx).Then(coterie.OpTxn([]coterie.Comparison{badCompare}, nil, nil)).Commit()), coterie.ErrInvalidOption,
		},
		"nested then":    {errOf(n.Txn(ctx).Then(coterie.OpTxn(nil, []coterie.Op{wait}, nil)).Commit()), coterie.ErrInvalidOption},
		"nested else":    {errOf(n.Txn(ctx).Then(coterie.OpTxn(nil, nil, []coterie.Op{wait})).Commit()), coterie.ErrInvalidOption},
		"if after then":  {errOf(n.Txn(ctx).Then().If().Commit()), coterie.ErrInvalidOption},
		"then twice":     {errOf(n.Txn(ctx).Then().Then().Commit()), coterie.ErrInvalidOption},
		"empty op":       {errOf(n.Txn(ctx).Then(coterie.Op{}).Commit()), coterie.ErrInvalidOption},
		"txn empty key":  {errOf(n.Txn(ctx).Then(coterie.OpGet("")).Commit()), coterie.ErrEmptyKey},
		"txn future rev": {errOf(n.Txn(ctx).Then(coterie.OpGet("k", coterie.WithRevision(9))).Commit()), coterie.ErrFutureRevision},
	} {
		require.ErrorIs(t, c.err, c.want, name)
	}
	var limit *coterie.LimitError
	_, err := n.Put(ctx, "k", strings.Repeat("x", 1000))
	require.ErrorAs(t, err, &limit)
	require.EqualValues(t, 1000, limit.Limit)
	require.Greater(t, limit.Actual, limit.Limit)
	require.EqualValues(t, 2, n.Status().Revision)
	require.Zero(t, n.Status().Leases)
}
