// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/metadata"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/state"
)

// A roster makes the changes of the members, on the node that leads: one at a time. It answers each when
// this node has applied the change, which is then durable on a majority. On other nodes it does nothing.
// Any goroutine may use it; turn makes the changes wait for each other. run's goroutine
// sets had.
type roster struct {
	cfg      *Config
	id       MemberID
	life     *lifecycle
	lead     *leadership
	views    *views
	identity *identity
	peers    *peers
	raft     func() *consensus
	point    func(context.Context) (readPoint, error)
	submit   func(entry []byte)
	ask      func(ctx context.Context, to MemberID, addr, own string) (membership.Pong, error)
	turn     chan struct{} // has a value while a change is made
	had      atomic.Uint64 // the last applied index an interval ago; 0: this node does not lead, or not that long
}

func newRoster(n *Node) *roster {
	return &roster{
		cfg: &n.cfg, id: n.id, life: n.life, lead: n.lead, views: n.views, identity: n.identity, peers: n.peers,
		raft: n.raft, point: n.reads.point, submit: n.supervisor.submit, ask: n.joiner.ask, turn: make(chan struct{}, 1),
	}
}

// change makes a change, if this node leads. It may be called again for the same change.
func (r *roster) change(ctx context.Context, c *membership.Change) (membership.Admission, error) {
	if !r.lead.Now().Self {
		return membership.Admission{}, errNotLeader
	}
	// This may take long, so it comes before the turn: other changes need not wait for it.
	if err := r.findTwin(ctx, c); err != nil {
		return membership.Admission{}, err
	}
	if err := r.takeTurn(ctx); err != nil {
		return membership.Admission{}, err
	}
	defer r.endTurn()
	p, err := r.point(ctx)
	if err != nil {
		return membership.Admission{}, err
	}
	v, err := r.views.Await(ctx, p.reached)
	if err != nil {
		return membership.Admission{}, err
	}
	if p.term == 0 {
		return membership.Admission{}, errNotLeader
	}
	if v, err = r.execute(ctx, c, v, p.term); err != nil {
		return membership.Admission{}, err
	}
	return membership.Admission{Cluster: r.identity.Load().Cluster, Index: v.Index, Term: p.term}, nil
}

func (r *roster) takeTurn(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *roster) endTurn() { <-r.turn }

// execute makes a change to the members of v, and returns a summary that has it.
func (r *roster) execute(ctx context.Context, c *membership.Change, v *state.Summary, term uint64) (*state.Summary, error) {
	m, ok := v.Members.Get(c.ID)
	switch c.Kind {
	case membership.Enroll, membership.Add:
		if ok && r.peers.losses.Has(c.ID, c.Incarnation) {
			m.Run = run.Void // so that later leaders refuse the node, too: no directory has this run
			if _, err := r.record(ctx, m, v, term); err != nil {
				return nil, err
			}
		}
		silent := func() bool { return r.raft().net.Silent(serverID(MemberID(c.ID)), r.cfg.ElectionTimeout) }
		if err := c.Objection(r.cfg.Cluster, m, ok, silent); err != nil {
			return nil, err
		}
		return r.admit(ctx, c, m, ok, v, term)
	case membership.Remove:
		if !ok {
			return v, nil
		}
		return r.remove(ctx, m, v)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %v", ErrMemberNotFound, MemberID(c.ID))
	}
	switch c.Kind {
	case membership.Promote:
		m.Wanted = true
		return r.record(ctx, m, v, term)
	case membership.PromoteNow:
		return r.promoteNow(ctx, m, v)
	case membership.Update:
		m.Addr = c.Addr
		return r.record(ctx, m, v, term)
	case membership.Describe:
		var err error
		if m.Metadata, err = metadata.Update(m.Metadata, c.Metadata); err != nil {
			return nil, err
		}
		return r.record(ctx, m, v, term)
	case membership.Transfer:
		if !m.Voter {
			return nil, fmt.Errorf("%w: %v has no vote", ErrInvalidOption, MemberID(c.ID))
		}
		if MemberID(c.ID) == r.id {
			return v, nil
		}
		return v, r.transfer(ctx, m)
	}
	return nil, fmt.Errorf("%w: change of kind %d", ErrInvalidOption, c.Kind)
}

// admit makes a node a member without a vote, unless it is a member, and puts it on record.
func (r *roster) admit(ctx context.Context, c *membership.Change, m state.Member, ok bool, v *state.Summary, term uint64) (*state.Summary, error) {
	err := metadata.Check(c.Metadata)
	if err != nil {
		return nil, err
	}
	if !ok {
		m.Wanted = c.Voter
		if r.raft().addressless() {
			if err = r.await(ctx, r.raft().addVoter(r.id, r.cfg.Advertise)); err != nil {
				return nil, err
			}
		}
		if err = r.await(ctx, r.raft().addNonvoter(MemberID(c.ID), c.Addr)); err != nil {
			return nil, err
		}
		if v, err = r.views.Await(ctx, func(v *state.Summary) bool { return v.Members.Has(c.ID) }); err != nil {
			return nil, err
		}
	}
	if c.Runs != (run.Line{}) || m.Incarnation != c.Incarnation {
		m.Run = c.Runs.Now()
	}
	if c.Empty {
		m.Run = run.Void
	}
	m.ID, m.Name, m.Addr, m.Incarnation = c.ID, c.Name, c.Addr, c.Incarnation
	if m.Start != c.Start {
		m.Start = c.Start
		if c.Metadata != nil {
			m.Metadata = metadata.Encode(c.Metadata)
		}
	}
	if c.Blank {
		return r.record(ctx, m, v, term, v.Members...)
	}
	return r.record(ctx, m, v, term)
}

// record puts a member on record in the log, as m has it. The same entry has the records of others once more,
// for nodes that lack a part of them: those of an earlier version ignore that part in entries, and leave it out
// of snapshots.
func (r *roster) record(ctx context.Context, m state.Member, v *state.Summary, term uint64, others ...state.Member) (*state.Summary, error) {
	recorded := func(v *state.Summary) bool {
		now, ok := v.Members.Get(m.ID)
		now.Voter = m.Voter
		return ok && now == m
	}
	if recorded(v) && len(others) == 0 {
		return v, nil
	}
	entry := command.NewEntry()
	for _, m := range append(slices.Clone(others), m) { // m last: it is newer than its record among the others
		entry.Add(&command.Proposal{Command: command.Command{Enroll: &command.Enroll{
			ID: m.ID, Name: m.Name, Addr: m.Addr, Incarnation: m.Incarnation, Run: m.Run, Voter: m.Wanted, Term: term,
			Start: m.Start, Described: true, Metadata: m.Metadata,
		}}})
	}
	r.submit(entry.Bytes())
	return r.views.Await(ctx, recorded)
}

// remove removes a member, if the remaining members can go on. A leader that is to remove itself hands over
// first; the new leader removes it.
func (r *roster) remove(ctx context.Context, m state.Member, v *state.Summary) (*state.Summary, error) {
	if m.Voter {
		remaining := v.Members.Voters() - 1
		if remaining == 0 {
			return nil, fmt.Errorf("%w: the last voter cannot be removed", ErrInvalidOption)
		}
		if err := r.checkMajority(ctx, v, MemberID(m.ID), remaining); err != nil {
			return nil, err
		}
	}
	if MemberID(m.ID) == r.id {
		r.raft().stepDown()
		return nil, errNotLeader
	}
	if err := r.await(ctx, r.raft().remove(MemberID(m.ID))); err != nil {
		return nil, err
	}
	return r.views.Await(ctx, func(v *state.Summary) bool { return !v.Members.Has(m.ID) })
}

// transfer makes a member the leader, if it can be reached: writes wait while raft hands over.
func (r *roster) transfer(ctx context.Context, to state.Member) error {
	c, id := r.raft(), MemberID(to.ID)
	reachable := func() bool { return c.net.Reachable(serverID(id), r.cfg.ElectionTimeout) }
	if err := r.awaitReachable(ctx, reachable); err != nil {
		return fmt.Errorf("%w: %v cannot be reached", err, id)
	}
	return r.await(ctx, c.transfer(id, to.Addr))
}

// checkMajority returns ErrUnhealthy unless a majority of the voters that remain without a member can be
// reached.
func (r *roster) checkMajority(ctx context.Context, v *state.Summary, without MemberID, remaining int) error {
	up := 0
	err := r.awaitReachable(ctx, func() bool { up = r.reachable(v, without); return up >= remaining/2+1 })
	if err != nil {
		return fmt.Errorf("%w: of the %d voters that would stay, %d can be reached", err, remaining, up)
	}
	return nil
}

// awaitReachable waits for half an election timeout until enough members can be reached, and returns
// ErrUnhealthy if they cannot: a new leader may not have heard from all members yet.
func (r *roster) awaitReachable(ctx context.Context, enough func() bool) error {
	limit := time.NewTimer(r.cfg.ElectionTimeout / 2)
	defer limit.Stop()
	for {
		heard := r.raft().net.Watch()
		if enough() {
			return nil
		}
		select {
		case <-heard:
		case <-limit.C:
			return ErrUnhealthy
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reachable returns how many voters other than one can be reached. This node counts as reachable.
func (r *roster) reachable(v *state.Summary, without MemberID) int {
	up := 0
	for _, m := range v.Members {
		id := MemberID(m.ID)
		if m.Voter && id != without && (id == r.id || r.raft().net.Reachable(serverID(id), r.cfg.ElectionTimeout)) {
			up++
		}
	}
	return up
}

// run gives a vote to each member that is to have one as soon as the member has caught up: when it has
// acknowledged all entries that the log had an interval ago (Ongaro, Consensus, section 4.2.1).
func (r *roster) run() {
	look := time.NewTicker(r.cfg.ElectionTimeout / 4)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-r.life.Closing():
			return
		}
		if !r.lead.Now().Self {
			r.had.Store(0)
			continue
		}
		v := r.views.Summary()
		for _, m := range v.Members {
			if !m.Voter && m.Wanted && r.caughtUp(m) {
				r.promote(m)
			}
		}
		r.had.Store(v.Index)
	}
}

// caughtUp reports whether a member may get a vote: its node runs, and has acknowledged all entries that the log had an
// interval ago.
func (r *roster) caughtUp(m state.Member) bool {
	had := r.had.Load()
	return m.Incarnation != 0 && had > 0 && r.raft().net.Acknowledged(serverID(MemberID(m.ID)), r.cfg.ElectionTimeout) >= had
}

// promoteNow gives a vote to a member that has caught up, and returns a summary in which it has the vote.
func (r *roster) promoteNow(ctx context.Context, m state.Member, v *state.Summary) (*state.Summary, error) {
	if m.Voter {
		return v, nil
	}
	if !r.caughtUp(m) {
		return nil, fmt.Errorf("%w: %v", ErrMemberNotReady, MemberID(m.ID))
	}
	if err := r.await(ctx, r.raft().addVoter(MemberID(m.ID), m.Addr)); err != nil {
		return nil, err
	}
	r.logVote(m)
	return r.views.Await(ctx, func(v *state.Summary) bool {
		now, ok := v.Members.Get(m.ID)
		return !ok || now.Voter
	})
}

func (r *roster) logVote(m state.Member) {
	r.cfg.Logger.Info("member has a vote", "member", MemberID(m.ID).String(), "name", m.Name)
}

// promote gives a vote to a member, unless the member has changed.
func (r *roster) promote(m state.Member) {
	ctx, cancel := context.WithTimeout(r.life.Context(), r.cfg.ElectionTimeout)
	defer cancel()
	if r.takeTurn(ctx) != nil {
		return
	}
	defer r.endTurn()
	if now, ok := r.views.Summary().Members.Get(m.ID); !ok || now != m {
		return
	}
	if err := r.await(ctx, r.raft().addVoter(MemberID(m.ID), m.Addr)); err == nil {
		r.logVote(m)
	}
}

// await waits for raft to finish a request. Raft may wait for a disk, and finishes at the latest when it is
// shut down.
func (r *roster) await(ctx context.Context, request func() error) error {
	done := make(chan error, 1)
	r.life.Go(func() { done <- request() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.life.Closing():
		return r.life.Err()
	}
}

// findTwin returns ErrDuplicateNode if a node asks to put another run of its directory on record, and
// another node runs on a copy of the directory: the one that answers at an address of the member. The node
// that was there first goes on.
func (r *roster) findTwin(ctx context.Context, c *membership.Change) error {
	id := MemberID(c.ID)
	own := r.identity.Load()
	m, ok := r.views.Summary().Members.Get(c.ID)
	switch {
	case c.Kind != membership.Enroll || !ok || m.Incarnation != c.Incarnation || m.Run == c.Runs.Now():
		return nil
	case id == r.id && c.Incarnation == own.Incarnation && c.Runs != own.Runs:
		return membership.TwinError(c.Name)
	case id == r.id || r.raft().net.Silent(serverID(id), r.cfg.ElectionTimeout):
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ElectionTimeout/2)
	defer cancel()
	known := r.peers.addresses.Of(c.ID)
	replies := make(chan bool, len(known))
	for _, addr := range known {
		r.life.Go(func() {
			p, err := r.ask(ctx, id, addr, "")
			replies <- err == nil && p.Incarnation == c.Incarnation && p.Run != c.Runs.Now()
		})
	}
	for range known {
		select {
		case another := <-replies:
			if another {
				return membership.TwinError(c.Name)
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
