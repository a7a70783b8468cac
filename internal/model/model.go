// SPDX-License-Identifier: Apache-2.0

// Package model is the replicated data by etcd's rules, written to be right at sight: a list of
// every change ever made, from which the state at any revision is found by replaying. Tests compare
// with it what has to be fast, and histories can be checked against it. It shares the types of
// commands, results and versions with the packages that it judges, and none of their code.
package model

import (
	"maps"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A Model is the data that every node of a cluster holds: the store, the leases, and what came of
// each proposal. Versions that it returns are not to be changed.
type Model struct {
	changes   []*mvcc.KeyValue // all that were ever made; those of the revision to come are last
	now       keys             // what replaying all of them gives
	revision  int64
	compacted int64
	leases    map[int64]int64 // TTLs, by ID
	proposers map[uint64]*proposer
}

// keys are the keys that exist.
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
	return &Model{now: keys{}, revision: 1, compacted: -1, leases: map[int64]int64{}, proposers: map[uint64]*proposer{}}
}

// Clone returns a copy that goes its own way.
func (m *Model) Clone() *Model {
	c := *m
	c.changes, c.now, c.leases = slices.Clone(m.changes), maps.Clone(m.now), maps.Clone(m.leases)
	c.proposers = map[uint64]*proposer{}
	for id, p := range m.proposers {
		c.proposers[id] = &proposer{p.lowest, maps.Clone(p.results)}
	}
	return &c
}

// Revision returns the newest revision. It is 1 before the first change.
func (m *Model) Revision() int64 { return m.revision }

// CompactRevision returns the revision of the last compaction, -1 before the first.
func (m *Model) CompactRevision() int64 { return m.compacted }

// Readable returns OK if the state at rev can be read, or else Compacted or FutureRevision. Zero
// and less stand for the latest.
func (m *Model) Readable(rev int64) command.Code {
	switch {
	case rev > m.revision:
		return command.FutureRevision
	case rev > 0 && rev < m.compacted:
		return command.Compacted
	}
	return command.OK
}

// at returns the keys as they were at rev; if it is not positive as they are, changes that are not
// committed included.
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

// contains reports whether the range [key, end) has k. An empty end makes it the single key, "\x00"
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

// Range returns the keys of a range in their order, as they were at rev; if it is not positive as
// they are, changes that are not committed included.
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

// Changes returns the changes of the revisions from one to another, both included, in the order in
// which they were made, tombstones among them. There are none of what is compacted or not
// committed.
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

// Previous returns what a change changed: the key as it was one revision before. It is nil if the
// key did not exist or that revision is compacted.
func (m *Model) Previous(change *mvcc.KeyValue) *mvcc.KeyValue {
	before := change.ModRevision - 1
	if before < 1 || before < m.compacted {
		return nil
	}
	return m.Get(change.Key, before)
}

// Kept returns the versions that somebody may still see, in the order in which they were made: all
// changes from the compact revision on, and those before that were current then.
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

// Put stores a value under a key, as part of the revision to come, and returns what was there.
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

// Delete deletes the keys of a range, as part of the revision to come, and returns what they were.
func (m *Model) Delete(key, end string) (deleted []*mvcc.KeyValue) {
	deleted = m.Range(key, end, 0)
	for _, kv := range deleted {
		m.change(&mvcc.KeyValue{Key: kv.Key, ModRevision: m.revision + 1})
	}
	return deleted
}

// Pending reports whether the revision to come has changes.
func (m *Model) Pending() bool {
	return len(m.changes) > 0 && m.changes[len(m.changes)-1].ModRevision > m.revision
}

// Commit makes the revision to come, if it has changes.
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
