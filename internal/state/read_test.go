// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

func TestT06_CountIgnoresLimitAndFilters(t *testing.T) {
	m := start(t)
	for i := range 5 {
		m.put(fmt.Sprint("k", i), "v") // revisions 2 to 6
	}
	for name, c := range map[string]struct {
		get  command.Get
		want string
		more bool
	}{
		"limit":                    {command.Get{Limit: 2}, "k0 k1", true},
		"limit that is the number": {command.Get{Limit: 5}, "k0 k1 k2 k3 k4", false},
		"largest limit":            {command.Get{Limit: math.MaxInt64}, "k0 k1 k2 k3 k4", false},
		"limit in the past":        {command.Get{Limit: 2, Revision: 6}, "k0 k1", true},
		"limit, descending":        {command.Get{Limit: 2, Order: command.SortDescend}, "k4 k3", true},
		"filters": {
			command.Get{Limit: 2, MinModRevision: 4, MaxModRevision: 5}, "k2 k3", false, // more refers to the filtered keys
		},
		"filters and limit":  {command.Get{Limit: 1, MinModRevision: 4, MaxModRevision: 5}, "k2", true},
		"min create":         {command.Get{MinCreateRevision: 6}, "k4", false},
		"max create":         {command.Get{MaxCreateRevision: 2}, "k0", false},
		"no key passes":      {command.Get{MinModRevision: 7}, "", false},
		"count only":         {command.Get{CountOnly: true, Limit: 2}, "", false},
		"count in the past":  {command.Get{CountOnly: true, Revision: 6}, "", false},
		"count, not keys":    {command.Get{CountOnly: true, KeysOnly: true}, "", false},
		"count and a filter": {command.Get{CountOnly: true, MinModRevision: 6}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			c.get.Key, c.get.End = "k", "l"
			r := m.get(c.get)
			require.Equal(t, c.want, strings.Join(keys(r.KVs), " "))
			require.Equal(t, c.more, r.More)
			require.EqualValues(t, 5, r.Count)
			require.Equal(t, r, m.op(command.Op{Get: &c.get}), "the log gives the same answer as a view")
			require.Equal(t, *r, m.txn(ops(command.Op{Get: &c.get})).Ops[0])
		})
	}
	require.EqualValues(t, 3, m.get(command.Get{Key: "k", End: "l", Revision: 4, Limit: 1}).Count)
	require.EqualValues(t, 3, m.get(command.Get{Key: "k", End: "l", Revision: 4, CountOnly: true}).Count)
}

func TestRanges(t *testing.T) {
	m := start(t)
	for _, k := range []string{"a", "b", "ba", "c", "\xff"} {
		m.put(k, "v")
	}
	for _, c := range []struct{ key, end, want string }{
		{"b", "", "b"},
		{"bb", "", ""},
		{"b", "c", "b ba"},
		{"b", "\x00", "b ba c \xff"},
		{"\x00", "\x00", "a b ba c \xff"},
		{"c", "b", ""},
		{"b", "b", ""},
	} {
		for _, rev := range []int64{0, -5, m.View().KV.Revision()} {
			r := m.get(command.Get{Key: c.key, End: c.end, Revision: rev})
			require.Equal(t, c.want, strings.Join(keys(r.KVs), " "), "%+v", c)
			require.EqualValues(t, len(r.KVs), r.Count, "%+v", c)
		}
	}
}

func TestT07_Sort(t *testing.T) {
	m := start(t)
	m.put("a", "3") // create 2
	m.put("b", "1") // create 3
	m.put("c", "2") // create 4
	m.put("d", "0") // create 5
	m.put("b", "1") // mod 6, version 2
	m.put("a", "3") // mod 7, version 2
	m.put("a", "3") // mod 8, version 3
	for _, c := range []struct {
		by    command.SortTarget
		order command.SortOrder
		limit int64
		want  string
	}{
		{command.SortByKey, command.SortNone, 0, "abcd"},
		{command.SortByKey, command.SortAscend, 3, "abc"},
		{command.SortByKey, command.SortDescend, 0, "dcba"},
		{command.SortByKey, command.SortDescend, 2, "dc"},
		{command.SortByVersion, command.SortAscend, 0, "cdba"}, // equal values in the order of keys
		{command.SortByVersion, command.SortDescend, 0, "abcd"},
		{command.SortByCreateRevision, command.SortAscend, 0, "abcd"},
		{command.SortByCreateRevision, command.SortDescend, 0, "dcba"},
		{command.SortByModRevision, command.SortAscend, 0, "cdba"},
		{command.SortByModRevision, command.SortDescend, 0, "abdc"},
		{command.SortByValue, command.SortAscend, 0, "dbca"},
		{command.SortByValue, command.SortDescend, 0, "acbd"},
		{command.SortByValue, command.SortAscend, 2, "db"},
		{command.SortByValue, command.SortNone, 0, "dbca"},
		// Without an order the limit applies in the order of keys, except for the one key more that shows
		// whether there are more.
		{command.SortByValue, command.SortNone, 3, "dbc"},
		{command.SortByValue, command.SortNone, 2, "bc"},
		{command.SortByValue, command.SortNone, 1, "b"},
		{command.SortByCreateRevision, command.SortNone, 2, "ab"},
	} {
		r := m.get(command.Get{Key: "a", End: "z", SortBy: c.by, Order: c.order, Limit: c.limit})
		require.Equal(t, c.want, strings.Join(keys(r.KVs), ""), "%+v", c)
		require.EqualValues(t, 4, r.Count)
		require.Equal(t, c.limit > 0, r.More)
	}
	filtered := command.Get{Key: "a", End: "z", SortBy: command.SortByValue, Limit: 2, MinModRevision: 1}
	require.Equal(t, "db", strings.Join(keys(m.get(filtered).KVs), ""), "with a filter the limit is applied last")
}

func TestT08_KeysOnlyHasNoLease(t *testing.T) {
	m := start(t)
	m.grant(7)
	m.putLease("k", 7)
	bare := mvcc.KeyValue{Key: "k", CreateRevision: 2, ModRevision: 2, Version: 1}
	require.Equal(t, bare, m.get(command.Get{Key: "k", KeysOnly: true}).KVs[0])
	sorted := m.get(command.Get{Key: "k", KeysOnly: true, SortBy: command.SortByValue, Order: command.SortAscend}).KVs[0]
	bare.Lease = 7
	require.Equal(t, bare, sorted)
	require.Equal(t, "v", m.get(command.Get{Key: "k"}).KVs[0].Value, "the stored value has not changed")
}

func TestT12_NegativeRevision(t *testing.T) {
	m := start(t)
	m.put("k", "v")
	read := command.Get{Key: "k", Revision: -1}
	inside := func() command.Code { return m.txn(ops(command.Op{Get: &read}, put("x", "y"))).Code }
	require.Len(t, m.get(read).KVs, 1, "a negative revision is the latest")
	require.Equal(t, command.OK, inside(), "-1 is the first compact revision")
	read.Revision = -2
	require.Equal(t, command.Compacted, inside())
	require.Len(t, m.get(read).KVs, 1)
	m.compact(1)
	read.Revision = -1
	require.Equal(t, command.Compacted, inside())
	r := Execute(m.View().KV, &command.Op{Txn: &command.Txn{Then: []command.Op{{Get: &read}}}}, nil)
	code(t, command.Compacted, r)
	require.EqualValues(t, 1, r.CompactRevision)
}

func TestT30_ReadOnlyTransactionNeedsNoLog(t *testing.T) {
	m := start(t)
	m.put("k", "v")
	exists := []command.Compare{{Key: "k", Target: command.Version, Op: command.Greater}}
	for name, c := range map[string]struct {
		txn  command.Txn
		keys int
	}{
		"compares alone":  {command.Txn{Compares: exists}, -1},
		"a get":           {command.Txn{Compares: exists, Then: []command.Op{get("k", "")}}, 1},
		"the other":       {command.Txn{Compares: exists, Else: []command.Op{get("k", "")}}, -1},
		"a get of a past": {command.Txn{Then: []command.Op{{Get: &command.Get{Key: "k", Revision: 1}}}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := Execute(m.View().KV, &command.Op{Txn: &c.txn}, nil)
			require.True(t, r.Succeeded)
			require.EqualValues(t, 2, r.Revision)
			if c.keys >= 0 {
				require.Len(t, r.Ops[0].KVs, c.keys)
			} else {
				require.Empty(t, r.Ops)
			}
			require.Equal(t, r, m.txn(c.txn), "the log gives the same answer")
		})
	}
}

// The cost of a limited Get depends on its result, not on the size of the range.
func TestLimitedGetDoesNotWalkRange(t *testing.T) {
	s := filled(t, 20_000)
	v := s.View().KV
	walked := 0
	r := read(counting{v, &walked}, &command.Get{Key: "\x00", End: "\x00", Limit: 10}, nil)
	require.Len(t, r.KVs, 10)
	require.True(t, r.More)
	require.EqualValues(t, 20_000, r.Count)
	require.Equal(t, 11, walked)
	walked = 0
	require.EqualValues(t, 20_000, read(counting{v, &walked}, &command.Get{Key: "\x00", End: "\x00", CountOnly: true}, nil).Count)
	require.Zero(t, walked)
}

// counting counts visited keys.
type counting struct {
	reader
	walked *int
}

func (c counting) Ascend(key, end string, rev int64, fn func(mvcc.KeyValue) bool) {
	c.reader.Ascend(key, end, rev, func(kv mvcc.KeyValue) bool {
		*c.walked++
		return fn(kv)
	})
}
