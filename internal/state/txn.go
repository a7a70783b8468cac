// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// run executes an operation as a revision of its own. It either rejects the whole operation or executes
// it: all errors are found before anything changes.
func (s *State) run(op *command.Op) *command.Result {
	s.path = s.path[:0]
	if op.Txn != nil {
		s.path = choose(s.kv, op.Txn, s.path)
	}
	j := judge{kv: s.kv, leases: &s.leases.View, path: s.path}
	if r := j.refuse(op, false); r != nil {
		return r
	}
	held := s.hold(op, j.ops)
	s.parts = held[1:]
	held[0], _ = s.do(op, s.path)
	s.parts = nil
	s.kv.Commit()
	return &held[0]
}

// resultsAtOnce is the number of results in one allocation.
const resultsAtOnce = 16

// hold returns memory for the n results of an operation and of its parts. A few operations share the memory, unless the
// results have data: then the others would keep the data. All results of an operation are in one allocation. Otherwise an
// allocation would keep the next one, and one kept result would keep the results of all later operations.
func (s *State) hold(op *command.Op, n int) []command.Result {
	if n > resultsAtOnce/2 || reads(op) { // else the next operation may find no space
		return make([]command.Result, n)
	}
	if n > len(s.results) {
		s.results = make([]command.Result, resultsAtOnce)
	}
	held := s.results[:n:n]
	s.results = s.results[n:]
	return held
}

// reads reports whether the result of an operation may have keys and values.
func reads(op *command.Op) bool {
	switch {
	case op.Put != nil:
		return op.Put.PrevKV
	case op.Get != nil:
		return !op.Get.CountOnly
	case op.Delete != nil:
		return op.Delete.PrevKV
	case op.Txn != nil:
		for _, ops := range [...][]command.Op{op.Txn.Then, op.Txn.Else} {
			for i := range ops {
				if reads(&ops[i]) {
					return true
				}
			}
		}
	}
	return false
}

// choose evaluates the compares of a transaction, and of the nested transactions in the branches taken,
// before anything changes. The path lists the branch that each of them takes, in order of traversal.
func choose(v reader, t *command.Txn, path []bool) []bool {
	holds := true
	for i := range t.Compares {
		if !compare(v, &t.Compares[i]) {
			holds = false
			break
		}
	}
	path = append(path, holds)
	for _, op := range branch(t, holds) {
		if op.Txn != nil {
			path = choose(v, op.Txn, path)
		}
	}
	return path
}

func branch(t *command.Txn, then bool) []command.Op {
	if then {
		return t.Then
	}
	return t.Else
}

// compare reports whether a compare holds for every key of its range. If the range has no key, it is
// evaluated for a missing key.
func compare(v reader, c *command.Compare) bool {
	if c.End == "" {
		kv, _ := v.Get(c.Key, 0)
		return compareKey(c, &kv)
	}
	holds, found := true, false
	v.Ascend(c.Key, c.End, 0, func(kv mvcc.KeyValue) bool {
		found = true
		holds = compareKey(c, &kv)
		return holds
	})
	return holds && (found || compareKey(c, &mvcc.KeyValue{}))
}

// compareKey reports whether a compare holds for a key. The zero KeyValue stands for a missing key.
func compareKey(c *command.Compare, kv *mvcc.KeyValue) bool {
	if c.Target == command.Value && kv.Deleted() {
		return false // a missing key has no value: no compare of it holds, not even NotEqual
	}
	var order int
	switch c.Target {
	case command.Version:
		order = cmp.Compare(kv.Version, c.Int)
	case command.CreateRevision:
		order = cmp.Compare(kv.CreateRevision, c.Int)
	case command.ModRevision:
		order = cmp.Compare(kv.ModRevision, c.Int)
	case command.Lease:
		order = cmp.Compare(kv.Lease, c.Int)
	default:
		order = cmp.Compare(kv.Value, c.Text)
	}
	switch c.Op {
	case command.Equal:
		return order == 0
	case command.Greater:
		return order > 0
	case command.Less:
		return order < 0
	}
	return order != 0
}

func refusal(v reader, code command.Code) *command.Result {
	r := &command.Result{Code: code, Revision: v.Revision()}
	if code == command.Compacted {
		r.CompactRevision = v.CompactRevision()
	}
	return r
}

// A judge checks operations against the state before any of them.
type judge struct {
	kv     reader
	leases *lease.View
	path   []bool // of the transactions not visited yet
	ops    int    // that were visited
}

// refuse returns the result that rejects an operation, or nil.
func (j *judge) refuse(op *command.Op, nested bool) *command.Result {
	j.ops++
	switch {
	case op.Put != nil:
		p := op.Put
		if p.Lease != 0 && !j.leases.Has(p.Lease) {
			return refusal(j.kv, command.LeaseNotFound)
		}
		if p.IgnoreValue || p.IgnoreLease {
			if _, exists := j.kv.Get(p.Key, 0); !exists {
				return refusal(j.kv, command.KeyNotFound)
			}
		}
	case op.Get != nil && nested:
		// Inside a transaction a negative revision is not the latest one, but one before the
		// compaction's.
		if rev := op.Get.Revision; rev < 0 && rev < j.kv.CompactRevision() {
			return refusal(j.kv, command.Compacted)
		}
		if code := revisionCode(j.kv.CheckRevision(op.Get.Revision)); code != command.OK {
			return refusal(j.kv, code)
		}
	case op.Txn != nil:
		then := j.path[0]
		j.path = j.path[1:]
		ops := branch(op.Txn, then)
		for i := range ops {
			if r := j.refuse(&ops[i], true); r != nil {
				return r
			}
		}
	}
	return nil
}

// do executes an operation that was not rejected, and returns the rest of the path.
func (s *State) do(op *command.Op, path []bool) (r command.Result, rest []bool) {
	switch {
	case op.Put != nil:
		r = s.doPut(op.Put)
		r.Revision = s.kv.Revision() + 1
		return r, path
	case op.Get != nil:
		r = read(s.kv, op.Get, nil)
	case op.Delete != nil:
		deleted := s.delete(op.Delete.Key, op.Delete.End)
		r.Count = int64(len(deleted))
		if op.Delete.PrevKV {
			r.KVs = deleted
		}
	case op.Txn != nil:
		r.Succeeded, path = path[0], path[1:]
		ops := branch(op.Txn, r.Succeeded)
		if n := len(ops); n > 0 {
			r.Ops, s.parts = s.parts[:n:n], s.parts[n:]
		}
		for i := range ops {
			r.Ops[i], path = s.do(&ops[i], path)
		}
	}
	r.Revision = s.kv.Revision()
	if s.kv.Pending() {
		r.Revision++
	}
	return r, path
}

func (s *State) doPut(p *command.Put) (r command.Result) {
	value, leaseID := p.Value, p.Lease
	if p.IgnoreValue || p.IgnoreLease {
		// The key existed before the transaction. Validation rejects a transaction that deletes and then
		// puts it. Without that check there could be nothing to keep.
		now, _ := s.kv.Get(p.Key, 0)
		if p.IgnoreValue {
			value = now.Value
		}
		if p.IgnoreLease {
			leaseID = now.Lease
		}
	}
	prev := s.put(p.Key, value, leaseID)
	if p.PrevKV && !prev.Deleted() {
		r.KVs = []mvcc.KeyValue{prev}
	}
	return r
}
