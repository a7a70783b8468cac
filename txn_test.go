// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func commit(t testing.TB, txn *coterie.Txn) *coterie.TxnResponse {
	t.Helper()
	r, err := txn.Commit()
	require.NoError(t, err)
	return r
}

func TestT02_OneRevisionPerTransaction(t *testing.T) {
	n := open(t)
	put(t, n, "b", "old")
	watch := n.WatchChan(t.Context(), "", coterie.WithPrefix())
	r := commit(t, n.Txn(t.Context()).Then(coterie.OpPut("c", "1"), coterie.OpDelete("b"), coterie.OpPut("a", "2")))
	require.EqualValues(t, 3, r.Revision)
	w := <-watch
	require.Equal(t, []string{"c", "b", "a"}, keys(eventKVs(w.Events)), "in the order of the operations")
	for _, e := range w.Events {
		require.EqualValues(t, 3, e.KV.ModRevision)
	}
}

func TestT04_NestedHeaders(t *testing.T) {
	n := open(t)
	put(t, n, "k", "v") // revision 2
	r := commit(t, n.Txn(t.Context()).Then(
		coterie.OpGet("k"), coterie.OpDelete("missing"), coterie.OpPut("x", "y"), coterie.OpGet("k"), coterie.OpDelete("missing"),
	))
	require.EqualValues(t, 3, r.Revision)
	require.EqualValues(t, 2, r.Responses[0].Get.Revision, "before the transaction's first change")
	require.EqualValues(t, 2, r.Responses[1].Delete.Revision)
	require.EqualValues(t, 3, r.Responses[2].Put.Revision)
	require.EqualValues(t, 3, r.Responses[3].Get.Revision, "after it")
	require.EqualValues(t, 3, r.Responses[4].Delete.Revision)
	require.Zero(t, r.Responses[2].Put.ClusterID, "nested headers have only the revision")
	require.NotZero(t, r.ClusterID)
	require.Equal(t, n.ID(), r.MemberID)
}

func TestCompares(t *testing.T) {
	n := open(t)
	ctx := t.Context()
	l, err := n.Grant(ctx, time.Minute)
	require.NoError(t, err)
	put(t, n, "k", "5") // create 2
	put(t, n, "k", "5", coterie.WithLease(l.ID))
	for _, c := range []struct {
		name string
		cmp  coterie.Comparison
		want bool
	}{
		{"value =", coterie.Compare(coterie.Value("k"), "=", "5"), true},
		{"value !=", coterie.Compare(coterie.Value("k"), "!=", "5"), false},
		{"T31 bytewise", coterie.Compare(coterie.Value("k"), ">", "18"), true},
		{"value <", coterie.Compare(coterie.Value("k"), "<", "6"), true},
		{"version =", coterie.Compare(coterie.Version("k"), "=", 2), true},
		{"version >", coterie.Compare(coterie.Version("k"), ">", 2), false},
		{"create", coterie.Compare(coterie.CreateRevision("k"), "=", 2), true},
		{"mod", coterie.Compare(coterie.ModRevision("k"), "<", 4), true},
		{"lease", coterie.Compare(coterie.LeaseValue("k"), "=", l.ID), true},
		{"lease !=", coterie.Compare(coterie.LeaseValue("k"), "!=", 0), true},
		{"T24 missing value =", coterie.Compare(coterie.Value("no"), "=", ""), false},
		{"T24 missing value !=", coterie.Compare(coterie.Value("no"), "!=", "x"), false},
		{"T24 missing value <", coterie.Compare(coterie.Value("no"), "<", "x"), false},
		{"T24 missing version", coterie.Compare(coterie.Version("no"), "=", 0), true},
		{"T24 missing create", coterie.Compare(coterie.CreateRevision("no"), "<", 1), true},
		{"T24 missing lease", coterie.Compare(coterie.LeaseValue("no"), "=", 0), true},
	} {
		require.Equal(t, c.want, commit(t, n.Txn(ctx).If(c.cmp)).Succeeded, c.name)
	}
}

func TestT25_ComparisonOfARange(t *testing.T) {
	n := open(t)
	ctx := t.Context()
	put(t, n, "a1", "x")
	put(t, n, "a2", "x")
	put(t, n, "a3", "y")
	holds := func(c coterie.Comparison) bool { return commit(t, n.Txn(ctx).If(c)).Succeeded }
	require.False(t, holds(coterie.Compare(coterie.Value("a"), "=", "x").WithPrefix()), "the comparison must hold for all keys")
	require.True(t, holds(coterie.Compare(coterie.Value("a1"), "=", "x").WithRange("a3")))
	require.True(t, holds(coterie.Compare(coterie.Version("a"), "=", 1).WithPrefix()))
	require.True(t, holds(coterie.Compare(coterie.Version("z"), "=", 0).WithPrefix()), "an empty range is a missing key")
	require.False(t, holds(coterie.Compare(coterie.Value("z"), "!=", "x").WithPrefix()))
}

func TestT26_NestedComparesAreEvaluatedFirst(t *testing.T) {
	n := open(t)
	exists := coterie.Compare(coterie.Version("k"), ">", 0)
	r := commit(t, n.Txn(t.Context()).Then(
		coterie.OpPut("k", "v"),
		coterie.OpTxn([]coterie.Comparison{exists}, []coterie.Op{coterie.OpPut("then", "")}, []coterie.Op{coterie.OpPut("else", "")}),
	))
	require.False(t, r.Responses[1].Txn.Succeeded, "k did not exist before the transaction")
	require.Len(t, get(t, n, "else").KVs, 1)
	require.Empty(t, get(t, n, "then").KVs)
}

func TestT27_OnlyTheChosenPathIsChecked(t *testing.T) {
	n := open(t)
	ctx := t.Context()
	never := coterie.Compare(coterie.Version("k"), ">", 0)
	unknown := coterie.OpPut("k", "v", coterie.WithLease(7))
	r := commit(t, n.Txn(ctx).If(never).Then(unknown).Else(coterie.OpPut("x", "y")))
	require.False(t, r.Succeeded)
	_, err := n.Txn(ctx).Then(coterie.OpPut("z", "z"), unknown).Commit()
	require.ErrorIs(t, err, coterie.ErrLeaseNotFound)
	require.Empty(t, get(t, n, "z").KVs, "a rejected transaction has no effect")
	_, err = n.Txn(ctx).If(never).Then(coterie.OpPut("", "v")).Commit()
	require.ErrorIs(t, err, coterie.ErrEmptyKey, "the syntax of both branches is checked")
}

func TestT28_ReadsSeeEarlierWrites(t *testing.T) {
	n := open(t)
	put(t, n, "k", "old")
	r := commit(t, n.Txn(t.Context()).Then(
		coterie.OpPut("k", "new"), coterie.OpGet("k"), coterie.OpDelete("other"), coterie.OpGet("k", coterie.WithRevision(2)),
	))
	require.Equal(t, "new", r.Responses[1].Get.KVs[0].Value)
	require.Equal(t, "old", r.Responses[3].Get.KVs[0].Value)
	r = commit(t, n.Txn(t.Context()).Then(
		coterie.OpPut("p", "1"), coterie.OpTxn(nil, []coterie.Op{coterie.OpGet("p")}, nil), coterie.OpDelete("k", coterie.WithPrevKV()),
		coterie.OpGet("k"),
	))
	// As in etcd, nested transactions run at their position in the list.
	require.Equal(t, "1", r.Responses[1].Txn.Responses[0].Get.KVs[0].Value)
	require.Equal(t, "new", r.Responses[2].Delete.PrevKVs[0].Value)
	require.Empty(t, r.Responses[3].Get.KVs)
	_, err := n.Txn(t.Context()).Then(coterie.OpDelete("a", coterie.WithPrefix()), coterie.OpPut("ab", "v")).Commit()
	require.ErrorIs(t, err, coterie.ErrDuplicateKey, "a put after a delete of the same key")
}

func TestTxnRunsOneOfItsBranches(t *testing.T) {
	n := open(t)
	for size := range 4 {
		var then, els []coterie.Op
		for i := range size {
			then = append(then, coterie.OpPut("then-"+strconv.Itoa(i), ""))
			els = append(els, coterie.OpPut("else-"+strconv.Itoa(i), ""))
		}
		for _, succeeds := range []bool{false, true} {
			compare := []coterie.Comparison{
				coterie.Compare(coterie.Version("missing"), coterie.Equal, 0), coterie.Compare(coterie.Version("missing"), coterie.Less, 1),
			}
			branch := "then-"
			if !succeeds {
				compare[size%2], branch = coterie.Compare(coterie.Version("missing"), coterie.Greater, 0), "else-"
			}
			nested := coterie.OpTxn(compare, then, els)
			for _, txn := range []*coterie.Txn{
				n.Txn(t.Context()).If(compare...).Then(then...).Else(els...),
				n.Txn(t.Context()).Then(nested),
			} {
				r := commit(t, txn)
				if inner := r.Responses; len(inner) == 1 && inner[0].Txn != nil {
					r = inner[0].Txn
				}
				require.Equal(t, succeeds, r.Succeeded)
				require.Len(t, r.Responses, size)
				deleted, err := n.Delete(t.Context(), "", coterie.WithPrefix(), coterie.WithPrevKV())
				require.NoError(t, err)
				require.Len(t, deleted.PrevKVs, size)
				for i, kv := range deleted.PrevKVs {
					require.Equal(t, branch+strconv.Itoa(i), kv.Key)
				}
			}
		}
	}
}

func TestEachPutInTxnHasItsResponse(t *testing.T) {
	n := open(t)
	var ops []coterie.Op
	for i := range 5 {
		key := "k" + strconv.Itoa(i)
		put(t, n, key, "old")
		ops = append(ops, coterie.OpPut(key, "new", coterie.WithPrevKV()), coterie.OpGet(key))
		r := commit(t, n.Txn(t.Context()).Then(ops...))
		require.Len(t, r.Responses, len(ops))
		for j := range r.Responses {
			key := "k" + strconv.Itoa(j/2)
			if j%2 > 0 {
				require.Equal(t, key, r.Responses[j].Get.KVs[0].Key)
				continue
			}
			require.Equal(t, r.Revision, r.Responses[j].Put.Revision)
			require.Equal(t, key, r.Responses[j].Put.PrevKV.Key)
		}
	}
}

func TestT29_TheLimitOfOperations(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxTxnOps = 4 })
	ctx := t.Context()
	puts := func(prefix string, count int) (ops []coterie.Op) {
		for i := range count {
			ops = append(ops, coterie.OpPut(prefix+strconv.Itoa(i), ""))
		}
		return ops
	}
	commit(t, n.Txn(ctx).Then(puts("a", 4)...).Else(puts("b", 4)...))
	_, err := n.Txn(ctx).Then(puts("a", 5)...).Commit()
	var limit *coterie.LimitError
	require.ErrorAs(t, err, &limit)
	require.ErrorIs(t, err, coterie.ErrTooManyOps)
	require.EqualValues(t, 4, limit.Limit)
	require.EqualValues(t, 5, limit.Actual)
	// A nested transaction may use the rest of its parent's limit: 4 - 1.
	commit(t, n.Txn(ctx).Then(coterie.OpTxn(nil, puts("a", 3), nil)))
	_, err = n.Txn(ctx).Then(coterie.OpTxn(nil, puts("a", 4), nil)).Commit()
	require.ErrorIs(t, err, coterie.ErrTooManyOps)
}

func TestT30_EmptyTransactionIsLinearizable(t *testing.T) {
	n := open(t)
	put(t, n, "k", "v")
	require.True(t, commit(t, n.Txn(t.Context()).If(coterie.Compare(coterie.Value("k"), "=", "v"))).Succeeded)
}

func TestDuplicateKeys(t *testing.T) {
	n := open(t)
	nest := func(then, els []coterie.Op) coterie.Op { return coterie.OpTxn(nil, then, els) }
	ops := func(ops ...coterie.Op) []coterie.Op { return ops }
	putK, delK := coterie.OpPut("k", ""), coterie.OpDelete("k")
	for name, c := range map[string]struct {
		then    []coterie.Op
		refused bool
	}{
		"put put":                        {ops(putK, putK), true},
		"put delete":                     {ops(putK, delK), true},
		"delete delete":                  {ops(delK, delK), false},
		"put nested put":                 {ops(putK, nest(ops(putK), nil)), true},
		"both branches of a nested":      {ops(nest(ops(putK), ops(putK))), false},
		"siblings":                       {ops(nest(ops(putK), nil), nest(nil, ops(putK))), true},
		"delete, then nested put":        {ops(delK, nest(ops(putK), nil)), true},
		"nested delete, then nested put": {ops(nest(ops(delK), nil), nest(ops(putK), nil)), true},
		"etcd's hole: put, then delete":  {ops(nest(ops(putK), nil), nest(ops(delK), nil)), false},
	} {
		_, err := n.Txn(t.Context()).Then(c.then...).Commit()
		if c.refused {
			require.ErrorIs(t, err, coterie.ErrDuplicateKey, name)
		} else {
			require.NoError(t, err, name)
		}
	}
}

func eventKVs(events []coterie.Event) (kvs []coterie.KeyValue) {
	for _, e := range events {
		kvs = append(kvs, e.KV)
	}
	return kvs
}

// The error for a misused transaction names the wrong call and the correction.
func TestMisusedTxnNamesTheMistake(t *testing.T) {
	n := open(t)
	op, cmp := coterie.OpPut("k", "v"), coterie.Compare(coterie.Version("k"), "=", 0)
	committed := n.Txn(t.Context()).Then(op)
	commit(t, committed)
	for text, txn := range map[string]*coterie.Txn{
		"Txn.Commit after Commit: begin another": committed,
		"Txn.If called twice":                    n.Txn(t.Context()).If(cmp).If(cmp),
		"Txn.Then called twice":                  n.Txn(t.Context()).Then(op).Then(op),
		"Txn.If called too late":                 n.Txn(t.Context()).Then(op).If(cmp),
		"Txn.Then called too late":               n.Txn(t.Context()).Else(op).Then(op),
	} {
		_, err := txn.Commit()
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
		require.ErrorContains(t, err, text)
	}
	_, err := committed.If(cmp).Commit()
	require.ErrorContains(t, err, "Txn.If after Commit")
}
