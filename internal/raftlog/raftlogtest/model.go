// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
)

// Random changes leave the entries that a slice would have.
func testModel(t *testing.T, s site) {
	l := s.open(t)
	m := newModel(t, l, random(t))
	for range often(400) {
		switch {
		case m.r.IntN(40) == 0:
			settle(t, l)
			l = s.reopen(t, l)
			m.state.check(t, l)
			m = newModel(t, l, m.r)
		case m.r.IntN(20) == 0 && !m.installed:
			holds(t, l, m.logs...)
		default:
			m.next()(t, l)
		}
	}
	m.append()(t, l)
	holds(t, l, m.logs...)
	finish(t, l)
}

// A state is what a log holds.
type state struct {
	logs          []*raft.Log
	snapshot      uint64 // the last entry of the newest snapshot
	applied       uint64
	term, votedIn uint64
}

// A model makes random changes of a state. The changes depend on nothing but the state and the random source.
type model struct {
	state
	r         *rand.Rand
	installed bool // the log is obsolete until entries follow the snapshot
	newest    uint64
}

// newModel returns a model with the state of a log that was just opened.
func newModel(t testing.TB, l *raftlog.Log, r *rand.Rand) *model {
	t.Helper()
	m := &model{r: r}
	m.logs, m.applied, m.term = all(t, l), l.Recorded(), l.Term()
	m.votedIn, _ = l.Voted()
	m.newest = m.term
	metas, err := l.Snapshots().List()
	require.NoError(t, err)
	if len(metas) > 0 {
		m.snapshot, m.newest = metas[0].Index, max(m.newest, metas[0].Term)
	}
	if n := len(m.logs); n > 0 {
		m.newest = max(m.newest, m.logs[n-1].Term)
	}
	return m
}

// check checks that a log that was just opened holds a state, and perhaps entries that the state has compacted.
func (s *state) check(t testing.TB, l *raftlog.Log) {
	t.Helper()
	require.Empty(t, s.difference(t, l))
}

// difference returns how a log that was just opened differs from a state in its entries and its snapshot, or "".
func (s *state) difference(t testing.TB, l *raftlog.Log) string {
	t.Helper()
	got := all(t, l)
	index, _ := newest(t, l)
	switch {
	case index != s.snapshot:
		return "another snapshot"
	case len(s.logs) == 0 && span(got)[1] > s.snapshot:
		return "more entries"
	case len(s.logs) == 0:
		return ""
	case len(got) == 0 || got[0].Index > s.logs[0].Index:
		return "fewer entries at the beginning"
	case span(got)[1] != span(s.logs)[1]:
		return "another end"
	}
	for i, l := range got[s.logs[0].Index-got[0].Index:] {
		if w := s.logs[i]; w.Index != l.Index || w.Term != l.Term || string(w.Data) != string(l.Data) {
			return "another entry"
		}
	}
	return ""
}

func (m *model) last() uint64 { return max(m.snapshot, span(m.logs)[1]) }

// A change makes a change of a log that a model has made already.
type change func(t testing.TB, l *raftlog.Log)

// next changes the state, and returns the change.
func (m *model) next() change {
	if m.installed {
		return m.append()
	}
	m.newest++
	switch m.r.IntN(10) {
	case 0:
		return m.compact()
	case 1:
		return m.truncate()
	case 2:
		if m.r.IntN(5) == 0 {
			return m.install()
		}
	case 3:
		return m.vote()
	case 4:
		return m.apply()
	}
	return m.append()
}

// append appends entries.
func (m *model) append() change {
	next := m.last() + 1
	batch := storagetest.Entries(next, next+uint64(m.r.IntN(8)), m.newest)
	if m.r.IntN(20) == 0 {
		batch = append(batch, storagetest.Sized(next+uint64(len(batch)), m.newest, m.r.IntN(20<<10)+m.r.IntN(4)/3*(128<<10)))
	}
	m.logs, m.installed = append(m.logs, batch...), false
	return func(t testing.TB, l *raftlog.Log) { store(t, l, batch...) }
}

// truncate removes entries that were not applied, as those of a leader that was deposed.
func (m *model) truncate() change {
	n := 0
	for n < len(m.logs) && m.logs[n].Index <= max(m.snapshot, m.applied) {
		n++
	}
	if n == len(m.logs) {
		return m.append()
	}
	n += m.r.IntN(len(m.logs) - n)
	low, high := m.logs[n].Index, m.last()
	m.logs = slices.Clone(m.logs[:n])
	return func(t testing.TB, l *raftlog.Log) { remove(t, l, low, high) }
}

// compact takes a snapshot of durable entries and drops those before it.
func (m *model) compact() change {
	if len(m.logs) == 0 {
		return m.append()
	}
	at := m.logs[m.r.IntN(len(m.logs))]
	if at.Index <= m.snapshot {
		return m.append()
	}
	m.snapshot, m.applied = at.Index, max(m.applied, at.Index)
	applied, low, high := m.applied, uint64(1), uint64(0)
	kept := m.r.IntN(10)
	if n := int(at.Index-m.logs[0].Index) + 1 - kept; n > 0 {
		low, high = m.logs[0].Index, m.logs[n-1].Index
		if kept == 0 && n < len(m.logs) {
			n-- // the last entry of the snapshot stays while others follow it
		}
		m.logs = m.logs[n:]
	}
	return func(t testing.TB, l *raftlog.Log) {
		settle(t, l)
		l.Applied(applied)
		snapshot(t, l, at.Index, at.Term)
		remove(t, l, low, high)
	}
}

// install takes a snapshot from the leader. Raft appends the entries after it next.
func (m *model) install() change {
	m.snapshot = m.last() + 1 + uint64(m.r.IntN(20))
	m.applied, m.logs, m.installed = m.snapshot, nil, true
	index, term := m.snapshot, m.newest
	return func(t testing.TB, l *raftlog.Log) {
		settle(t, l)
		snapshot(t, l, index, term)
		l.Applied(index)
	}
}

// vote raises the term and votes.
func (m *model) vote() change {
	m.term, m.votedIn = m.newest, m.newest
	term := m.term
	return func(t testing.TB, l *raftlog.Log) { vote(t, l, term, candidate(term)) }
}

// candidate is the candidate of a vote in a term.
func candidate(term uint64) string { return string(rune('a' + term%26)) }

// apply notes that durable entries are applied.
func (m *model) apply() change {
	if len(m.logs) > 0 {
		m.applied = max(m.applied, m.logs[m.r.IntN(len(m.logs))].Index)
	}
	applied := m.applied
	return func(t testing.TB, l *raftlog.Log) {
		settle(t, l)
		l.Applied(applied)
	}
}
