// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

// holds reports whether compares hold.
func (m *machine) holds(c ...command.Compare) bool {
	m.Helper()
	r := m.txn(command.Txn{Compares: c})
	code(m, command.OK, r)
	return r.Succeeded
}

var operators = map[string]command.CompareOp{
	"=": command.Equal, ">": command.Greater, "<": command.Less, "!=": command.NotEqual,
}

func TestCompares(t *testing.T) {
	m := start(t)
	m.grant(7)
	m.put("k", "u")
	m.putLease("k", 7) // version 2, create 2, mod 3, value "v"
	for _, c := range []struct {
		compare command.Compare
		want    string // the operators that hold
	}{
		{command.Compare{Target: command.Version, Int: 2}, "="},
		{command.Compare{Target: command.Version, Int: 1}, "> !="},
		{command.Compare{Target: command.Version, Int: 3}, "< !="},
		{command.Compare{Target: command.CreateRevision, Int: 2}, "="},
		{command.Compare{Target: command.CreateRevision, Int: 0}, "> !="},
		{command.Compare{Target: command.ModRevision, Int: 3}, "="},
		{command.Compare{Target: command.ModRevision, Int: 9}, "< !="},
		{command.Compare{Target: command.Lease, Int: 7}, "="},
		{command.Compare{Target: command.Lease, Int: 0}, "> !="},
		{command.Compare{Target: command.Value, Text: "v"}, "="},
		{command.Compare{Target: command.Value, Text: ""}, "> !="},
		{command.Compare{Target: command.Value, Text: "va"}, "< !="},
	} {
		checkOperators(m, "k", c.compare, c.want)
	}
}

func checkOperators(m *machine, key string, c command.Compare, want string) {
	m.Helper()
	c.Key = key
	for name, op := range operators {
		c.Op = op
		require.Equal(m, slices.Contains(strings.Fields(want), name), m.holds(c), "%+v", c)
	}
}

func TestT24_CompareOfMissingKey(t *testing.T) {
	m := start(t)
	checkOperators(m, "missing", command.Compare{Target: command.Value}, "")
	checkOperators(m, "missing", command.Compare{Target: command.Value, Text: "v"}, "")
	for _, target := range []command.Target{command.Version, command.CreateRevision, command.ModRevision, command.Lease} {
		checkOperators(m, "missing", command.Compare{Target: target, Int: 0}, "=")
		checkOperators(m, "missing", command.Compare{Target: target, Int: 1}, "< !=")
		checkOperators(m, "missing", command.Compare{Target: target, Int: -1}, "> !=")
	}
}

func TestT25_CompareOfRange(t *testing.T) {
	m := start(t)
	m.put("a", "1")
	m.put("b", "2")
	value := func(op command.CompareOp, text string) command.Compare {
		return command.Compare{Key: "a", End: "c", Target: command.Value, Op: op, Text: text}
	}
	require.True(t, m.holds(value(command.Greater, "0")))
	require.False(t, m.holds(value(command.Greater, "1")), "it must hold for every key")
	require.False(t, m.holds(value(command.Equal, "1")))
	require.True(t, m.holds(value(command.NotEqual, "3")))
	require.True(t, m.holds(command.Compare{Key: "\x00", End: "\x00", Target: command.Version, Int: 1}))
	for _, empty := range []command.Compare{{Key: "x", End: "z"}, {Key: "b", End: "a"}} {
		empty.Target, empty.Op = command.Version, command.Equal
		require.True(t, m.holds(empty), "an empty range is one missing key")
		empty.Target, empty.Op = command.Value, command.NotEqual
		require.False(t, m.holds(empty))
	}
}

func TestT31_ValuesCompareBytewise(t *testing.T) {
	m := start(t)
	m.put("age", "9")
	require.True(t, m.holds(command.Compare{Key: "age", Target: command.Value, Op: command.Greater, Text: "18"}))
	m.put("age", "\xff")
	require.True(t, m.holds(command.Compare{Key: "age", Target: command.Value, Op: command.Greater, Text: "é"}))
}

func TestAllComparesMustHold(t *testing.T) {
	m := start(t)
	m.put("a", "1")
	yes := command.Compare{Key: "a", Target: command.Version, Int: 1}
	no := command.Compare{Key: "a", Target: command.Version, Int: 2}
	require.True(t, m.holds())
	require.True(t, m.holds(yes, yes))
	require.False(t, m.holds(yes, no))
	require.False(t, m.holds(no, yes))
}

func TestT26_NestedComparesSeeStateBeforeTxn(t *testing.T) {
	m := start(t)
	m.put("k", "old")
	isOld := command.Compare{Key: "k", Target: command.Value, Text: "old"}
	absent := command.Compare{Key: "new", Target: command.Version}
	r := m.txn(ops(
		put("new", "1"),
		nest(command.Txn{Compares: []command.Compare{absent}, Then: []command.Op{
			put("k", "changed"),
			nest(command.Txn{Compares: []command.Compare{isOld}, Then: []command.Op{put("deep", "then")}, Else: []command.Op{put("deep", "else")}}),
		}}),
		nest(command.Txn{Compares: []command.Compare{isOld}, Then: []command.Op{get("k", "")}}),
		nest(command.Txn{Compares: []command.Compare{{Key: "k", Target: command.Version}}, Else: []command.Op{put("other", "else")}}),
	))
	code(t, command.OK, r)
	require.True(t, r.Ops[1].Succeeded)
	require.True(t, r.Ops[1].Ops[1].Succeeded)
	require.True(t, r.Ops[2].Succeeded)
	require.Equal(t, "changed", r.Ops[2].Ops[0].KVs[0].Value, "its reads see earlier operations")
	require.False(t, r.Ops[3].Succeeded, "each nested transaction has its own branch")
	require.Equal(t, []string{"deep", "k", "new", "other"}, keys(m.get(all).KVs))
	require.Equal(t, "then", m.get(command.Get{Key: "deep"}).KVs[0].Value)
}

func TestNestedInOtherBranch(t *testing.T) {
	m := start(t)
	never := []command.Compare{{Key: "k", Target: command.Version, Int: 9}}
	r := m.txn(command.Txn{
		Compares: never,
		Then:     []command.Op{nest(command.Txn{Compares: never, Then: []command.Op{put("a", "1")}})},
		Else:     []command.Op{nest(command.Txn{Else: []command.Op{put("b", "1")}, Then: []command.Op{put("c", "1")}}), nest(command.Txn{Compares: never})},
	})
	require.False(t, r.Succeeded)
	require.True(t, r.Ops[0].Succeeded)
	require.False(t, r.Ops[1].Succeeded)
	require.Equal(t, []string{"c"}, keys(m.get(all).KVs))
}

func TestT27_OnlyRunningBranchIsChecked(t *testing.T) {
	wrong := map[string]struct {
		op   command.Op
		code command.Code
	}{
		"unknown lease": {command.Op{Put: &command.Put{Key: "k", Lease: 7}}, command.LeaseNotFound},
		"no value":      {command.Op{Put: &command.Put{Key: "missing", IgnoreValue: true}}, command.KeyNotFound},
		"no lease":      {command.Op{Put: &command.Put{Key: "missing", IgnoreLease: true}}, command.KeyNotFound},
		"lease comes first": {
			command.Op{Put: &command.Put{Key: "missing", IgnoreValue: true, Lease: 7}}, command.LeaseNotFound,
		},
		"future revision": {command.Op{Get: &command.Get{Key: "k", Revision: 99}}, command.FutureRevision},
		"own revision":    {command.Op{Get: &command.Get{Key: "k", Revision: 4}}, command.FutureRevision},
		"compacted":       {command.Op{Get: &command.Get{Key: "k", Revision: 2}}, command.Compacted},
	}
	for name, c := range wrong {
		t.Run(name, func(t *testing.T) {
			m := start(t)
			m.put("k", "1")
			m.put("k", "2")
			m.compact(3)
			for _, txn := range []command.Txn{
				{Then: []command.Op{put("a", "1"), del("k", ""), c.op}},
				{Then: []command.Op{put("a", "1"), nest(command.Txn{Then: []command.Op{del("k", ""), c.op}})}},
				{Then: []command.Op{nest(ops(nest(ops()), put("a", "1"))), nest(ops(c.op))}},
			} {
				before := m.View()
				r := m.txn(txn)
				code(t, c.code, r)
				require.EqualValues(t, 3, r.Revision)
				require.Empty(t, r.Ops)
				require.Equal(t, before.Hash, m.View().Hash, "nothing changes")
				require.Equal(t, []string{"k"}, keys(m.get(all).KVs))
				if c.code == command.Compacted {
					require.EqualValues(t, 3, r.CompactRevision)
				}
			}
			r := m.txn(command.Txn{Then: []command.Op{put("a", "1")}, Else: []command.Op{c.op}})
			code(t, command.OK, r)
		})
	}
}

func TestChecksSeeStateBeforeTransaction(t *testing.T) {
	m := start(t)
	r := m.txn(ops(put("k", "v"), nest(ops(command.Op{Put: &command.Put{Key: "k", IgnoreValue: true}}))))
	code(t, command.KeyNotFound, r)
	// Validation rejects a transaction that deletes and puts the same key. Without validation there is no
	// value to keep, but no panic either.
	m.put("k", "v")
	r = m.txn(ops(del("k", ""), command.Op{Put: &command.Put{Key: "k", IgnoreValue: true, IgnoreLease: true}}))
	code(t, command.OK, r)
	require.Empty(t, m.get(command.Get{Key: "k"}).KVs[0].Value)
}

func TestT28_OperationsSeeEarlierOnes(t *testing.T) {
	m := start(t)
	m.put("a", "old")
	m.put("b", "old")
	past := command.Op{Get: &command.Get{Key: "\x00", End: "\x00", Revision: 3}}
	count := command.Op{Get: &command.Get{Key: "\x00", End: "\x00", CountOnly: true}}
	r := m.txn(ops(
		get("\x00", "\x00"),
		command.Op{Put: &command.Put{Key: "a", Value: "new", PrevKV: true}},
		command.Op{Put: &command.Put{Key: "c", Value: "new", PrevKV: true}},
		get("a", ""),
		command.Op{Delete: &command.Delete{Key: "b", End: "\x00", PrevKV: true}},
		get("\x00", "\x00"), count, past,
	))
	code(t, command.OK, r)
	require.Equal(t, []string{"a", "b"}, keys(r.Ops[0].KVs))
	require.Equal(t, "old", r.Ops[1].KVs[0].Value)
	require.Empty(t, r.Ops[2].KVs)
	require.Equal(t, "new", r.Ops[3].KVs[0].Value)
	require.EqualValues(t, 4, r.Ops[3].KVs[0].ModRevision)
	require.EqualValues(t, 2, r.Ops[4].Count)
	require.Equal(t, []string{"b", "c"}, keys(r.Ops[4].KVs), "keys that this transaction has put are deleted, too")
	require.Equal(t, []string{"a"}, keys(r.Ops[5].KVs))
	require.EqualValues(t, 1, r.Ops[6].Count)
	require.Equal(t, []string{"a", "b"}, keys(r.Ops[7].KVs), "but not at an older revision")
	require.EqualValues(t, 2, r.Ops[7].Count)
}

func TestT29_LimitsOfListsAndNestedTransactions(t *testing.T) {
	many := func(n int) (puts []command.Op) {
		for i := range n {
			puts = append(puts, put(string(rune('a'+i)), "v"))
		}
		return puts
	}
	three := command.Op{Txn: &command.Txn{Then: many(3), Else: many(3), Compares: make([]command.Compare, 0)}}
	require.NoError(t, command.Validate(&three, 3))
	var limit *command.LimitError
	require.ErrorAs(t, command.Validate(&three, 2), &limit)
	inner := nest(command.Txn{Then: []command.Op{three}})
	require.NoError(t, command.Validate(&inner, 4))
	require.ErrorAs(t, command.Validate(&inner, 3), &limit)
	require.Len(t, start(t).op(inner).Ops[0].Ops, 3)
}

func TestT32_ReadErrorsDependOnLogAlone(t *testing.T) {
	one, other := start(t), start(t)
	for i := range 6 {
		for _, m := range []*machine{one, other} {
			m.put("k", "v")
			if i == 3 {
				m.compact(4)
			}
		}
		// One of the two is restored from a snapshot, so that only the replicated state can decide.
		other.State = roundTrip(t, other.State)
		for rev := int64(-2); rev < 9; rev++ {
			txn := ops(command.Op{Get: &command.Get{Key: "k", Revision: rev}}, put("x", "y"))
			require.Equal(t, one.txn(txn), other.txn(txn))
			require.Equal(t, one.View().Hash, other.View().Hash)
		}
	}
}

func TestPutOptions(t *testing.T) {
	m := start(t)
	code(t, command.KeyNotFound, m.op(command.Op{Put: &command.Put{Key: "k", IgnoreValue: true}}))
	code(t, command.KeyNotFound, m.op(command.Op{Put: &command.Put{Key: "k", IgnoreLease: true}}))
	require.Empty(t, m.op(command.Op{Put: &command.Put{Key: "k", Value: "1", PrevKV: true}}).KVs)
	prev := m.op(command.Op{Put: &command.Put{Key: "k", Value: "2", PrevKV: true}}).KVs
	require.Equal(t, "1", prev[0].Value)
	m.op(command.Op{Put: &command.Put{Key: "k", IgnoreValue: true}})
	kv := m.get(command.Get{Key: "k"}).KVs[0]
	require.Equal(t, "2", kv.Value)
	require.EqualValues(t, 3, kv.Version)
	r := m.op(command.Op{Delete: &command.Delete{Key: "k", PrevKV: true}})
	require.EqualValues(t, 1, r.Count)
	require.Equal(t, kv, r.KVs[0])
	require.Empty(t, m.del("k", "").KVs)
}
