// SPDX-License-Identifier: Apache-2.0

package model

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

func execute(m *Model, op command.Op) *command.Result {
	return m.Execute(1, &command.Command{Op: op})
}

func put(key, value string) command.Op {
	return command.Op{Put: &command.Put{Key: key, Value: value}}
}

func get(key string) command.Op { return command.Op{Get: &command.Get{Key: key}} }

func txn(t command.Txn) command.Op { return command.Op{Txn: &t} }

func TestRevisions(t *testing.T) {
	m := New()
	require.EqualValues(t, 1, m.Revision())
	require.EqualValues(t, 2, execute(m, put("k", "1")).Revision)
	require.EqualValues(t, 3, execute(m, put("k", "1")).Revision)
	require.EqualValues(t, 3, execute(m, command.Op{Delete: &command.Delete{Key: "missing"}}).Revision)
	r := execute(m, command.Op{Delete: &command.Delete{Key: "\x00", End: "\x00", PrevKV: true}})
	want := &mvcc.KeyValue{Key: "k", Value: "1", CreateRevision: 2, ModRevision: 3, Version: 2}
	require.Equal(t, &command.Result{Revision: 4, Count: 1, KVs: []mvcc.KeyValue{*want}}, r)
	require.Nil(t, m.Get("k", 0))
	require.Equal(t, want, m.Get("k", 3))
	require.Equal(t, []*mvcc.KeyValue{want, {Key: "k", ModRevision: 4}}, m.Changes(3, 9))
	require.Equal(t, want, m.Previous(m.Next("k", 3)))

	require.Equal(t, command.FutureRevision, m.Compact(5))
	require.Equal(t, command.OK, m.Compact(4))
	require.Equal(t, command.Compacted, m.Compact(4))
	require.Equal(t, command.Compacted, m.Readable(3))
	require.Equal(t, command.OK, m.Readable(4))
	require.Equal(t, []*mvcc.KeyValue{{Key: "k", ModRevision: 4}}, m.Kept(), "a watch may begin here")
	require.Nil(t, m.Previous(m.Next("k", 3)), "the previous version is compacted")
	execute(m, put("k", "2"))
	require.Equal(t, command.OK, m.Compact(5))
	require.Equal(t, []*mvcc.KeyValue{{Key: "k", Value: "2", CreateRevision: 5, ModRevision: 5, Version: 1}}, m.Kept())
}

// Every compare is evaluated, and everything is checked, before anything changes. Reads see earlier
// operations.
func TestTransactions(t *testing.T) {
	m := New()
	missing := []command.Compare{{Key: "k", Target: command.Version}}
	r := execute(m, txn(command.Txn{Compares: missing, Then: []command.Op{
		get("k"), put("k", "1"), get("k"), txn(command.Txn{Compares: missing, Then: []command.Op{put("nested", "1")}}),
	}}))
	made := mvcc.KeyValue{Key: "k", Value: "1", CreateRevision: 2, ModRevision: 2, Version: 1}
	require.Equal(t, &command.Result{Revision: 2, Succeeded: true, Ops: []command.Result{
		{Revision: 1}, {Revision: 2}, {Revision: 2, Count: 1, KVs: []mvcc.KeyValue{made}},
		{Revision: 2, Succeeded: true, Ops: []command.Result{{Revision: 2}}},
	}}, r)

	before := m.Clone()
	r = execute(m, txn(command.Txn{Then: []command.Op{
		put("k", "2"), txn(command.Txn{Then: []command.Op{{Put: &command.Put{Key: "other", Lease: 7}}}}),
	}}))
	require.Equal(t, &command.Result{Code: command.LeaseNotFound, Revision: 2}, r)
	require.Equal(t, before, m)

	for _, op := range []command.CompareOp{command.Equal, command.NotEqual, command.Less, command.Greater} {
		r = execute(m, txn(command.Txn{Compares: []command.Compare{{Key: "missing", Target: command.Value, Op: op}}}))
		require.False(t, r.Succeeded, "no compare of a missing value holds")
	}
	for rev, code := range map[int64]command.Code{-1: command.OK, -2: command.Compacted, 2: command.OK, 3: command.FutureRevision} {
		read := command.Op{Get: &command.Get{Key: "k", Revision: rev}}
		require.Equal(t, code, execute(m, txn(command.Txn{Then: []command.Op{put("k", "3"), read}})).Code, "%d", rev)
		m = before.Clone()
	}
}

func TestGets(t *testing.T) {
	m := New()
	for _, kv := range []string{"a3", "b1", "c2", "d0"} {
		execute(m, put(kv[:1], kv[1:]))
	}
	for _, c := range []struct {
		get  command.Get
		want string
		more bool
	}{
		{command.Get{}, "abcd", false},
		{command.Get{Limit: 2}, "ab", true},
		{command.Get{Limit: math.MaxInt64}, "abcd", false},
		{command.Get{Limit: 2, Order: command.SortDescend}, "dc", true},
		{command.Get{Limit: 2, SortBy: command.SortByValue, Order: command.SortAscend}, "db", true},
		{command.Get{Limit: 2, SortBy: command.SortByValue}, "bc", true},
		{command.Get{Limit: 2, SortBy: command.SortByValue, MinModRevision: 1}, "db", true},
		{command.Get{Limit: 2, MinModRevision: 3, MaxCreateRevision: 4}, "bc", false},
		{command.Get{CountOnly: true, Limit: 1}, "", false},
	} {
		c.get.Key, c.get.End = "a", "z"
		r := execute(m, command.Op{Get: &c.get})
		found := ""
		for _, kv := range r.KVs {
			found += kv.Key
		}
		require.Equal(t, c.want, found, "%+v", c.get)
		require.Equal(t, c.more, r.More, "%+v", c.get)
		require.EqualValues(t, 4, r.Count)
	}
}

func TestLeases(t *testing.T) {
	m := New()
	do := func(term uint64, c command.Command) *command.Result { return m.Execute(term, &c) }
	attach := func(key string, id int64) *command.Result {
		return execute(m, command.Op{Put: &command.Put{Key: key, Lease: id}})
	}
	require.Equal(t, command.OK, do(1, command.Command{Grant: &command.Grant{ID: 7, TTL: 5}}).Code)
	require.Equal(t, command.LeaseExists, do(1, command.Command{Grant: &command.Grant{ID: 7}}).Code)
	require.Equal(t, command.OK, do(1, command.Command{Grant: &command.Grant{ID: 8}}).Code)
	for _, key := range []string{"b", "a", "moved", "detached"} {
		attach(key, 7)
	}
	attach("moved", 8)
	attach("detached", 0)
	execute(m, command.Op{Put: &command.Put{Key: "a", Value: "new", IgnoreLease: true}})
	require.Equal(t, []string{"a", "b"}, m.Attached(7))
	require.EqualValues(t, 8, m.Revision())
	do(2, command.Command{Expire: &command.Expire{IDs: []int64{7}, Term: 1}})
	require.Len(t, m.Leases(), 2, "another term's expiry does nothing")
	do(2, command.Command{Expire: &command.Expire{IDs: []int64{9, 7}, Term: 2}})
	require.Equal(t, []*mvcc.KeyValue{{Key: "a", ModRevision: 9}, {Key: "b", ModRevision: 9}}, m.Changes(9, 9))
	require.Equal(t, command.LeaseNotFound, do(2, command.Command{Revoke: &command.Revoke{ID: 7}}).Code)
	require.EqualValues(t, 10, do(2, command.Command{Revoke: &command.Revoke{ID: 8}}).Revision)
	require.Empty(t, m.Leases())
	require.Equal(t, command.LeaseNotFound, attach("b", 7).Code)
}

func TestProposals(t *testing.T) {
	m := New()
	p := command.Proposal{Proposer: 9, Seq: 1, Lowest: 1, Command: command.Command{Op: put("k", "v")}}
	require.Equal(t, command.UnknownProposer, m.Propose(1, &p).Code)
	m.Propose(1, &command.Proposal{Proposer: 9, Command: command.Command{Register: true}})
	require.EqualValues(t, 2, m.Propose(1, &p).Revision)
	require.EqualValues(t, 2, m.Propose(1, &p).Revision, "the proposal is not executed again")
	require.EqualValues(t, 2, m.Revision())
	require.NotNil(t, m.Result(9, 1))
	p.Seq, p.Lowest = 2, 2
	require.EqualValues(t, 3, m.Propose(1, &p).Revision)
	require.Nil(t, m.Result(9, 1))
	p.Seq = 1
	require.Nil(t, m.Propose(1, &p), "no caller waits")
	p.Proposer = 0
	require.Nil(t, m.Propose(1, &p))
	require.EqualValues(t, 4, m.Revision())
}

// The current keys are the result of replaying all changes.
func TestNow(t *testing.T) {
	m := New()
	m.Put("a", "1", 0)
	m.Put("b", "1", 0)
	m.Commit()
	m.Delete("a", "")
	m.Put("b", "2", 0)
	require.True(t, m.Pending())
	require.Equal(t, m.at(m.revision+1), m.at(0))
	require.NotEqual(t, m.at(m.revision), m.at(0))
	m.Commit()
	require.Equal(t, m.at(m.revision), m.at(0))
}
