// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"

	"github.com/tidwall/btree"

	"github.com/coterie-kv/coterie/internal/command"
)

// MaxProposers is the number of proposers in the table. When it is full, a new proposer replaces the one
// that has been silent longest.
const MaxProposers = 10_000

// proposers is the table that detects repeated proposals, which are answered but not applied again. A
// snapshot shares it at no cost; afterwards each proposer is copied when it changes.
type proposers struct {
	table      *btree.Map[uint64, *proposer]
	generation uint64 // counts the snapshots: proposers of earlier generations are shared and must not be changed
	// floor is the last index at which an evicted proposer was active. A registration that was sent
	// before that may be a late duplicate of an evicted one. If it were accepted, late duplicates of its
	// proposals would be applied a second time.
	floor uint64
}

// A proposer is one run of a node.
type proposer struct {
	generation uint64
	lastIndex  uint64 // of its last proposal in the log
	lowest     uint64 // it waits for no lower sequence number
	results    []kept // of proposals at or above lowest, in the order of seq
}

type kept struct {
	seq    uint64
	result *command.Result
}

func newProposers() *proposers { return &proposers{table: &btree.Map[uint64, *proposer]{}} }

// freeze returns an immutable copy of the table.
func (t *proposers) freeze() *btree.Map[uint64, *proposer] {
	t.generation++
	return t.table.Copy()
}

// look returns a proposer for reading, or nil.
func (t *proposers) look(id uint64) *proposer {
	p, _ := t.table.Get(id)
	return p
}

// get returns a proposer for writing, or nil.
func (t *proposers) get(id uint64) *proposer {
	p := t.look(id)
	if p == nil || p.generation == t.generation {
		return p
	}
	own := *p
	own.generation, own.results = t.generation, slices.Clone(p.results)
	t.table.Set(id, &own)
	return &own
}

// register adds a proposer. Its node had applied everything up to applied when it sent the registration.
// It returns false if that may be long ago. Repeated registrations change nothing.
func (t *proposers) register(id, index, applied uint64) bool {
	if p := t.get(id); p != nil {
		p.lastIndex = index
		return true
	}
	if applied < t.floor {
		return false
	}
	if t.table.Len() >= MaxProposers {
		silent := t.silent()
		t.floor = max(t.floor, t.look(silent).lastIndex)
		t.table.Delete(silent)
	}
	t.table.Set(id, &proposer{generation: t.generation, lastIndex: index})
	return true
}

// silent returns the proposer that has been silent longest; among several, the one with the lowest ID.
func (t *proposers) silent() (id uint64) {
	oldest := ^uint64(0)
	t.table.Scan(func(candidate uint64, p *proposer) bool {
		if p.lastIndex < oldest {
			id, oldest = candidate, p.lastIndex
		}
		return true
	})
	return id
}

// heard records a proposal, and drops results that its proposer no longer waits for.
func (p *proposer) heard(index, lowest uint64) {
	p.lastIndex = index
	if lowest > p.lowest {
		p.lowest = lowest
		i, _ := p.find(lowest)
		clear(p.results[:i]) // else the memory before the slice would keep them
		p.results = p.results[i:]
	}
}

// find returns the index of a result, or that where it belongs: mostly at the end.
func (p *proposer) find(seq uint64) (int, bool) {
	if n := len(p.results); n == 0 || p.results[n-1].seq < seq {
		return n, false
	}
	return slices.BinarySearchFunc(p.results, seq, func(k kept, seq uint64) int {
		switch {
		case k.seq < seq:
			return -1
		case k.seq > seq:
			return 1
		}
		return 0
	})
}

// result returns the result of a proposal, or nil if it was not applied.
func (p *proposer) result(seq uint64) *command.Result {
	if i, ok := p.find(seq); ok {
		return p.results[i].result
	}
	return nil
}

// maxKept bounds the size of a kept result: a proposer that disappears leaves all results that it waited
// for.
const maxKept = 64 << 10

// keep keeps a result in case the proposal is repeated.
func (p *proposer) keep(seq uint64, r *command.Result) {
	if r.Size() > maxKept {
		r = &command.Result{Code: command.ResultDropped, Revision: r.Revision}
	}
	i, _ := p.find(seq)
	p.results = slices.Insert(p.results, i, kept{seq, r})
}
