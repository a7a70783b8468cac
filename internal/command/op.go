// SPDX-License-Identifier: Apache-2.0

// Package command defines the contents of the log and of snapshots: commands, their results, log entries
// and the blocks of a snapshot, with their encodings. Equal values have equal encodings on every node,
// and a reader skips unknown fields.
package command

import "github.com/coterie-kv/coterie/internal/run"

// Put stores a value under a key.
type Put struct {
	Key, Value               string
	Lease                    int64
	PrevKV                   bool // the result includes the previous version
	IgnoreValue, IgnoreLease bool // keep the key's current one
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

// Compare is a condition on a key, or on every key of a range. Targets, operators and sorts have the same
// numbers as in etcd.
type Compare struct {
	Key, End string
	Target   Target
	Op       CompareOp
	Int      int64  // the operand, unless Target is Value
	Text     string // the operand if Target is Value
}

// A Target is the property that a Compare compares.
type Target uint8

// The targets.
const (
	Version Target = iota
	CreateRevision
	ModRevision
	Value
	Lease
)

// A CompareOp is the operator of a Compare.
type CompareOp uint8

// The operators.
const (
	Equal CompareOp = iota
	Greater
	Less
	NotEqual
)

// A SortTarget is the property by which a Get sorts.
type SortTarget uint8

// The sort targets.
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

// A Command is one change of the replicated state: exactly one field is set, or one of its Op, and As besides.
type Command struct {
	Op
	As       *As // the user that executes the command; nil for the program that embeds a node
	Compact  *Compact
	Grant    *Grant
	Revoke   *Revoke
	Expire   *Expire
	Enroll   *Enroll
	Auth     *Auth
	Alarm    *Alarm
	Register bool   // adds the proposer to the table that detects repeated proposals
	Term     bool   // the first command of a leader's term
	Applied  uint64 // with Register: the index that its node had applied when it was sent
	Epoch    uint64 // with Term: the epoch of the cluster, if it has none yet
}

// As is a user that executes a command: an operation, or a Compact, Grant, Revoke or Auth. The state checks the
// user's permissions when it applies the command.
type As struct {
	User     string // empty if the caller has not authenticated
	Revision uint64 // of the users and roles, if a later one rejects the command; 0 if none does
}

// Compact removes history.
type Compact struct{ Revision int64 }

// Grant makes a lease. TTL is in nanoseconds.
type Grant struct{ ID, TTL int64 }

// Revoke ends a lease and deletes its keys.
type Revoke struct{ ID int64 }

// Expire ends leases that had expired for the leader of Term. In an entry of another term it does
// nothing.
type Expire struct {
	IDs  []int64
	Term uint64
}

// Alarm raises or clears an alarm of a member. It changes nothing if the alarm is raised, or cleared, already. The
// member need not exist.
type Alarm struct {
	Member uint64
	Kind   uint64
	Clear  bool
}

// Enroll records the facts about a member that the cluster's configuration does not contain. It does
// nothing in an entry of another term than Term, or if the node is not a member.
type Enroll struct {
	ID          uint64
	Name, Addr  string
	Incarnation uint64     // of its data; 0: not known yet
	Voter       bool       // the member is meant to have a vote
	Run         run.Number // the last run of that data
	Term        uint64
	// Start identifies the opening of the node that its metadata is of. It is 0 in the entries of versions
	// without metadata. Metadata is encoded; it replaces that of the member if Described is true.
	Start     uint64
	Described bool
	Metadata  string
}

// A Proposal is a command with its identification: the proposer, a random number, and a sequence number
// that increases. Lowest is the lowest sequence number that the proposer still waits for. Proposer 0 is
// the cluster itself; its commands may be applied repeatedly.
type Proposal struct {
	Proposer, Seq, Lowest uint64
	Command               Command
}
