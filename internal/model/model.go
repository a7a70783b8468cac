// SPDX-License-Identifier: Apache-2.0

// Package model implements the replicated data by etcd's rules in the simplest possible way: it keeps a
// list of all changes and replays it to find the state at any revision. Tests compare the fast
// implementation with it, and check histories against it. It shares the types of commands, results and
// versions with the packages that it checks, but no code.
package model

import (
	"maps"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A Model is the data on every node of a cluster: the store, the leases, the users and roles, and the result of
// each proposal.
// Callers must not change the versions that it returns.
type Model struct {
	changes   []*mvcc.KeyValue // all changes ever made; those of the next revision are last
	now       keys             // the result of replaying all changes
	revision  int64
	compacted int64
	leases    map[int64]int64 // TTLs, by ID
	auth      Auth
	alarms    map[[2]uint64]bool // by member and kind
	proposers map[uint64]*proposer
}

// keys are the existing keys.
type keys map[string]*mvcc.KeyValue

func (k keys) replay(change *mvcc.KeyValue) {
	if change.Version == 0 {
		delete(k, change.Key)
	} else {
		k[change.Key] = change
	}
}

// New returns the data before the first command.
func New() *Model {
	return &Model{now: keys{}, revision: 1, compacted: -1, leases: map[int64]int64{}, auth: newAuth(), alarms: map[[2]uint64]bool{}, proposers: map[uint64]*proposer{}}
}

// Clone returns an independent copy.
func (m *Model) Clone() *Model {
	c := *m
	c.changes, c.now, c.leases = slices.Clone(m.changes), maps.Clone(m.now), maps.Clone(m.leases)
	c.auth, c.alarms = m.auth.clone(), maps.Clone(m.alarms)
	c.proposers = map[uint64]*proposer{}
	for id, p := range m.proposers {
		c.proposers[id] = &proposer{p.lowest, maps.Clone(p.results)}
	}
	return &c
}

// Revision returns the newest revision. It is 1 before the first change.
func (m *Model) Revision() int64 { return m.revision }

// CompactRevision returns the revision of the last compaction, or -1 before the first.
func (m *Model) CompactRevision() int64 { return m.compacted }

// Readable returns OK if the state at rev can be read, otherwise Compacted or FutureRevision. Zero and
// negative values mean the latest.
func (m *Model) Readable(rev int64) command.Code {
	switch {
	case rev > m.revision:
		return command.FutureRevision
	case rev > 0 && rev < m.compacted:
		return command.Compacted
	}
	return command.OK
}

// at returns the keys as they were at rev. If rev is not positive, it returns the current ones, including
// uncommitted changes.
func (m *Model) at(rev int64) keys {
	if rev <= 0 {
		return m.now
	}
	then := keys{}
	for _, change := range m.changes {
		if change.ModRevision <= rev {
			then.replay(change)
		}
	}
	return then
}

// contains reports whether k is in the range [key, end). An empty end means the single key, and "\x00"
// every key from key on.
func contains(key, end, k string) bool {
	switch end {
	case "":
		return k == key
	case "\x00":
		return k >= key
	}
	return k >= key && k < end
}

// Range returns the keys of a range in order, as they were at rev. If rev is not positive, it returns the
// current ones, including uncommitted changes.
func (m *Model) Range(key, end string, rev int64) (found []*mvcc.KeyValue) {
	for k, kv := range m.at(rev) {
		if contains(key, end, k) {
			found = append(found, kv)
		}
	}
	slices.SortFunc(found, func(a, b *mvcc.KeyValue) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// Get returns a key as it was at rev, or nil.
func (m *Model) Get(key string, rev int64) *mvcc.KeyValue { return m.at(rev)[key] }

// Changes returns the changes of the revisions between from and to, both included, in the order in which
// they were made, including tombstones. It omits compacted and uncommitted changes.
func (m *Model) Changes(from, to int64) (found []*mvcc.KeyValue) {
	for _, change := range m.changes {
		rev := change.ModRevision
		if rev >= from && rev <= to && rev >= m.compacted && rev <= m.revision {
			found = append(found, change)
		}
	}
	return found
}

// Next returns a key's first change after a revision, or nil.
func (m *Model) Next(key string, after int64) *mvcc.KeyValue {
	for _, change := range m.Changes(after+1, m.revision) {
		if change.Key == key {
			return change
		}
	}
	return nil
}

// Previous returns the key as it was one revision before a change, or nil if it did not exist or that
// revision is compacted.
func (m *Model) Previous(change *mvcc.KeyValue) *mvcc.KeyValue {
	before := change.ModRevision - 1
	if before < 1 || before < m.compacted {
		return nil
	}
	return m.Get(change.Key, before)
}

// Kept returns the versions that are still visible, in the order in which they were made: all changes
// from the compact revision on, and earlier ones that were current then.
func (m *Model) Kept() (found []*mvcc.KeyValue) {
	current := m.at(max(m.compacted, 1))
	for _, change := range m.changes {
		if change.ModRevision >= m.compacted || current[change.Key] == change {
			found = append(found, change)
		}
	}
	return found
}

func (m *Model) change(kv *mvcc.KeyValue) {
	m.changes = append(m.changes, kv)
	m.now.replay(kv)
}

// Put stores a value under a key, as part of the next revision, and returns the previous version.
func (m *Model) Put(key, value string, lease int64) (prev *mvcc.KeyValue) {
	kv := mvcc.KeyValue{
		Key: key, Value: value, Lease: lease, CreateRevision: m.revision + 1, ModRevision: m.revision + 1, Version: 1,
	}
	if prev = m.now[key]; prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
	}
	m.change(&kv)
	return prev
}

// Delete deletes the keys of a range, as part of the next revision, and returns their previous versions.
func (m *Model) Delete(key, end string) (deleted []*mvcc.KeyValue) {
	deleted = m.Range(key, end, 0)
	for _, kv := range deleted {
		m.change(&mvcc.KeyValue{Key: kv.Key, ModRevision: m.revision + 1})
	}
	return deleted
}

// Pending reports whether the next revision has changes.
func (m *Model) Pending() bool {
	return len(m.changes) > 0 && m.changes[len(m.changes)-1].ModRevision > m.revision
}

// Commit ends the next revision, if it has changes.
func (m *Model) Commit() {
	if m.Pending() {
		m.revision++
	}
}

// Compact makes the revisions before rev unreadable.
func (m *Model) Compact(rev int64) command.Code {
	switch {
	case rev <= m.compacted:
		return command.Compacted
	case rev > m.revision:
		return command.FutureRevision
	}
	m.compacted = rev
	return command.OK
}
