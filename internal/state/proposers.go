// SPDX-License-Identifier: Apache-2.0

package state

import (
	"slices"

	"github.com/tidwall/btree"

	"github.com/coterie-kv/coterie/internal/command"
)

// MaxProposers is how many proposers the table keeps. The one that was silent longest makes room
// for another.
const MaxProposers = 10_000

// proposers is the table by which a proposal that comes again is told and answered, not applied. It
// is copied by a snapshot in no time, and then changed copy by copy.
type proposers struct {
	table      *btree.Map[uint64, *proposer]
	generation uint64 // counts the snapshots: what was made before one is not changed
	// floor is the index at which the last one was heard that had to leave. A registration that was
	// sent before it may be a late copy of that one's: it would be new again, and a late copy of its
	// proposals would be applied a second time.
	floor uint64
}

// A proposer is one run of a node.
type proposer struct {
	generation uint64
	lastIndex  uint64 // of its last proposal in the log
	lowest     uint64 // it waits for no proposal below
	results    []kept // of those at or above, in the order of seq
}

type kept struct {
	seq    uint64
	result *command.Result
}

func newProposers() *proposers { return &proposers{table: &btree.Map[uint64, *proposer]{}} }

// freeze returns a table that does not change any more.
func (t *proposers) freeze() *btree.Map[uint64, *proposer] {
	t.generation++
	return t.table.Copy()
}

// look returns a proposer to read, or nil.
func (t *proposers) look(id uint64) *proposer {
	p, _ := t.table.Get(id)
	return p
}

// get returns a proposer to change, or nil.
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

// register enters a proposer whose node had applied so much when it asked; false if that may be long
// ago. To do it again changes nothing.
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

// silent returns the proposer that was not heard for longest; of several the least ID.
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

// heard notes a proposal, and drops what its proposer does not wait for any more.
func (p *proposer) heard(index, lowest uint64) {
	p.lastIndex = index
	if lowest > p.lowest {
		p.lowest = lowest
		i, _ := p.find(lowest)
		clear(p.results[:i]) // else the memory in front of the slice would keep them
		p.results = p.results[i:]
	}
}

func (p *proposer) find(seq uint64) (int, bool) {
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

// result returns what came of a proposal, or nil if it was not applied.
func (p *proposer) result(seq uint64) *command.Result {
	if i, ok := p.find(seq); ok {
		return p.results[i].result
	}
	return nil
}

// maxKept bounds a result that is kept: a proposer that went away leaves all that it waited for.
const maxKept = 64 << 10

// keep keeps a result for the case that the proposal comes again.
func (p *proposer) keep(seq uint64, r *command.Result) {
	if r.Size() > maxKept {
		r = &command.Result{Code: command.ResultDropped, Revision: r.Revision}
	}
	i, _ := p.find(seq)
	p.results = slices.Insert(p.results, i, kept{seq, r})
}
