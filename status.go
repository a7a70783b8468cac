// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
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

// Status is what a node knows by itself.
type Status struct {
	ID        MemberID
	Name      string
	Addr      string    // what other nodes dial; empty without a network
	ClusterID ClusterID // 0: of a node that was not let in yet
	Role      Role
	Leader    MemberID // 0: none known
	// Leaderless is how long this node has known no leader; 0 while it knows one. An election takes one
	// to three election timeouts.
	Leaderless time.Duration
	Term       uint64
	// Revision and CompactRevision are the store's newest revision and the oldest that can be read;
	// -1 before the first compaction.
	Revision, CompactRevision int64
	// Committed, Applied and Durable are log indexes: of the newest entry known to be committed, of
	// the newest that the store has applied, and of the newest that is on this node's disk.
	Committed, Applied, Durable uint64
	// LastContact is how long ago the leader was heard: the age of local reads. 0 on the leader;
	// negative if none was ever heard.
	LastContact time.Duration
	// VotersReachable are the voters, this one among them, that answered within the last election
	// timeout; only a leader asks them all the time.
	Voters, VotersReachable int
	// DiskRefused is how long the system has refused to write the log, 0 if it does not: for lack of room
	// on the disk, file descriptors, or memory. DiskError is what it says. The node tries again and
	// again, and goes on by itself.
	DiskRefused time.Duration
	DiskError   error
	// DiskStalled is how long the write to the log has taken that is under way, 0 if none is.
	DiskStalled            time.Duration
	Keys, Leases, Watchers int
	// Bytes is what the store holds, superseded revisions included; QuotaBytes is how much it may
	// before this node refuses what makes it grow, 0 if there is no such bound.
	Bytes, QuotaBytes int64
	// Err is why the node stopped by itself, if it did.
	Err error
}

// Status tells about the node, at once, in any state, and without asking others.
func (n *Node) Status() Status {
	v, lead := n.views.Load(), n.lead.Now()
	s := Status{
		ID: n.id, Name: n.cfg.Name, Addr: n.cfg.Advertise, ClusterID: ClusterID(n.identity.Load().Cluster),
		Leader: lead.Leader, Leaderless: n.lead.Vacant(), Term: lead.Term,
		Revision: v.KV.Revision(), CompactRevision: v.KV.CompactRevision(), Applied: v.Index,
		Voters: v.Members.Voters(), VotersReachable: n.roster.reachable(v, 0),
		Keys: v.KV.Keys(), Leases: v.Leases.Len(), Watchers: n.hub.Len(), Bytes: v.KV.Bytes(),
		QuotaBytes: n.cfg.QuotaBytes,
	}
	n.raft().describe(&s)
	if err := n.alive(context.Background()); err != nil {
		s.Role, s.Leader = RoleClosed, 0
		s.Err = n.life.Fault()
	}
	return s
}

// Check verifies the invariants of this replica: the order of its trees, its history, its counters,
// and that leases and keys agree. It reads the state as it is now, while writes go on, and takes
// time in proportion to it.
//
// Errors: ErrCorrupt, with what was found; ctx's cause; ErrClosed when the node stopped by a fault.
func (n *Node) Check(ctx context.Context) error {
	if err := n.alive(ctx); err != nil {
		return err
	}
	v := n.views.Load()
	return n.inBackground(ctx, func() error {
		if err := v.Check(); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil
	})
}

// A HashResponse answers [Node.Hash].
type HashResponse struct {
	Header
	// Hash is of all key-values as they were at HashRevision: equal on every node.
	Hash         uint64
	HashRevision int64
	// CompactRevision is the oldest revision that this node keeps.
	CompactRevision int64
}

// Hash hashes the key-values as they were at a revision, 0 for the newest that this node has
// applied: on every node with the same result, whatever it has compacted. It asks no other node,
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
	if err := n.inBackground(ctx, func() error { hash = v.KV.Hash(rev); return nil }); err != nil {
		return nil, err
	}
	return &HashResponse{
		Header: n.header(v.KV.Revision()), Hash: hash, HashRevision: rev, CompactRevision: v.KV.CompactRevision(),
	}, nil
}

// inBackground returns what fn returns, or why the call ends as soon as ctx ends or the node closes;
// fn then goes on for a while and its result is dropped.
func (n *Node) inBackground(ctx context.Context, fn func() error) error {
	result := make(chan error, 1)
	go func() { result <- fn() }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.life.Closing():
		return n.life.Err()
	}
}
