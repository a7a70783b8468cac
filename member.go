// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie/internal/leader"
	"github.com/coterie-kv/coterie/internal/state"
)

// A Member is a member of the cluster.
type Member struct {
	ID         MemberID
	Name, Addr string // Addr is what other nodes dial
	Voter      bool   // it has a vote; without, it serves everything all the same
	Leader     bool   // it leads, as far as the node that was asked knows
}

// Members returns the members of the cluster, in the order of their IDs: founders, those who joined,
// and those who were added and may never have been started. It asks the leader, like a linearizable
// read. The result is the caller's.
//
// Errors: those of [Node.Ready].
func (n *Node) Members(ctx context.Context) ([]Member, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	v, err := n.linearizableView(ctx)
	if err != nil {
		return nil, err
	}
	leader := n.lead.Now().Leader
	members := make([]Member, 0, len(v.Members))
	for _, m := range v.Members {
		members = append(members, publicMember(m, leader))
	}
	return members, nil
}

func publicMember(m state.Member, leader MemberID) Member {
	id := MemberID(m.ID)
	return Member{ID: id, Name: m.Name, Addr: m.Addr, Voter: m.Voter, Leader: id == leader}
}

// A MemberOption fits [Node.AddMember].
type MemberOption interface{ member(*memberOptions) }

type memberOptions struct{ nonVoter bool }

type nonVoter struct{}

func (nonVoter) member(o *memberOptions) { o.nonVoter = true }

// WithNonVoter makes AddMember add a member that never gets a vote by itself. [Node.PromoteMember]
// can give it one later.
func WithNonVoter() MemberOption { return nonVoter{} }

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
	c := &change{kind: changeAdd, id: n.cfg.memberID(name), name: name, addr: addr, voter: !o.nonVoter}
	v, err := n.changed(ctx, c)
	if err != nil {
		return Member{}, err
	}
	m, ok := v.Members.Get(uint64(c.id))
	if !ok { // removed since
		return Member{}, fmt.Errorf("%w: %v", ErrMemberNotFound, c.id)
	}
	return publicMember(m, n.lead.Now().Leader), nil
}

// RemoveMember removes a member, for good: the node stops by itself as soon as it hears of that, and
// its directory lets it in no more, unless AddMember names it again. A node of that name with an
// empty directory may join anew. A leader hands over first. Removing one that is gone for good is how
// a cluster gets its majority back to fewer.
//
// Errors: ErrMemberNotFound; ErrUnhealthy when those who stay could not go on, since too few of them
// can be reached; ErrInvalidOption for the last voter; those of [Node.Ready]. After an error of ctx it
// may have been removed, or will be.
func (n *Node) RemoveMember(ctx context.Context, id MemberID) error {
	if err := n.member(ctx, id); err != nil {
		return err
	}
	_, err := n.changed(ctx, &change{kind: changeRemove, id: id})
	if id == n.id && errors.Is(err, ErrClosed) && errors.Is(err, ErrMemberNotFound) {
		return nil // this node has stopped for it before the answer came
	}
	return err
}

// PromoteMember has a member without a vote be given one, and waits until it has it: when it runs and
// has caught up. For one that has a vote it does nothing.
//
// Errors: ErrMemberNotFound, those of [Node.Ready]. After an error of ctx it is promoted nevertheless
// when it has caught up.
func (n *Node) PromoteMember(ctx context.Context, id MemberID) error {
	if err := n.member(ctx, id); err != nil {
		return err
	}
	if _, err := n.changed(ctx, &change{kind: changePromote, id: id}); err != nil {
		return err
	}
	v, err := n.views.Await(ctx, func(v *state.View) bool {
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
// node puts that on record again. It is also the way to correct the address of an [Node.AddMember].
//
// Errors: ErrMemberNotFound; ErrInvalidOption for an address that other nodes cannot dial; those of
// [Node.Ready]. After an error of ctx the address may have been changed, or may be changed later.
func (n *Node) UpdateMember(ctx context.Context, id MemberID, addr string) error {
	if err := checkDialable(addr); err != nil {
		return fmt.Errorf("%w: %v", ErrInvalidOption, err)
	}
	_, err := n.changed(ctx, &change{kind: changeUpdate, id: id, addr: addr})
	return err
}

// TransferLeadership has a voter lead, and waits until this node follows it. Writes wait meanwhile,
// for about the time of two messages. Where another node comes to lead in between, it tries again.
//
// Errors: ErrMemberNotFound; ErrInvalidOption for a member without a vote; ErrUnhealthy for one that
// the leader cannot reach; those of [Node.Ready].
func (n *Node) TransferLeadership(ctx context.Context, to MemberID) error {
	if err := n.member(ctx, to); err != nil {
		return err
	}
	for {
		if _, err := n.changed(ctx, &change{kind: changeTransfer, id: to}); err != nil {
			return err
		}
		if follows, err := n.follows(ctx, to); follows || err != nil {
			return err
		}
	}
}

// follows waits until this node follows a leader, for an election timeout: it may have missed its turn.
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

// Leave hands leadership over, removes this node from the cluster, and closes it. Its directory is of
// no more use: a node that is opened on it stops by itself. A node that shall come back is closed
// instead.
//
// Errors: those of [Node.RemoveMember], and then the node runs on; those of Close.
func (n *Node) Leave(ctx context.Context) error {
	n.leaving.Store(true)
	err := n.RemoveMember(ctx, n.id)
	// It may have heard of its removal meanwhile, or have been removed before.
	if removed := !n.leaving.Swap(false); err != nil && !removed && !errors.Is(err, ErrMemberNotFound) {
		return err
	}
	return n.Close()
}

// gone stops this node: it is a member no more, or the cluster goes on without its directory.
func (n *Node) gone(err error) {
	if n.leaving.Swap(false) {
		n.stop(nil, false) // as it was asked to
		return
	}
	if errors.Is(err, ErrMemberNotFound) {
		n.cfg.Logger.Error("no longer a member, the node stops", "err", err)
	} else {
		n.cfg.Logger.Error("the directory is not to be used, the node stops", "err", err)
	}
	n.stop(err, false)
}

// member makes sure that there is a member with an ID.
func (n *Node) member(ctx context.Context, id MemberID) error {
	if err := n.alive(ctx); err != nil {
		return err
	}
	v, err := n.linearizableView(ctx)
	if err != nil {
		return err
	}
	if !v.Members.Has(uint64(id)) {
		return fmt.Errorf("%w: %v", ErrMemberNotFound, id)
	}
	return nil
}

// changed has the leader make a change, and returns a view of this node that has it.
func (n *Node) changed(ctx context.Context, c *change) (*state.View, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	a, err := n.askToChange(ctx, c)
	if err != nil {
		return nil, err
	}
	if c.kind == changeRemove && c.id == n.id {
		return n.views.Load(), nil // it may never hear of it
	}
	return n.views.Await(ctx, func(v *state.View) bool { return v.Index >= a.index })
}

// askToChange has the leader make a change, wherever it is.
func (n *Node) askToChange(ctx context.Context, c *change) (admission, error) {
	return leader.Ask(ctx, host{n.life, n},
		func(ctx context.Context) (admission, error) { return n.roster.change(ctx, c) },
		func(ctx context.Context, leader uint64) (admission, error) {
			return n.callChange(ctx, MemberID(leader), c)
		})
}
