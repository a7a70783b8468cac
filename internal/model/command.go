// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"maps"
	"slices"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A proposer is one run of a node, which may repeat proposals.
type proposer struct {
	lowest  uint64 // it waits for no lower sequence number
	results map[uint64]*command.Result
}

// Propose executes a proposal in an entry of term, unless it was executed before. It returns the result,
// or nil if the proposer does not wait for one. The model never evicts proposers.
func (m *Model) Propose(term uint64, p *command.Proposal) *command.Result {
	known := m.proposers[p.Proposer]
	switch {
	case p.Proposer == 0:
		m.Execute(term, &p.Command)
		return nil
	case p.Command.Register:
		if known == nil {
			m.proposers[p.Proposer] = &proposer{results: map[uint64]*command.Result{}}
		}
		return &command.Result{Revision: m.revision}
	case known == nil:
		return m.refusal(command.UnknownProposer)
	}
	known.lowest = max(known.lowest, p.Lowest)
	if p.Seq < known.lowest {
		return nil
	}
	if known.results[p.Seq] == nil {
		known.results[p.Seq] = m.Execute(term, &p.Command)
	}
	return known.results[p.Seq]
}

// Result returns the result of a proposal. It returns nil if the proposal was not executed, or if its
// proposer no longer waits for it. Sequence number 0 is the registration.
func (m *Model) Result(id, seq uint64) *command.Result {
	known := m.proposers[id]
	switch {
	case known == nil || seq != 0 && seq < known.lowest:
		return nil
	case seq == 0:
		return &command.Result{Revision: m.revision}
	}
	return known.results[seq]
}

// Execute executes a command in an entry of term.
func (m *Model) Execute(term uint64, c *command.Command) *command.Result {
	code := command.OK
	if c.As != nil {
		if code = m.permit(c); code != command.OK {
			return m.refusal(code)
		}
	}
	switch {
	case c.Op != (command.Op{}):
		return m.run(&c.Op)
	case c.Compact != nil:
		code = m.Compact(c.Compact.Revision)
	case c.Grant != nil:
		if _, exists := m.leases[c.Grant.ID]; exists {
			code = command.LeaseExists
		} else {
			m.leases[c.Grant.ID] = c.Grant.TTL
		}
	case c.Revoke != nil:
		code = m.end(c.Revoke.ID)
	case c.Alarm != nil:
		return &command.Result{Revision: m.revision, Count: m.alarm(c.Alarm)}
	case c.Auth != nil:
		code = m.auth.change(c.Auth)
	case c.Expire != nil && c.Expire.Term == term:
		for _, id := range c.Expire.IDs {
			m.end(id)
		}
	}
	return m.refusal(code)
}

// alarm raises or clears an alarm, and returns the number of alarms that it has changed.
func (m *Model) alarm(c *command.Alarm) int64 {
	a := [2]uint64{c.Member, c.Kind}
	if m.alarms[a] != c.Clear {
		return 0
	}
	if c.Clear {
		delete(m.alarms, a)
	} else {
		m.alarms[a] = true
	}
	return 1
}

// Alarms returns the number of alarms that are raised.
func (m *Model) Alarms() int { return len(m.alarms) }

// refusal returns a result that has only a code.
func (m *Model) refusal(code command.Code) *command.Result {
	r := &command.Result{Code: code, Revision: m.revision}
	if code == command.Compacted {
		r.CompactRevision = m.compacted
	}
	return r
}

// Leases returns the TTLs of the leases, by their IDs.
func (m *Model) Leases() map[int64]int64 { return maps.Clone(m.leases) }

// Attached returns the keys of a lease in their order.
func (m *Model) Attached(id int64) (attached []string) {
	for key, kv := range m.now {
		if kv.Lease == id {
			attached = append(attached, key)
		}
	}
	slices.Sort(attached)
	return attached
}

// end ends a lease and deletes its keys, all in one revision.
func (m *Model) end(id int64) command.Code {
	if _, exists := m.leases[id]; !exists {
		return command.LeaseNotFound
	}
	for _, key := range m.Attached(id) {
		m.Delete(key, "")
	}
	m.Commit()
	delete(m.leases, id)
	return command.OK
}

// A plan is an operation with the branches that its transactions have chosen.
type plan struct {
	*command.Op
	succeeded bool
	branch    []plan
}

// run chooses all branches, then checks them, and only then changes anything.
func (m *Model) run(op *command.Op) *command.Result {
	p := m.choose(op)
	if code := m.wrong(p, false); code != command.OK {
		return m.refusal(code)
	}
	r := m.do(p)
	m.Commit()
	return &r
}

func (m *Model) choose(op *command.Op) plan {
	p := plan{Op: op}
	if op.Txn == nil {
		return p
	}
	p.succeeded = true
	for _, c := range op.Txn.Compares {
		p.succeeded = p.succeeded && m.holds(c)
	}
	branch := op.Txn.Else
	if p.succeeded {
		branch = op.Txn.Then
	}
	for i := range branch {
		p.branch = append(p.branch, m.choose(&branch[i]))
	}
	return p
}

// holds reports whether a compare holds for every key of its range. An empty range is treated as one key
// with zero fields and a value that cannot be compared.
func (m *Model) holds(c command.Compare) bool {
	found := m.Range(c.Key, c.End, 0)
	if len(found) == 0 {
		if c.Target == command.Value {
			return false
		}
		found = []*mvcc.KeyValue{{}}
	}
	for _, kv := range found {
		order := map[command.Target]int{
			command.Version:        cmp.Compare(kv.Version, c.Int),
			command.CreateRevision: cmp.Compare(kv.CreateRevision, c.Int),
			command.ModRevision:    cmp.Compare(kv.ModRevision, c.Int),
			command.Lease:          cmp.Compare(kv.Lease, c.Int),
			command.Value:          cmp.Compare(kv.Value, c.Text),
		}[c.Target]
		holds := map[command.CompareOp]bool{
			command.Equal: order == 0, command.NotEqual: order != 0, command.Less: order < 0, command.Greater: order > 0,
		}[c.Op]
		if !holds {
			return false
		}
	}
	return true
}

// wrong returns the code that rejects an operation, or OK.
func (m *Model) wrong(p plan, nested bool) command.Code {
	switch {
	case p.Put != nil:
		if _, exists := m.leases[p.Put.Lease]; p.Put.Lease != 0 && !exists {
			return command.LeaseNotFound
		}
		if (p.Put.IgnoreValue || p.Put.IgnoreLease) && m.now[p.Put.Key] == nil {
			return command.KeyNotFound
		}
	case p.Get != nil:
		if rev := p.Get.Revision; nested && rev < 0 && rev < m.compacted {
			return command.Compacted // it means the latest revision only outside of a transaction
		}
		return m.Readable(p.Get.Revision)
	}
	for _, op := range p.branch {
		if code := m.wrong(op, true); code != command.OK {
			return code
		}
	}
	return command.OK
}

// do executes an operation as part of the next revision.
func (m *Model) do(p plan) (r command.Result) {
	switch {
	case p.Put != nil:
		r.KVs = m.put(p.Put)
	case p.Get != nil:
		r = m.get(p.Get)
	case p.Delete != nil:
		deleted := m.Delete(p.Delete.Key, p.Delete.End)
		r.Count = int64(len(deleted))
		if p.Delete.PrevKV {
			r.KVs = values(deleted)
		}
	case p.Txn != nil:
		r.Succeeded = p.succeeded
		for _, op := range p.branch {
			r.Ops = append(r.Ops, m.do(op))
		}
	}
	r.Revision = m.revision
	if m.Pending() {
		r.Revision++
	}
	return r
}

func (m *Model) put(p *command.Put) []mvcc.KeyValue {
	value, lease := p.Value, p.Lease
	if kv := m.now[p.Key]; kv != nil {
		if p.IgnoreValue {
			value = kv.Value
		}
		if p.IgnoreLease {
			lease = kv.Lease
		}
	}
	prev := m.Put(p.Key, value, lease)
	if !p.PrevKV || prev == nil {
		return nil
	}
	return []mvcc.KeyValue{*prev}
}

func (m *Model) get(g *command.Get) (r command.Result) {
	found := m.Range(g.Key, g.End, g.Revision)
	r.Count = int64(len(found)) // independent of limit and filters
	if g.CountOnly {
		return r
	}
	filtered := g.MinModRevision != 0 || g.MaxModRevision != 0 || g.MinCreateRevision != 0 || g.MaxCreateRevision != 0
	if g.Limit > 0 && g.Order == command.SortNone && !filtered && r.Count > g.Limit {
		// etcd takes one key more than the limit before it sorts, if a target but no order is given.
		found = found[:g.Limit+1]
	}
	found = slices.DeleteFunc(found, func(kv *mvcc.KeyValue) bool {
		return kv.ModRevision < g.MinModRevision || g.MaxModRevision != 0 && kv.ModRevision > g.MaxModRevision ||
			kv.CreateRevision < g.MinCreateRevision || g.MaxCreateRevision != 0 && kv.CreateRevision > g.MaxCreateRevision
	})
	slices.SortStableFunc(found, func(a, b *mvcc.KeyValue) int {
		order := map[command.SortTarget]int{
			command.SortByKey:            cmp.Compare(a.Key, b.Key),
			command.SortByVersion:        cmp.Compare(a.Version, b.Version),
			command.SortByCreateRevision: cmp.Compare(a.CreateRevision, b.CreateRevision),
			command.SortByModRevision:    cmp.Compare(a.ModRevision, b.ModRevision),
			command.SortByValue:          cmp.Compare(a.Value, b.Value),
		}[g.SortBy]
		if g.Order == command.SortDescend {
			return -order
		}
		return order
	})
	if g.Limit > 0 && int64(len(found)) > g.Limit {
		found, r.More = found[:g.Limit], true
	}
	for _, kv := range found {
		returned := *kv
		if g.KeysOnly {
			returned.Value = ""
			if g.SortBy != command.SortByValue {
				returned.Lease = 0 // etcd takes the key from an index that has no leases
			}
		}
		r.KVs = append(r.KVs, returned)
	}
	return r
}

func values(kvs []*mvcc.KeyValue) (values []mvcc.KeyValue) {
	for _, kv := range kvs {
		values = append(values, *kv)
	}
	return values
}
