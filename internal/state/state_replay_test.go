// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/model/modeltest"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A generator makes random logs.
type generator struct {
	*rand.Rand
	index, term uint64
	newest      int64             // approximately the newest revision; 0 if unknown
	authNewest  uint64            // the newest revision of the users; 0 if unknown
	proposers   map[uint64]uint64 // the newest sequence number of each
	ids         []uint64
}

func newGenerator(seed uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 1)), term: 1, proposers: map[uint64]uint64{}}
}

// bounds returns a key, and usually no end.
func (g *generator) bounds() (key, end string) {
	if g.IntN(2) == 0 {
		return modeltest.Range(g.Rand)
	}
	return modeltest.Key(g.Rand), ""
}

func (g *generator) lease() int64 { return int64(g.IntN(6)) }

// value returns one of a few values, so that values are often equal.
func (g *generator) value() string {
	return strings.Repeat(string(rune('a'+g.IntN(2))), g.IntN(4))
}

// revision returns a revision that usually exists.
func (g *generator) revision() int64 {
	newest := g.newest
	if newest == 0 {
		newest = int64(g.index)
	}
	if g.IntN(2) == 0 {
		return newest + g.Int64N(12) - 8
	}
	return g.Int64N(newest+4) - 2
}

// filter returns a revision for a filter, usually none.
func (g *generator) filter() int64 {
	if g.IntN(10) > 0 {
		return 0
	}
	return max(g.revision(), 0)
}

func (g *generator) op(depth int) command.Op {
	switch n := g.IntN(12); {
	case n < 5:
		p := &command.Put{Key: modeltest.Key(g.Rand), Value: g.value(), PrevKV: g.IntN(3) == 0}
		switch g.IntN(8) {
		case 0:
			p.Value, p.IgnoreValue = "", true
		case 1:
			p.IgnoreLease = true
		case 2, 3, 4:
			p.Lease = g.lease()
		}
		return command.Op{Put: p}
	case n < 7:
		d := &command.Delete{PrevKV: g.IntN(3) == 0}
		d.Key, d.End = g.bounds()
		if g.IntN(8) > 0 {
			d.End = "" // else few keys would ever be left
		}
		return command.Op{Delete: d}
	case n < 9:
		r := &command.Get{
			Limit: int64(g.IntN(4)), SortBy: command.SortTarget(g.IntN(5)), Order: command.SortOrder(g.IntN(3)),
			KeysOnly: g.IntN(4) == 0, CountOnly: g.IntN(6) == 0,
			MinModRevision: g.filter(), MaxModRevision: g.filter(), MinCreateRevision: g.filter(), MaxCreateRevision: g.filter(),
		}
		r.Key, r.End = g.bounds()
		if g.IntN(4) == 0 {
			r.Revision = g.revision()
		}
		return command.Op{Get: r}
	}
	t := &command.Txn{}
	for range g.IntN(3) {
		c := command.Compare{Target: command.Target(g.IntN(5)), Op: command.CompareOp(g.IntN(4)), Int: int64(g.IntN(4)), Text: g.value()}
		c.Key, c.End = g.bounds()
		if (c.Target == command.CreateRevision || c.Target == command.ModRevision) && g.IntN(2) == 0 {
			c.Int = g.revision()
		}
		t.Compares = append(t.Compares, c)
	}
	if depth > 0 {
		for range g.IntN(4) {
			t.Then = append(t.Then, g.op(depth-1))
		}
		for range g.IntN(4) {
			t.Else = append(t.Else, g.op(depth-1))
		}
	}
	return command.Op{Txn: t}
}

// validOp returns a valid op.
func (g *generator) validOp() command.Op {
	for {
		if op := g.op(2); command.Validate(&op, 128) == nil {
			return op
		}
	}
}

// command returns a command, which may be one of a user.
func (g *generator) command() command.Command {
	c := g.anyCommand()
	if c.Expire == nil && c.Enroll == nil && !c.Term && g.IntN(3) == 0 {
		c.As = &command.As{User: []string{"root", "a", "a", "b", "c", "", "nobody"}[g.IntN(7)]}
		if g.IntN(4) == 0 {
			c.As.Revision = max(g.authNewest, 1) - uint64(g.IntN(2))
		}
	}
	return c
}

func (g *generator) anyCommand() command.Command {
	switch g.IntN(60) {
	case 0, 1, 2, 3:
		return command.Command{Grant: &command.Grant{ID: 1 + g.lease(), TTL: 1 + g.Int64N(1e12)}}
	case 4:
		return command.Command{Revoke: &command.Revoke{ID: g.lease()}}
	case 5:
		return command.Command{Expire: &command.Expire{IDs: []int64{g.lease(), g.lease()}, Term: g.term - uint64(g.IntN(2))}}
	case 6, 7:
		return command.Command{Compact: &command.Compact{Revision: g.revision() - g.Int64N(200)}}
	case 8:
		return command.Command{Term: true, Epoch: g.Uint64N(3)}
	case 10, 11, 12, 13, 14, 15:
		return command.Command{Auth: g.auth()}
	case 16:
		return command.Command{Alarm: &command.Alarm{Member: g.Uint64N(3), Kind: g.Uint64N(3), Clear: g.IntN(2) > 0}}
	case 9:
		return command.Command{Enroll: &command.Enroll{
			ID: g.Uint64N(6), Name: "n", Addr: "n:1", Incarnation: g.Uint64N(3), Voter: g.IntN(2) > 0, Term: g.term - uint64(g.IntN(2)),
			Start: g.Uint64N(3), Described: g.IntN(2) > 0, Metadata: strings.Repeat("m", g.IntN(2)),
		}}
	}
	return command.Command{Op: g.validOp()}
}

// auth returns a change of a few users and roles.
func (g *generator) auth() *command.Auth {
	pick := func(names ...string) string { return names[g.IntN(len(names))] }
	c := &command.Auth{
		Action: command.AuthEnable + command.AuthAction(g.IntN(int(command.AuthSecret))),
		User:   pick("root", "a", "b", "c", ""), Role: pick("root", "r", "s", "t", ""),
		Hash: pick("", "h", "i"), NoPassword: g.IntN(3) == 0,
	}
	switch g.IntN(6) { // some changes are frequent, because others undo them
	case 0:
		c.Action = command.AuthEnable
	case 1:
		c.Action, c.User, c.Role = command.UserGrantRole, "root", "root"
	case 2:
		c.Action, c.Role = command.UserGrantRole, pick("r", "s", "t")
	case 3:
		c.Action, c.Role = command.RoleGrantPermission, pick("r", "s", "t")
	}
	c.Permission.Access = command.Access(g.IntN(3))
	c.Permission.Key, c.Permission.End = g.bounds()
	if g.IntN(20) == 0 {
		c.Permission.Key = ""
	}
	if (c.Action == command.AuthDisable || c.Action == command.UserDelete || c.Action == command.RoleDelete) && g.IntN(3) > 0 {
		c.Action--
	}
	return c
}

func (g *generator) proposal() command.Proposal {
	switch g.IntN(20) {
	case 0:
		id := 1 + g.Uint64N(1000)
		if _, known := g.proposers[id]; !known {
			g.proposers[id] = 0
			g.ids = append(g.ids, id)
		}
		return register(id)
	case 1:
		return command.Proposal{Command: g.command()}
	case 2: // unknown
		return command.Proposal{Proposer: 5000, Seq: 1, Command: g.command()}
	}
	if len(g.ids) == 0 {
		return register(g.Uint64())
	}
	id := g.ids[g.IntN(len(g.ids))]
	p := command.Proposal{Proposer: id, Command: g.command()}
	newest := g.proposers[id]
	switch g.IntN(6) {
	case 0: // possibly a repetition
		p.Seq = newest - min(newest, g.Uint64N(4))
	case 1: // out of order
		p.Seq = newest + 2
	default:
		p.Seq = newest + 1
	}
	g.proposers[id] = max(newest, p.Seq)
	p.Lowest = p.Seq - min(p.Seq, g.Uint64N(5))
	return p
}

// A logged entry may be one of raft's own without proposals: with servers, or empty.
type logged struct {
	index, term uint64
	proposals   []command.Proposal
	servers     []Server
}

func (g *generator) log(n int) (log []logged) {
	for range n {
		g.index++
		if g.IntN(50) == 0 {
			g.term++
		}
		e := logged{index: g.index, term: g.term}
		switch g.IntN(20) {
		case 0:
		case 1:
			for _, id := range g.Perm(5) {
				e.servers = append(e.servers, Server{ID: uint64(id), Addr: "old", Voter: g.IntN(2) > 0})
			}
			e.servers = e.servers[g.IntN(5):]
		default:
			for range 1 + g.IntN(4) {
				e.proposals = append(e.proposals, g.proposal())
			}
		}
		log = append(log, e)
	}
	return log
}

func replay(t testing.TB, s *State, sink Sink, log []logged) {
	t.Helper()
	for _, e := range log {
		switch {
		case e.servers != nil:
			s.Configure(e.index, e.servers)
			continue
		case e.proposals == nil:
			s.Advance(e.index)
			continue
		}
		b := entry(e.proposals...)
		require.NoError(t, s.Apply(e.index, e.term, b, sink))
		poison(b)
	}
}

// poison overwrites an entry that was applied, because a state must keep none of its memory.
func poison(entry []byte) {
	for i := range entry {
		entry[i] = 'P'
	}
}

// contents returns everything observable in a view.
func contents(v *View) []any {
	out := []any{v.Index, v.Term, v.Hash, v.KV.Revision(), v.KV.CompactRevision(), v.KV.Keys(), v.KV.Bytes(), v.KV.Hash(0), v.Members, v.Epoch, v.Alarms}
	v.KV.Ascend("\x00", "\x00", 0, func(kv mvcc.KeyValue) bool { out = append(out, kv); return true })
	v.KV.Changes(0, v.KV.Revision(), func(rev int64, changes []mvcc.KeyValue) bool {
		for _, kv := range changes {
			out = append(out, kv)
		}
		return true
	})
	out = append(out, v.Auth.Append(nil))
	for _, r := range v.Auth.Roles() {
		out = append(out, r.Append(nil))
	}
	for _, u := range v.Auth.Users() {
		out = append(out, u.Append(nil))
	}
	for l := range v.Leases.All() {
		out = append(out, l, slices.Collect(v.Leases.Keys(l.ID)))
	}
	return out
}

func same(t testing.TB, want, got *State) {
	t.Helper()
	require.Equal(t, want.View().Hash, got.View().Hash)
	require.Equal(t, contents(want.View()), contents(got.View()))
	require.Equal(t, bytesOf(t, want), bytesOf(t, got))
	require.NoError(t, got.View().Check())
}

func TestStateDependsOnLogAlone(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5}
	if !testing.Short() {
		seeds = append(seeds, rand.Uint64(), rand.Uint64())
	}
	var codes [command.AuthNotEnabled + 1]int
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			log := newGenerator(seed).log(3000)
			var first, second journal
			one, two := New(), New()
			replay(t, one, &first, log)
			replay(t, two, &second, log)
			same(t, one, two)
			require.Equal(t, first, second, "answers and leases are equal, too")

			for _, a := range first.answers {
				codes[a.result.Code]++
			}
		})
	}
	for c, n := range codes {
		require.True(t, n > 0 || command.Code(c) == command.ResultDropped, "no log produced code %d", c)
	}
}

// A state that kept a string of an entry would change with the memory of the entry.
func TestStateKeepsNoMemoryOfEntries(t *testing.T) {
	for _, seed := range []uint64{1, 2, rand.Uint64()} {
		log := newGenerator(seed).log(2000)
		var entries [][]byte
		one, two := New(), New()
		var first, second journal
		for _, e := range log {
			if e.proposals == nil {
				replay(t, one, &first, []logged{e})
				replay(t, two, &second, []logged{e})
				continue
			}
			entries = append(entries, entry(e.proposals...))
			require.NoError(t, one.Apply(e.index, e.term, slices.Clone(entries[len(entries)-1]), &first))
			require.NoError(t, two.Apply(e.index, e.term, entries[len(entries)-1], &second))
		}
		for _, b := range entries {
			poison(b)
		}
		same(t, one, two)
		require.Equal(t, first, second, "seed %d", seed)
	}
}

func TestSnapshotAndRestOfLogMakeSameState(t *testing.T) {
	for _, seed := range []uint64{1, 2, rand.Uint64()} {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			g := newGenerator(seed)
			log := g.log(2000)
			whole := New()
			var answers journal
			replay(t, whole, &answers, log)
			// The node is restored again and again.
			s, at := New(), 0
			var got journal
			for at < len(log) {
				next := min(at+1+g.IntN(300), len(log))
				replay(t, s, &got, log[at:next])
				at = next
				s = roundTrip(t, s)
				// Raft may replay entries that the snapshot has.
				replay(t, s, &got, log[max(0, at-5):at])
			}
			same(t, whole, s)
			require.Equal(t, answers.ended, got.ended)
			require.Equal(t, len(answers.answers), len(got.answers))
			for i := range got.answers {
				require.Equal(t, answers.answers[i], got.answers[i])
			}
		})
	}
}

// The hash depends on the changes and their order, not on the grouping in the log.
func TestHashIgnoresGrouping(t *testing.T) {
	log := newGenerator(7).log(1000)
	whole, single := New(), New()
	replay(t, whole, &journal{}, log)
	index := uint64(0)
	for _, e := range log {
		if e.servers != nil {
			index++
			single.Configure(index, e.servers)
		}
		for _, p := range e.proposals {
			index++
			require.NoError(t, single.Apply(index, e.term, entry(p), &journal{}))
		}
	}
	require.Equal(t, whole.View().Hash, single.View().Hash)
	require.Equal(t, whole.View().KV.Hash(0), single.View().KV.Hash(0))
}

func TestHashDependsOnEveryChangeAndOrder(t *testing.T) {
	hash := func(commands ...command.Command) uint64 {
		m := start(t)
		for _, c := range commands {
			code(t, command.OK, m.do(c))
		}
		return m.View().Hash
	}
	write := func(op command.Op) command.Command { return command.Command{Op: op} }
	lease := func(id, ttl int64) command.Command { return command.Command{Grant: &command.Grant{ID: id, TTL: ttl}} }
	revoke := func(id int64) command.Command { return command.Command{Revoke: &command.Revoke{ID: id}} }
	compact := func(rev int64) command.Command { return command.Command{Compact: &command.Compact{Revision: rev}} }
	a, b := write(put("a", "1")), write(put("b", "1"))
	user := func(name, hash string) command.Command {
		return command.Command{Auth: &command.Auth{Action: command.UserAdd, User: name, Hash: hash}}
	}
	leased := write(command.Op{Put: &command.Put{Key: "a", Value: "1", Lease: 5}})
	seen := map[uint64]int{}
	for i, c := range [][]command.Command{
		{}, {a}, {b}, {a, b}, {b, a}, {a, a}, {write(put("a", "2"))}, {write(put("a1", ""))}, {write(put("a", "11"))},
		{a, write(del("a", ""))}, {a, b, write(del("a", ""))}, {a, b, write(del("\x00", "\x00"))},
		{lease(5, 1)}, {lease(5, 2)}, {lease(1, 5)}, {lease(5, 1), leased}, {lease(5, 1), a}, {lease(5, 1), revoke(5)},
		{lease(5, 1), leased, revoke(5)}, {compact(0)}, {compact(1)}, {compact(0), compact(1)}, {a, compact(1)}, {a, compact(2)},
		{user("a", "h")}, {user("a", "i")}, {user("b", "h")}, {user("a", "h"), user("b", "h")}, {user("b", "h"), user("a", "h")},
		{lease(1, 1)}, {write(nest(ops(put("a", "1"), put("b", "1"))))}, {write(nest(ops(put("b", "1"), put("a", "1"))))},
	} {
		h := hash(c...)
		before, exists := seen[h]
		require.False(t, exists, "%d hashes like %d", i, before)
		seen[h] = i
	}
	require.Equal(t, hash(a), hash(a, write(get("a", "")), command.Command{Term: true}, write(del("missing", "")),
		command.Command{Auth: &command.Auth{Action: command.AuthDisable}}))
}
