// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// A Role is the part that a node plays in its cluster.
type Role uint8

// The roles of a node. A node that has stopped is closed, whatever it was before.
const (
	RoleFollower Role = iota
	RoleCandidate
	RoleLeader
	RoleClosed
)

func (r Role) String() string {
	if name, ok := r.name(); ok {
		return name
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

func (r Role) name() (string, bool) {
	names := [...]string{"follower", "candidate", "leader", "closed"}
	if int(r) >= len(names) {
		return "", false
	}
	return names[r], true
}

// MarshalText returns the role as String does. It fails for a value that is no role.
func (r Role) MarshalText() ([]byte, error) {
	name, ok := r.name()
	if !ok {
		return nil, fmt.Errorf("coterie: %v is not a role", r)
	}
	return []byte(name), nil
}

// UnmarshalText reads what MarshalText returns.
func (r *Role) UnmarshalText(text []byte) error {
	for role := RoleFollower; role <= RoleClosed; role++ {
		if role.String() == string(text) {
			*r = role
			return nil
		}
	}
	return fmt.Errorf("coterie: %q is not a role", text)
}

// A Status describes a node, as far as the node itself knows. In JSON, IDs, the role, durations and errors
// are text.
type Status struct {
	ID        MemberID  `json:"id"`
	Name      string    `json:"name"`
	Addr      string    `json:"addr"`    // the address that other nodes dial; empty without a network
	ClusterID ClusterID `json:"cluster"` // 0 until the cluster has admitted the node
	Role      Role      `json:"role"`
	Leader    MemberID  `json:"leader"` // 0: none is known
	// Leaderless is the time for which this node has known no leader, and 0 while it knows one. An election
	// takes one to three election timeouts.
	Leaderless time.Duration `json:"leaderless"`
	Term       uint64        `json:"term"`
	// Revision is the newest revision of the store.
	Revision int64 `json:"revision"`
	// CompactRevision is the oldest revision that can be read; -1 before the first compaction.
	CompactRevision int64 `json:"compactRevision"`
	// Committed is the log index of the newest entry that is known to be committed.
	Committed uint64 `json:"committed"`
	// Applied is the log index of the newest entry that the store has applied.
	Applied uint64 `json:"applied"`
	// Durable is the log index of the newest entry that is on this node's disk.
	Durable uint64 `json:"durable"`
	// LastContact is the time since this node heard from the leader, which bounds the age of local reads. It
	// is 0 on the leader, and negative if the node has never heard from one.
	LastContact time.Duration `json:"lastContact"`
	Voters      int           `json:"voters"`
	// VotersReachable counts the voters, including this one, that answered within the last election
	// timeout. Only a leader asks them continuously.
	VotersReachable int `json:"votersReachable"`
	// DiskRefused is the time for which the system has refused to write the log, and 0 if it does not: the
	// disk is full, or file descriptors or memory are short. The node retries, and recovers by itself.
	DiskRefused time.Duration `json:"diskRefused"`
	// DiskError is the system's error while it refuses.
	DiskError error `json:"diskError,omitempty"`
	// DiskStalled is the time that the write of the log in progress has taken, and 0 if there is none.
	DiskStalled time.Duration `json:"diskStalled"`
	Keys        int           `json:"keys"`
	Leases      int           `json:"leases"`
	Watchers    int           `json:"watchers"`
	// Bytes is the size of the store, including superseded revisions.
	Bytes int64 `json:"bytes"`
	// QuotaBytes is the size from which this node refuses writes that make the store grow; 0 if there is
	// no bound.
	QuotaBytes int64 `json:"quotaBytes"`
	// Err is the fault that stopped the node, if there was one.
	Err error `json:"err,omitempty"`
}

// A statusJSON replaces the fields of a Status that package encoding/json would not write as text.
type statusJSON struct {
	statusFields
	Leaderless  textDuration `json:"leaderless"`
	LastContact textDuration `json:"lastContact"`
	DiskRefused textDuration `json:"diskRefused"`
	DiskStalled textDuration `json:"diskStalled"`
	DiskError   textError    `json:"diskError,omitzero"`
	Err         textError    `json:"err,omitzero"`
}

// statusFields are a Status without its methods, which would call themselves.
type statusFields Status

// MarshalJSON returns the status as an object. IDs, the role, durations and errors are text.
func (s Status) MarshalJSON() ([]byte, error) {
	return json.Marshal(statusJSON{
		statusFields(s), textDuration(s.Leaderless), textDuration(s.LastContact), textDuration(s.DiskRefused),
		textDuration(s.DiskStalled), textError{s.DiskError}, textError{s.Err},
	})
}

// UnmarshalJSON reads what MarshalJSON returns. An error that it reads has the text of the original, and
// matches none of this package's.
//
// Errors: those of package encoding/json.
func (s *Status) UnmarshalJSON(b []byte) error {
	var read statusJSON
	if err := json.Unmarshal(b, &read); err != nil {
		return err
	}
	*s = Status(read.statusFields)
	s.Leaderless, s.LastContact = time.Duration(read.Leaderless), time.Duration(read.LastContact)
	s.DiskRefused, s.DiskStalled = time.Duration(read.DiskRefused), time.Duration(read.DiskStalled)
	s.DiskError, s.Err = read.DiskError.error, read.Err.error
	return nil
}

// Status describes the node, at once, in any role, and without asking other nodes.
func (n *Node) Status() Status {
	v, lead := n.views.Summary(), n.lead.Now()
	s := Status{
		ID: n.id, Name: n.cfg.Name, Addr: n.cfg.Advertise, ClusterID: ClusterID(n.identity.Load().Cluster),
		Leader: lead.Leader, Leaderless: n.lead.Vacant(), Term: lead.Term,
		Revision: v.Revision, CompactRevision: v.CompactRevision, Applied: v.Index,
		Voters: v.Members.Voters(), VotersReachable: n.roster.reachable(v, 0),
		Keys: v.Keys, Leases: v.Granted, Watchers: n.hub.Len(), Bytes: v.Bytes,
		QuotaBytes: n.cfg.QuotaBytes,
	}
	n.raft().describe(&s)
	if err := n.alive(context.Background()); err != nil {
		s.Role, s.Leader = RoleClosed, 0
		s.Err = n.life.Fault()
	}
	return s
}

// Leader returns the leader that this node knows, or 0 if it knows none or has stopped. It asks no other node, so the
// leader may have changed. It returns the same as [Status.Leader] at the cost of a load from memory, for a program that
// needs the leader in every call.
func (n *Node) Leader() MemberID {
	if n.life.Err() != nil {
		return 0
	}
	return n.lead.Now().Leader
}

// Header returns the header that a response of this node would have now. Its revision is the newest one that this
// node has applied. Header asks no other node, and costs less than Status.
func (n *Node) Header() Header { return n.header(n.views.Summary().Revision) }

// Limits are the bounds of a node for the calls of its program.
type Limits struct {
	// ElectionTimeout is Config.ElectionTimeout. A time limit of less than several of them may end while the
	// cluster elects a leader, and so may a lease.
	ElectionTimeout time.Duration
	MaxTxnOps       int // Config.MaxTxnOps
	MaxRequestBytes int // Config.MaxRequestBytes
}

// Limits returns the bounds of this node, which never change: those of its Config, or the defaults. A program
// that passes on calls of others can check these calls before it calls the node.
func (n *Node) Limits() Limits {
	return Limits{n.cfg.ElectionTimeout, n.cfg.MaxTxnOps, n.cfg.MaxRequestBytes}
}

// Check verifies the invariants of this replica: the order of its trees, its history, its counters, and
// that leases and keys agree. It reads the state at the time of the call while writes continue, and takes
// time in proportion to that state.
//
// Errors: ErrCorrupt, which names the violation; ctx's cause; ErrClosed if a fault stopped the node.
func (n *Node) Check(ctx context.Context) error {
	if err := n.alive(ctx); err != nil {
		return err
	}
	v := n.views.Load()
	return n.life.await(ctx, func() error {
		if err := v.Check(); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil
	})
}

// A HashResponse answers [Node.Hash].
type HashResponse struct {
	Header
	// Hash is the hash of all key-values as they were at HashRevision. It is the same on every node.
	Hash         uint64 `json:"hash,string"`
	HashRevision int64  `json:"hashRevision"`
	// CompactRevision is the oldest revision that this node keeps.
	CompactRevision int64 `json:"compactRevision"`
}

// Hash returns a hash of the key-values as they were at a revision; 0 means the newest one that this node
// has applied. The result is the same on every node, whatever each has compacted. Hash asks no other node,
// and takes time in proportion to the store.
//
// Errors: *CompactedError, ErrFutureRevision, ctx's cause, ErrClosed.
func (n *Node) Hash(ctx context.Context, rev int64) (*HashResponse, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	v := n.views.Load()
	if err := revisionError(v, rev); err != nil {
		return nil, err
	}
	if rev <= 0 {
		rev = v.KV.Revision()
	}
	var hash uint64 // not a field of the response: fn may outlive the call
	if err := n.life.await(ctx, func() error { hash = v.KV.Hash(rev); return nil }); err != nil {
		return nil, err
	}
	return &HashResponse{
		Header: n.header(v.KV.Revision()), Hash: hash, HashRevision: rev, CompactRevision: v.KV.CompactRevision(),
	}, nil
}
