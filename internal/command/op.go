// SPDX-License-Identifier: Apache-2.0

// Package command is what the log and snapshots carry: commands, their results, the entries of the
// log and the blocks of a snapshot, with their encodings. The same value has the same bytes on
// every node, and a reader skips fields that it does not know.
package command

import "github.com/coterie-kv/coterie/internal/run"

// Put stores a value under a key.
type Put struct {
	Key, Value               string
	Lease                    int64
	PrevKV                   bool // the result has the previous version
	IgnoreValue, IgnoreLease bool // keep the key's present one
}

// Get reads a range.
type Get struct {
	Key, End                             string
	Revision, Limit                      int64
	SortBy                               SortTarget
	Order                                SortOrder
	KeysOnly, CountOnly                  bool
	MinModRevision, MaxModRevision       int64
	MinCreateRevision, MaxCreateRevision int64
}

// Delete deletes a range.
type Delete struct {
	Key, End string
	PrevKV   bool
}

// Compare is a condition on a key, or on every key of a range. The numbers of targets, operators,
// and sorts are etcd's.
type Compare struct {
	Key, End string
	Target   Target
	Op       CompareOp
	Int      int64  // what to compare with, unless Target is Value
	Text     string // what to compare with if it is
}

// A Target is what a Compare looks at.
type Target uint8

// The targets.
const (
	Version Target = iota
	CreateRevision
	ModRevision
	Value
	Lease
)

// A CompareOp is how a Compare compares.
type CompareOp uint8

// The operators.
const (
	Equal CompareOp = iota
	Greater
	Less
	NotEqual
)

// A SortTarget is what a Get sorts by.
type SortTarget uint8

// What a Get can sort by.
const (
	SortByKey SortTarget = iota
	SortByVersion
	SortByCreateRevision
	SortByModRevision
	SortByValue
)

// A SortOrder is the direction of a sort.
type SortOrder uint8

// The orders.
const (
	SortNone SortOrder = iota
	SortAscend
	SortDescend
)

// Txn runs one of two lists of operations.
type Txn struct {
	Compares   []Compare
	Then, Else []Op
}

// An Op is one operation: exactly one field is set.
type Op struct {
	Put    *Put
	Get    *Get
	Delete *Delete
	Txn    *Txn
}

// A Command is one change of the replicated state: exactly one field is set, or one of its Op.
type Command struct {
	Op
	Compact  *Compact
	Grant    *Grant
	Revoke   *Revoke
	Expire   *Expire
	Register bool   // enters the proposer into the table that tells repeated proposals
	Applied  uint64 // with Register: what its node had applied when it was sent
	Term     bool   // the first command of a leader's term
	Epoch    uint64 // with Term: the cluster's, if it has none yet
	Enroll   *Enroll
}

// Compact forgets history.
type Compact struct{ Revision int64 }

// Grant makes a lease. TTL is in nanoseconds.
type Grant struct{ ID, TTL int64 }

// Revoke ends a lease and deletes its keys.
type Revoke struct{ ID int64 }

// Expire ends leases whose time was over, as the leader of Term saw it. In an entry of another term
// it does nothing.
type Expire struct {
	IDs  []int64
	Term uint64
}

// Enroll puts on record what the configuration of the cluster does not say of a member. In an entry of
// another term than Term, or of who is no member, it does nothing.
type Enroll struct {
	ID          uint64
	Name, Addr  string
	Incarnation uint64     // of its data; 0: not known yet
	Voter       bool       // it is to have a vote
	Run         run.Number // the last of that data
	Term        uint64
}

// A Proposal is a command with what tells it from others: the proposer, a random number, and a
// sequence that counts up. Lowest is the least sequence that the proposer still waits for. Proposer
// 0 speaks for the cluster, and its commands bear repetition.
type Proposal struct {
	Proposer, Seq, Lowest uint64
	Command               Command
}
