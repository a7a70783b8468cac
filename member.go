// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie/internal/leader"
	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/metadata"
	"github.com/coterie-kv/coterie/internal/state"
)

// A Member is a member of the cluster.
type Member struct {
	ID     MemberID `json:"id"`
	Name   string   `json:"name"`
	Addr   string   `json:"addr"`   // the address that other nodes dial
	Voter  bool     `json:"voter"`  // the member has a vote; it serves all calls in any case
	Leader bool     `json:"leader"` // the member leads, as far as the node that was asked knows
	// Generation is how often a member of that ID was removed from the cluster before. With the ID it identifies the member
	// for good. Versions without it do not count removals.
	Generation uint64 `json:"generation,omitempty"`
	// Metadata is that of Config.Metadata and [Node.UpdateMetadata]; nil if there is none.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Members returns the members of the cluster, in the order of their IDs: founders, nodes that joined, and
// members that were added, even if their nodes have never been started. It asks the leader, like a
// linearizable read, unless [WithSerializable] is given. The caller owns the result.
//
// Errors: those of [Node.Ready].
func (n *Node) Members(ctx context.Context, opts ...MembersOption) ([]Member, error) {
	var o membersOptions
	for _, opt := range opts {
		opt.members(&o)
	}
	v, err := n.reads.view(ctx, &getOptions{serializable: o.serializable})
	if err != nil {
		return nil, err
	}
	leader := n.lead.Now().Leader
	members := make([]Member, 0, len(v.Members))
	for _, m := range v.Members {
		members = append(members, publicMember(m, &v.Summary, leader))
	}
	return members, nil
}

func publicMember(m state.Member, v *state.Summary, leader MemberID) Member {
	id := MemberID(m.ID)
	return Member{
		ID: id, Name: m.Name, Addr: m.Addr, Voter: m.Voter, Leader: id == leader, Generation: v.Removals.Of(m.ID),
		Metadata: metadata.Decode(m.Metadata),
	}
}

// A MemberOption is an option of [Node.AddMember].
type MemberOption interface{ member(*memberOptions) }

type memberOptions struct{ nonVoter, empty bool }

type nonVoter struct{}

func (nonVoter) member(o *memberOptions) { o.nonVoter = true }

// WithNonVoter makes AddMember add a member that never gets a vote by itself. [Node.PromoteMember]
// can give it one later.
func WithNonVoter() MemberOption { return nonVoter{} }

type emptyDirectory struct{}

func (emptyDirectory) member(o *memberOptions) { o.empty = true }

// WithEmptyDirectory makes AddMember add a member with a node that must start with an empty directory. A node that was
// removed under that name, and was down at that time, then cannot continue with its old one: it stops with
// ErrMemberNotFound. Leaders of a version without the option ignore it.
func WithEmptyDirectory() MemberOption { return emptyDirectory{} }

// AddMember adds a member before its node is started. A node with that name and Config.Join is then
// let in, at any address. It is optional: a node that joins becomes a member by itself. The member has
// no vote at first, so it does not count for the majority. It gets one when it has caught up, unless
// the call has [WithNonVoter]. The ID of a member follows from its name and the name of the cluster.
//
// Errors: ErrInvalidOption for an empty name, or an address that other nodes cannot dial;
// ErrMemberExists; those of [Node.Ready]. After an error of ctx the member may have been added, or may
// be added later.
func (n *Node) AddMember(ctx context.Context, name, addr string, opts ...MemberOption) (Member, error) {
	var o memberOptions
	for _, opt := range opts {
		opt.member(&o)
	}
	if name == "" {
		return Member{}, fmt.Errorf("%w: a member needs a name", ErrInvalidOption)
	}
	if err := checkDialable(addr); err != nil {
		return Member{}, fmt.Errorf("%w: %v", ErrInvalidOption, err)
	}
	c := &membership.Change{Kind: membership.Add, ID: uint64(n.cfg.memberID(name)), Name: name, Addr: addr, Voter: !o.nonVoter, Empty: o.empty}
	v, err := n.changeMembers(ctx, c)
	if err != nil {
		return Member{}, err
	}
	m, ok := v.Members.Get(c.ID)
	if !ok { // removed since
		return Member{}, fmt.Errorf("%w: %v", ErrMemberNotFound, MemberID(c.ID))
	}
	return publicMember(m, v, n.lead.Now().Leader), nil
}

// RemoveMember removes a member for good. Its node stops by itself as soon as it learns of that, and cannot
// join again with its directory, unless AddMember adds the name again without [WithEmptyDirectory]. A node of that name with an empty
// directory can join again. A leader hands over first. Remove a member that is gone for good, so that a
// majority of the cluster takes fewer members.
//
// Errors: ErrMemberNotFound; ErrUnhealthy if too few of the remaining voters can be reached to go on;
// ErrInvalidOption for the last voter; those of [Node.Ready]. After an error of ctx the member may have
// been removed, or may be removed later.
func (n *Node) RemoveMember(ctx context.Context, id MemberID) error {
	if err := n.checkMember(ctx, id); err != nil {
		return err
	}
	_, err := n.changeMembers(ctx, &membership.Change{Kind: membership.Remove, ID: uint64(id)})
	if id == n.id && errors.Is(err, ErrClosed) && errors.Is(err, ErrMemberNotFound) {
		return nil // this node was removed, and stopped before the answer came
	}
	return err
}

// A PromoteOption is an option of [Node.PromoteMember].
type PromoteOption interface{ promote(*promoteOptions) }

type promoteOptions struct{ now bool }

type withoutWait struct{}

func (withoutWait) promote(o *promoteOptions) { o.now = true }

// WithoutWait makes PromoteMember return ErrMemberNotReady, and change nothing, if the member has not caught up.
func WithoutWait() PromoteOption { return withoutWait{} }

// PromoteMember gives a vote to a member as soon as its node runs and has caught up, and waits for that. It
// does nothing for a member that has a vote. [WithoutWait] makes it decide at once.
//
// Errors: ErrMemberNotFound; those of [Node.Ready]. After an error of ctx the member still gets the vote
// when it has caught up. With WithoutWait also ErrMemberNotReady; ErrInvalidOption while the leader is of a
// version without the option. After an error of ctx the member may then have the vote, or get it later.
func (n *Node) PromoteMember(ctx context.Context, id MemberID, opts ...PromoteOption) error {
	var o promoteOptions
	for _, opt := range opts {
		opt.promote(&o)
	}
	if err := n.checkMember(ctx, id); err != nil {
		return err
	}
	kind := membership.Promote
	if o.now {
		kind = membership.PromoteNow
	}
	if _, err := n.changeMembers(ctx, &membership.Change{Kind: kind, ID: uint64(id)}); err != nil {
		return err
	}
	v, err := n.views.Await(ctx, func(v *state.Summary) bool {
		m, ok := v.Members.Get(uint64(id))
		return !ok || m.Voter
	})
	if err != nil {
		return err
	}
	if !v.Members.Has(uint64(id)) {
		return fmt.Errorf("%w: %v was removed", ErrMemberNotFound, id)
	}
	return nil
}

// UpdateMember changes the address that the cluster has on record for a member.
//
// A node that has moved does this by itself as soon as it reaches another one, at any address that it
// knows. So the call is needed only for a node that reaches nobody, for example because the others have
// moved while it was down. They then dial the node at addr, which must be its Config.Advertise: a running
// node puts that on record again. It also corrects an address that was wrong in [Node.AddMember].
//
// Errors: ErrMemberNotFound; ErrInvalidOption for an address that other nodes cannot dial; those of
// [Node.Ready]. After an error of ctx the address may have been changed, or may be changed later.
func (n *Node) UpdateMember(ctx context.Context, id MemberID, addr string) error {
	if err := checkDialable(addr); err != nil {
		return fmt.Errorf("%w: %v", ErrInvalidOption, err)
	}
	_, err := n.changeMembers(ctx, &membership.Change{Kind: membership.Update, ID: uint64(id), Addr: addr})
	return err
}

// UpdateMetadata changes the metadata that the cluster has on record for a member: it sets each key of changes
// to its value, and removes the keys with an empty value. Other keys stay. A change is made as a whole, on top
// of the changes of other callers. The member need not run. When it starts the next time, its Config.Metadata
// replaces its metadata, unless that is nil. A change that a node makes to its own metadata waits for that.
//
// Errors: ErrMemberNotFound; ErrInvalidOption for metadata that [Config] could not have, if the result has more
// than [MaxMetadataBytes], and while the leader is of a version without metadata; those of [Node.Ready]. After
// an error of ctx the metadata may have been changed, or may be changed later.
func (n *Node) UpdateMetadata(ctx context.Context, id MemberID, changes map[string]string) error {
	if err := metadata.Check(changes); err != nil {
		return err
	}
	if err := n.awaitMetadata(ctx, id); err != nil {
		return err
	}
	_, err := n.changeMembers(ctx, &membership.Change{Kind: membership.Describe, ID: uint64(id), Metadata: changes})
	return err
}

// awaitMetadata waits until Config.Metadata is on record, if a member is this node: it would undo a change from
// before that.
func (n *Node) awaitMetadata(ctx context.Context, id MemberID) error {
	if id != n.id || n.cfg.Metadata == nil {
		return nil
	}
	if err := n.alive(ctx); err != nil {
		return err
	}
	_, err := n.views.Await(ctx, func(v *state.Summary) bool {
		m, ok := v.Members.Get(uint64(id))
		return ok && m.Start == n.joiner.start
	})
	return err
}

// NonVoter reports whether this node is a member that gets no vote by itself, in the state that it has applied: it has
// [Config].NonVoter, or was added [WithNonVoter], and [Node.PromoteMember] was not called. It asks no other node.
func (n *Node) NonVoter() bool {
	m, ok := n.views.Summary().Members.Get(uint64(n.id))
	return ok && !m.Voter && !m.Wanted
}

// TransferLeadership makes a voter the leader, and waits until this node follows it. Meanwhile writes wait,
// for about the time of two messages. If another node is elected in between, it tries again.
//
// Errors: ErrMemberNotFound; ErrInvalidOption for a member without a vote; ErrUnhealthy for a member that
// the leader cannot reach; those of [Node.Ready].
func (n *Node) TransferLeadership(ctx context.Context, to MemberID) error {
	if err := n.checkMember(ctx, to); err != nil {
		return err
	}
	for {
		if _, err := n.changeMembers(ctx, &membership.Change{Kind: membership.Transfer, ID: uint64(to)}); err != nil {
			return err
		}
		if follows, err := n.follows(ctx, to); follows || err != nil {
			return err
		}
	}
}

// follows waits until this node follows a leader. It gives up after an election timeout, since that node
// may have led and lost the lead already.
func (n *Node) follows(ctx context.Context, leader MemberID) (bool, error) {
	limit := time.NewTimer(n.cfg.ElectionTimeout)
	defer limit.Stop()
	for {
		changed := n.lead.Changed()
		if n.lead.Now().Leader == leader {
			return true, nil
		}
		select {
		case <-changed:
		case <-limit.C:
			return false, nil
		case <-ctx.Done():
			return false, n.contextError(ctx)
		case <-n.life.Closing():
			return false, n.life.Err()
		}
	}
}

// Leave hands leadership over, removes this node from the cluster, and closes it. The directory is of no
// more use: a node that is opened on it stops by itself. Use [Node.Close] for a node that comes back.
//
// Errors: those of [Node.RemoveMember], after which the node still runs; those of Close.
func (n *Node) Leave(ctx context.Context) error {
	n.joiner.leaving.Store(true)
	err := n.RemoveMember(ctx, n.id)
	// This node may have applied its removal meanwhile, or have been removed before.
	if removed := !n.joiner.leaving.Swap(false); err != nil && !removed && !errors.Is(err, ErrMemberNotFound) {
		return err
	}
	return n.Close()
}

// checkMember returns ErrMemberNotFound unless a member has an ID.
func (n *Node) checkMember(ctx context.Context, id MemberID) error {
	if err := n.alive(ctx); err != nil {
		return err
	}
	v, err := n.reads.linearizable(ctx)
	if err != nil {
		return err
	}
	if !v.Members.Has(uint64(id)) {
		return fmt.Errorf("%w: %v", ErrMemberNotFound, id)
	}
	return nil
}

// changeMembers makes the leader change the members, and returns a summary of this node's state that has the change.
func (n *Node) changeMembers(ctx context.Context, c *membership.Change) (*state.Summary, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	a, err := n.askToChange(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.Kind == membership.Remove && MemberID(c.ID) == n.id {
		return n.views.Summary(), nil // this node may never apply its own removal
	}
	return n.views.Await(ctx, func(v *state.Summary) bool { return v.Index >= a.Index })
}

// askToChange makes the leader change the members, on whichever node it is.
func (n *Node) askToChange(ctx context.Context, c *membership.Change) (membership.Admission, error) {
	return leader.Ask(ctx, host{n.life, n},
		func(ctx context.Context) (membership.Admission, error) { return n.roster.change(ctx, c) },
		func(ctx context.Context, leader uint64) (membership.Admission, error) {
			return n.transport.callChange(ctx, MemberID(leader), c)
		})
}
