// SPDX-License-Identifier: Apache-2.0

package state

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/model"
	"github.com/coterie-kv/coterie/internal/model/modeltest"
)

// A pair is a State and a model that receive the same entries.
type pair struct {
	*testing.T
	*generator
	state    *State
	model    *model.Model
	notified journal // the State's notifications for an entry
	want     journal // the expected ones
	codes    map[command.Code]int
}

// The State agrees with the model in every result and everything observable, including after restores
// from snapshots.
func TestStateAgreesWithModel(t *testing.T) {
	random := modeltest.Random(t)
	codes := map[command.Code]int{}
	for range modeltest.Few(30) {
		p := &pair{T: t, generator: newGenerator(random.Uint64()), state: New(), model: model.New(), codes: codes}
		view, then := p.state.View(), p.model.Clone()
		for range 500 {
			p.step()
			switch p.IntN(40) {
			case 0:
				p.state = roundTrip(t, p.state)
				fallthrough
			case 1:
				p.compare(p.model, p.state.View())
			case 2:
				p.compare(then, view)
				view, then = p.state.View(), p.model.Clone()
			case 3, 4, 5, 6:
				p.reads()
			}
		}
		p.compare(then, view)
		p.compare(p.model, p.state.View())
	}
	for code := command.OK; code <= command.AuthNotEnabled && !testing.Short(); code++ {
		require.True(t, codes[code] > 0 || code == command.ResultDropped, "no command produced code %d", code)
	}
}

// step applies an entry to both.
func (p *pair) step() {
	p.newest, p.authNewest = p.model.Revision(), p.model.Auth().Revision
	p.notified, p.want = journal{}, journal{}
	entries := p.log(1)
	for _, e := range entries {
		for i := range e.proposals {
			p.propose(e.term, &e.proposals[i])
		}
	}
	replay(p, p.state, &p.notified, entries)
	require.Equal(p, p.want.answers, p.notified.answers)
	require.Equal(p, p.want.granted, p.notified.granted)
	require.ElementsMatch(p, p.want.ended, p.notified.ended)
	require.Equal(p, p.model.Revision(), p.state.kv.Revision())
	require.Equal(p, p.model.CompactRevision(), p.state.kv.CompactRevision())
}

// propose passes a proposal to the model, and records the notifications expected from the State.
func (p *pair) propose(term uint64, c *command.Proposal) {
	before := p.model.Leases()
	if r := p.model.Propose(term, c); r != nil {
		p.want.Answer(c.Proposer, c.Seq, r)
		p.codes[r.Code]++
	}
	after := p.model.Leases()
	for id, ttl := range after {
		if _, had := before[id]; !had {
			p.want.Granted(lease.Nanoseconds(id, ttl))
		}
	}
	for id := range before {
		if _, has := after[id]; !has {
			p.want.Ended(id)
		}
	}
}

// reads evaluates reads on a view, and looks up the results of proposals.
func (p *pair) reads() {
	p.newest = p.model.Revision()
	v := p.state.View()
	for range 5 {
		op := p.validOp()
		if readsOnly(op) {
			c := command.Command{Op: op}
			require.Equal(p, p.model.Execute(p.term, &c), Execute(v.KV, &op, nil))
		}
		id := uint64(5000) // unknown
		if len(p.ids) > 0 && p.IntN(10) > 0 {
			id = p.ids[p.IntN(len(p.ids))]
		}
		seq := p.Uint64N(p.proposers[id] + 2)
		want := p.model.Result(id, seq)
		got, ok := p.state.Result(id, seq)
		require.Equal(p, want, got)
		require.Equal(p, want != nil, ok)
	}
}

// readsOnly reports whether a view can evaluate an operation.
func readsOnly(op command.Op) bool {
	if op.Txn == nil {
		return op.Get != nil
	}
	return !slices.ContainsFunc(append(slices.Clone(op.Txn.Then), op.Txn.Else...), func(op command.Op) bool { return op.Get == nil })
}

// compare compares everything observable in a view.
func (p *pair) compare(m *model.Model, v *View) {
	require.NoError(p, v.Check())
	modeltest.Compare(p, p.Rand, m, v.KV)
	leases := map[int64]int64{}
	for l := range v.Leases.All() {
		leases[l.ID] = int64(l.TTL)
		require.Equal(p, m.Attached(l.ID), slices.Collect(v.Leases.Keys(l.ID)))
	}
	require.Equal(p, m.Leases(), leases)
	require.Len(p, v.Alarms, m.Alarms())
	p.compareAuth(m.Auth(), v.Auth)
}

// compareAuth compares the users and roles.
func (p *pair) compareAuth(m model.Auth, s *auth.Store) {
	require.Equal(p, m.Enabled, s.Enabled)
	require.Equal(p, m.Revision, s.Revision)
	require.Equal(p, m.Secret, s.Secret)
	require.Len(p, s.Users(), len(m.Users))
	for name, want := range m.Users {
		got := s.User(name)
		require.True(p, slices.Equal(slices.Sorted(maps.Keys(want.Roles)), got.Roles), "%v, %v", want, got)
		require.Equal(p, want.Hash, got.Hash)
		require.Equal(p, want.NoPassword, got.NoPassword)
		require.Equal(p, want.Since, got.Since)
	}
	require.Len(p, s.Roles(), len(m.Roles))
	for name, want := range m.Roles {
		require.ElementsMatch(p, want, s.Role(name).Permissions)
	}
}
