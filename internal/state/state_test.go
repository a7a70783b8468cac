// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A journal is a Sink that records its calls.
type journal struct {
	answers []answered
	granted []lease.Lease
	ended   []int64
}

type answered struct {
	proposer, seq uint64
	result        *command.Result
}

func (j *journal) Answer(proposer, seq uint64, r *command.Result) {
	j.answers = append(j.answers, answered{proposer, seq, r})
}
func (j *journal) Granted(l lease.Lease) { j.granted = append(j.granted, l) }
func (j *journal) Ended(id int64)        { j.ended = append(j.ended, id) }

// entry returns a log entry.
func entry(proposals ...command.Proposal) []byte {
	e := command.NewEntry()
	for i := range proposals {
		e.Add(&proposals[i])
	}
	return e.Bytes()
}

// A machine is a State with one proposer. Each command is an entry of its own.
type machine struct {
	testing.TB
	*State
	journal
	term, seq uint64
}

const me = 1

func start(t testing.TB) *machine {
	m := &machine{TB: t, State: New(), term: 1}
	require.NoError(t, m.Apply(1, 1, entry(command.Proposal{Proposer: me, Command: command.Command{Register: true}}), m))
	return m
}

// propose applies an entry of these proposals and returns its answers.
func (m *machine) propose(proposals ...command.Proposal) []answered {
	m.Helper()
	m.answers = nil
	index, _ := m.index, m.State.term
	b := entry(proposals...)
	require.NoError(m, m.Apply(index+1, m.term, b, m))
	poison(b)
	return m.answers
}

// do executes a command and checks all invariants.
func (m *machine) do(c command.Command) *command.Result {
	m.Helper()
	m.seq++
	answers := m.propose(command.Proposal{Proposer: me, Seq: m.seq, Lowest: m.seq, Command: c})
	require.Len(m, answers, 1)
	require.NoError(m, m.View().Check())
	return answers[0].result
}

func (m *machine) op(op command.Op) *command.Result {
	m.Helper()
	return m.do(command.Command{Op: op})
}

func (m *machine) put(key, value string) *command.Result {
	m.Helper()
	return m.op(put(key, value))
}

func (m *machine) putLease(key string, id int64) *command.Result {
	m.Helper()
	return m.op(command.Op{Put: &command.Put{Key: key, Value: "v", Lease: id}})
}

func (m *machine) del(key, end string) *command.Result {
	m.Helper()
	return m.op(del(key, end))
}

func (m *machine) txn(t command.Txn) *command.Result {
	m.Helper()
	return m.op(command.Op{Txn: &t})
}

func (m *machine) compact(rev int64) *command.Result {
	m.Helper()
	return m.do(command.Command{Compact: &command.Compact{Revision: rev}})
}

func (m *machine) grant(id int64) *command.Result {
	m.Helper()
	return m.do(command.Command{Grant: &command.Grant{ID: id, TTL: int64(10 * time.Second)}})
}

func (m *machine) revoke(id int64) *command.Result {
	m.Helper()
	return m.do(command.Command{Revoke: &command.Revoke{ID: id}})
}

func (m *machine) expire(term uint64, ids ...int64) {
	m.Helper()
	require.Empty(m, m.propose(command.Proposal{Command: command.Command{Expire: &command.Expire{IDs: ids, Term: term}}}))
	require.NoError(m, m.View().Check())
}

func (m *machine) get(g command.Get) *command.Result {
	return Execute(m.View().KV, &command.Op{Get: &g}, nil)
}

// attached returns the keys of a lease.
func (m *machine) attached(id int64) []string { return slices.Collect(m.View().Leases.Keys(id)) }

func put(key, value string) command.Op {
	return command.Op{Put: &command.Put{Key: key, Value: value}}
}

func get(key, end string) command.Op { return command.Op{Get: &command.Get{Key: key, End: end}} }

func del(key, end string) command.Op { return command.Op{Delete: &command.Delete{Key: key, End: end}} }

func nest(t command.Txn) command.Op { return command.Op{Txn: &t} }

func ops(op ...command.Op) command.Txn { return command.Txn{Then: op} }

func keys(kvs []mvcc.KeyValue) (keys []string) {
	for _, kv := range kvs {
		keys = append(keys, kv.Key)
	}
	return keys
}

// all is the range of every key.
var all = command.Get{Key: "\x00", End: "\x00"}

func code(t testing.TB, want command.Code, r *command.Result) {
	t.Helper()
	require.Equal(t, want, r.Code)
}

func TestApplyIsIdempotent(t *testing.T) {
	m := start(t)
	m.put("k", "v")
	before := m.View()
	require.NoError(t, m.Apply(before.Index, 1, []byte("not even read"), m))
	require.NoError(t, m.Apply(1, 1, nil, m))
	require.Equal(t, before.Hash, m.View().Hash)
	require.Equal(t, before.Index, m.View().Index)
}

func TestAdvance(t *testing.T) {
	m := start(t)
	m.term = 3
	m.do(command.Command{Term: true})
	m.Advance(9)
	require.EqualValues(t, 9, m.View().Index)
	require.EqualValues(t, 3, m.View().Term, "of the last command")
	m.Advance(4)
	require.EqualValues(t, 9, m.View().Index)
}

func TestUnreadableEntryChangesNothing(t *testing.T) {
	good := command.Proposal{Command: command.Command{Op: put("k", "v")}}
	whole := entry(good, good)
	damaged := slices.Clone(whole)
	damaged[len(damaged)-1] ^= 1
	newer := slices.Clone(whole)
	newer[0]++
	for name, c := range map[string]struct {
		entry []byte
		want  error
	}{
		"empty":                 {nil, nil},
		"damaged":               {damaged, nil},
		"newer format":          {newer, wire.ErrFormat},
		"last command is newer": {entry(good, command.Proposal{Proposer: 1, Seq: 1}), command.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			m := start(t)
			before := m.View()
			err := m.Apply(2, 1, c.entry, m)
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			} else {
				var corrupt *command.CorruptError
				require.ErrorAs(t, err, &corrupt)
			}
			require.EqualValues(t, 1, m.View().KV.Revision())
			require.Equal(t, before.Hash, m.View().Hash)
			require.Equal(t, before.Index, m.View().Index)
			require.NoError(t, m.Apply(2, 1, whole, m), "nothing of the rejected entry is left")
			require.EqualValues(t, 3, m.View().KV.Revision())
		})
	}
}

func TestViewIsImmutable(t *testing.T) {
	m := start(t)
	m.grant(5)
	m.putLease("a", 5)
	v := m.View()
	m.put("b", "v")
	m.revoke(5)
	require.EqualValues(t, 2, v.KV.Revision())
	require.Equal(t, []string{"a"}, slices.Collect(v.Leases.Keys(5)))
	require.NotEqual(t, v.Hash, m.View().Hash)
	require.NoError(t, v.Check())
}

func TestT01_EmptyStateIsRevision1(t *testing.T) {
	m := start(t)
	require.EqualValues(t, 1, m.get(all).Revision)
	require.EqualValues(t, -1, m.View().KV.CompactRevision())
	code(t, command.OK, m.compact(0))
	code(t, command.Compacted, m.compact(0))
	require.EqualValues(t, 2, m.put("k", "v").Revision)
}

func TestT02_OneRevisionPerTransaction(t *testing.T) {
	m := start(t)
	m.put("z", "old")
	r := m.txn(ops(put("b", "1"), del("z", ""), put("a", "2")))
	require.EqualValues(t, 3, r.Revision)
	var order []string
	m.View().KV.Changes(3, 3, func(rev int64, changes []mvcc.KeyValue) bool {
		order = keys(changes)
		return true
	})
	require.Equal(t, []string{"b", "z", "a"}, order, "in the order of operations")
}

func TestT03_OperationsWithoutRevision(t *testing.T) {
	m := start(t)
	require.EqualValues(t, 2, m.put("k", "v").Revision)
	for name, r := range map[string]*command.Result{
		"delete of nothing":        m.del("missing", ""),
		"delete of an empty range": m.del("k", "a"),
		"grant":                    m.grant(7),
		"revoke without keys":      m.revoke(7),
		"get":                      m.op(get("k", "")),
		"transaction of gets":      m.txn(ops(get("k", ""))),
		"transaction of nothing":   m.txn(command.Txn{}),
		"transaction without effect": m.txn(command.Txn{
			Compares: []command.Compare{{Key: "k", Target: command.Version, Int: 9}}, Then: []command.Op{put("k", "w")},
		}),
		"nested without effect": m.txn(ops(nest(ops(del("missing", ""))))),
		"compaction":            m.compact(2),
		"term":                  m.do(command.Command{Term: true}),
	} {
		require.Equal(t, command.OK, r.Code, name)
		require.EqualValues(t, 2, r.Revision, name)
	}
	require.EqualValues(t, 3, m.put("k", "v").Revision, "a put of an identical value makes a revision")
}

func TestT04_RevisionsOfResultsInTransaction(t *testing.T) {
	m := start(t)
	m.put("k", "v") // revision 2
	revisions := func(r *command.Result) (revs []int64) {
		for i := range r.Ops {
			revs = append(revs, r.Ops[i].Revision)
		}
		return append(revs, r.Revision)
	}
	require.Equal(t, []int64{2, 2, 2}, revisions(m.txn(ops(get("k", ""), del("missing", "")))), "nothing changes")
	require.Equal(t, []int64{2, 2, 3, 3, 3, 3}, revisions(m.txn(ops(
		get("k", ""), del("missing", ""), put("a", "1"), get("k", ""), del("missing", "")))), "the revision that each operation saw or made")
	require.Equal(t, []int64{4, 4}, revisions(m.txn(ops(del("a", "")))))
	r := m.txn(ops(nest(ops(get("k", ""))), nest(ops(put("a", "1"))), get("k", "")))
	require.Equal(t, []int64{4, 5, 5, 5}, revisions(r))
	require.Equal(t, []int64{4, 4}, revisions(&r.Ops[0]))
	require.Equal(t, []int64{5, 5}, revisions(&r.Ops[1]))
}

func TestT05_PastReadHasCurrentRevision(t *testing.T) {
	m := start(t)
	m.put("k", "old")
	m.put("k", "new")
	r := m.get(command.Get{Key: "k", Revision: 2})
	require.Equal(t, "old", r.KVs[0].Value)
	require.EqualValues(t, 3, r.Revision)
}

func TestT09_CompactRevisionIsReadable(t *testing.T) {
	m := start(t)
	for _, v := range []string{"1", "2", "3"} {
		m.put("k", v)
	}
	code(t, command.OK, m.compact(3))
	require.Equal(t, "2", m.get(command.Get{Key: "k", Revision: 3}).KVs[0].Value)
	require.Equal(t, "3", m.get(command.Get{Key: "k"}).KVs[0].Value)
	r := m.get(command.Get{Key: "k", Revision: 2})
	code(t, command.Compacted, r)
	require.EqualValues(t, 3, r.CompactRevision)
	require.EqualValues(t, 4, r.Revision)
	code(t, command.FutureRevision, m.get(command.Get{Key: "k", Revision: 5}))
}

func TestT10_TombstoneAtCompactRevisionStays(t *testing.T) {
	m := start(t)
	m.put("k", "v")
	m.del("k", "")
	m.compact(3)
	tombstone, ok := m.View().KV.Next("k", 2)
	require.True(t, ok)
	require.True(t, tombstone.Deleted())
	m.put("other", "v")
	restored := roundTrip(t, m.State)
	again, _ := restored.View().KV.Next("k", 2)
	require.Equal(t, tombstone, again)
	m.compact(4)
	_, ok = m.View().KV.Next("k", 2)
	require.False(t, ok, "the next compaction drops it")
}

func TestT11_RevisionsDoNotGoBackAfterRestore(t *testing.T) {
	m := start(t)
	m.put("k", "v")
	m.del("k", "") // revision 3 leaves no living key
	m.compact(3)
	s := roundTrip(t, m.State)
	require.EqualValues(t, 3, s.View().KV.Revision())
	require.EqualValues(t, 3, s.View().KV.CompactRevision())
	m.State = s
	require.EqualValues(t, 4, m.put("k", "v").Revision)
}

func TestT13_RecreatedKeyStartsAtVersion1(t *testing.T) {
	m := start(t)
	m.put("k", "1")
	m.put("k", "2")
	m.del("k", "")
	m.put("k", "3")
	require.Equal(t, mvcc.KeyValue{Key: "k", Value: "3", CreateRevision: 5, ModRevision: 5, Version: 1}, m.get(command.Get{Key: "k"}).KVs[0])
	require.Empty(t, m.get(command.Get{Key: "k", Revision: 4}).KVs)
}

func TestT14_TombstoneIsKeyAndRevision(t *testing.T) {
	m := start(t)
	m.grant(7)
	m.putLease("k", 7)
	m.del("k", "")
	tombstone, _ := m.View().KV.Next("k", 2)
	require.Equal(t, mvcc.KeyValue{Key: "k", ModRevision: 3}, tombstone)
}

func TestT15_LeaseKeysEndInOneOrderedRevision(t *testing.T) {
	for name, end := range map[string]func(m *machine){
		"revoke": func(m *machine) { code(m, command.OK, m.revoke(7)) },
		"expire": func(m *machine) { m.expire(m.term, 7) },
	} {
		t.Run(name, func(t *testing.T) {
			m := start(t)
			m.grant(7)
			for _, k := range []string{"c", "a", "b"} {
				m.putLease(k, 7)
			}
			m.put("d", "stays")
			end(m)
			require.EqualValues(t, 6, m.View().KV.Revision())
			m.View().KV.Changes(6, 6, func(_ int64, changes []mvcc.KeyValue) bool {
				require.Equal(t, []string{"a", "b", "c"}, keys(changes))
				for _, kv := range changes {
					require.True(t, kv.Deleted())
				}
				return true
			})
			require.Equal(t, []int64{7}, m.ended)
			require.Zero(t, m.View().Leases.Len())
			require.Equal(t, []string{"d"}, keys(m.get(all).KVs))
		})
	}
}

func TestT16_PutMovesOrDetachesKey(t *testing.T) {
	m := start(t)
	m.grant(1)
	m.grant(2)
	m.putLease("k", 1)
	require.Equal(t, []string{"k"}, m.attached(1))
	m.putLease("k", 2)
	require.Empty(t, m.attached(1))
	require.Equal(t, []string{"k"}, m.attached(2))
	m.op(command.Op{Put: &command.Put{Key: "k", Value: "w", IgnoreLease: true}})
	require.Equal(t, []string{"k"}, m.attached(2))
	require.Equal(t, "w", m.get(command.Get{Key: "k"}).KVs[0].Value)
	m.op(command.Op{Put: &command.Put{Key: "k", IgnoreValue: true, Lease: 1}})
	require.Equal(t, []string{"k"}, m.attached(1))
	require.Equal(t, "w", m.get(command.Get{Key: "k"}).KVs[0].Value)
	m.put("k", "x")
	require.Empty(t, m.attached(1))
	m.putLease("k", 1)
	m.del("k", "")
	require.Empty(t, m.attached(1))
	m.revoke(1)
	m.revoke(2)
	m.put("k", "y")
}

func TestT17_NewestVersionDecidesRestoredLease(t *testing.T) {
	m := start(t)
	m.grant(1)
	m.grant(2)
	m.putLease("moved", 1)
	m.putLease("moved", 2)
	m.putLease("detached", 1)
	m.put("detached", "v")
	m.putLease("deleted", 1)
	m.del("deleted", "")
	m.putLease("kept", 1)
	m.State = roundTrip(t, m.State)
	require.Equal(t, []string{"kept"}, m.attached(1))
	require.Equal(t, []string{"moved"}, m.attached(2))
	m.revoke(1)
	require.Equal(t, []string{"detached", "moved"}, keys(m.get(all).KVs))
}

func TestT18_LeaseExistsUntilLogEndsIt(t *testing.T) {
	m := start(t)
	m.do(command.Command{Grant: &command.Grant{ID: 7, TTL: 1}}) // expired before anything looks
	code(t, command.OK, m.putLease("k", 7))
	m.expire(m.term, 7)
	code(t, command.LeaseNotFound, m.putLease("k", 7))
}

func TestT19_UnknownLeaseIsNotFound(t *testing.T) {
	m := start(t)
	before := m.View()
	code(t, command.LeaseNotFound, m.revoke(7))
	code(t, command.LeaseNotFound, m.putLease("k", 7))
	code(t, command.LeaseNotFound, m.txn(ops(put("a", "1"), command.Op{Put: &command.Put{Key: "k", Lease: 7}})))
	require.Equal(t, before.Hash, m.View().Hash)
	require.Empty(t, m.get(all).KVs)
}

func TestT20_TTLIsKeptExactly(t *testing.T) {
	m := start(t)
	code(t, command.OK, m.grant(7))
	code(t, command.LeaseExists, m.do(command.Command{Grant: &command.Grant{ID: 7, TTL: 1}}))
	require.Equal(t, []lease.Lease{{ID: 7, TTL: 10 * time.Second}}, m.granted)
	require.Equal(t, m.granted, slices.Collect(roundTrip(t, m.State).View().Leases.All()))
}

func TestT22_ExpiryIsValidInItsTermOnly(t *testing.T) {
	m := start(t)
	m.grant(1)
	m.grant(2)
	m.grant(3)
	m.putLease("a", 1)
	m.putLease("b", 2)
	before := m.View()
	m.term = 2
	m.expire(1, 1, 2, 3)
	require.Equal(t, before.Hash, m.View().Hash)
	require.Equal(t, 3, m.View().Leases.Len())
	require.Empty(t, m.ended)
	m.expire(2, 1, 9, 2, 3, 1)
	require.Zero(t, m.View().Leases.Len())
	require.Equal(t, []int64{1, 2, 3}, m.ended, "those that exist, once")
	require.EqualValues(t, 5, m.View().KV.Revision(), "one revision for each lease with keys")
}

func TestT23_LeasesAreListedInOrder(t *testing.T) {
	m := start(t)
	for _, id := range []int64{30, 10, -20} {
		m.grant(id)
	}
	var ids []int64
	for l := range m.View().Leases.All() {
		ids = append(ids, l.ID)
	}
	require.Equal(t, []int64{-20, 10, 30}, ids)
}

func TestT46_CompactionBounds(t *testing.T) {
	m := start(t)
	m.put("k", "1")
	m.put("k", "2")
	before := m.View().Hash
	code(t, command.FutureRevision, m.compact(4))
	require.Equal(t, before, m.View().Hash)
	code(t, command.OK, m.compact(3))
	require.NotEqual(t, before, m.View().Hash)
	for _, rev := range []int64{3, 2, -1} {
		r := m.compact(rev)
		code(t, command.Compacted, r)
		require.EqualValues(t, 3, r.CompactRevision)
		require.EqualValues(t, 3, r.Revision)
	}
}
