// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A roster is how a leader changes the members: one change at a time, and each is answered when this
// node has applied it, which it does when it is durable. On other nodes it does nothing.
type roster struct {
	n    *Node
	turn chan struct{} // has a value while a change is under way
}

func newRoster(n *Node) *roster { return &roster{n: n, turn: make(chan struct{}, 1)} }

// A changeKind is what is to change.
type changeKind uint64

const (
	changeEnroll   changeKind = iota + 1 // a node wants to be on record
	changeAdd                            // a member that has not been started yet
	changeRemove                         //
	changePromote                        // it is to have a vote
	changeTransfer                       // it is to lead
	changeUpdate                         // it has another address
)

// A change is what a node asks the leader for.
type change struct {
	kind       changeKind
	id         MemberID
	name, addr string
	voter      bool
	// The rest is of a node that wants to be on record.
	cluster            string // Config.Cluster
	incarnation, since uint64
	runs               run.Line
	forgetful          bool // its data may have been lost: it keeps nothing
}

// An admission says which cluster has a node on record, and up to when it surely has.
type admission struct{ cluster, index, term uint64 }

// change does what is asked for, if this node leads. To repeat it does no harm.
func (r *roster) change(ctx context.Context, c *change) (admission, error) {
	if !r.n.lead.Now().Self {
		return admission{}, errNotLeader
	}
	if err := r.twin(ctx, c); err != nil { // before it is its turn: others need not wait for this
		return admission{}, err
	}
	if err := r.take(ctx); err != nil {
		return admission{}, err
	}
	defer r.pass()
	p, err := r.n.reads.point(ctx)
	if err != nil {
		return admission{}, err
	}
	v, err := r.n.views.Await(ctx, p.reached)
	if err != nil {
		return admission{}, err
	}
	if p.term == 0 {
		return admission{}, errNotLeader
	}
	if v, err = r.make(ctx, c, v, p.term); err != nil {
		return admission{}, err
	}
	return admission{r.n.identity.Load().Cluster, v.Index, p.term}, nil
}

// take waits for its turn, which pass ends.
func (r *roster) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *roster) pass() { <-r.turn }

// make makes a change to the members of v and returns a view in which it is made.
func (r *roster) make(ctx context.Context, c *change, v *state.View, term uint64) (*state.View, error) {
	m, ok := v.Members.Get(uint64(c.id))
	switch c.kind {
	case changeEnroll, changeAdd:
		if ok && r.n.losses.Has(uint64(c.id), c.incarnation) {
			m.Run = run.Void // so that no other leader takes the node for a member that has everything
			if _, err := r.record(ctx, m, v, term); err != nil {
				return nil, err
			}
		}
		if err := r.objection(c, m, ok); err != nil {
			return nil, err
		}
		return r.admit(ctx, c, m, ok, v, term)
	case changeRemove:
		if !ok {
			return v, nil
		}
		return r.remove(ctx, m, v)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %v", ErrMemberNotFound, c.id)
	}
	switch c.kind {
	case changePromote:
		m.Wanted = true
		return r.record(ctx, m, v, term)
	case changeUpdate:
		m.Addr = c.addr
		return r.record(ctx, m, v, term)
	case changeTransfer:
		if !m.Voter {
			return nil, fmt.Errorf("%w: %v has no vote", ErrInvalidOption, c.id)
		}
		if c.id == r.n.id {
			return v, nil
		}
		return v, r.transfer(ctx, m)
	}
	return nil, fmt.Errorf("%w: change of kind %d", ErrInvalidOption, c.kind)
}

// objection says why a node is not let in.
func (r *roster) objection(c *change, m state.Member, ok bool) error {
	added := c.kind == changeAdd
	switch {
	case !added && c.cluster != r.n.cfg.Cluster:
		return fmt.Errorf("%w: this is %q, not %q", ErrClusterMismatch, r.n.cfg.Cluster, c.cluster)
	case !ok && c.since > 0:
		return fmt.Errorf("%w: %s was removed", ErrMemberNotFound, c.name)
	case !ok:
		return nil
	case added && (m.Incarnation != 0 || m.Addr != c.addr || m.Wanted != c.voter):
		return fmt.Errorf("%w: %s", ErrMemberExists, c.name)
	case added || m.Incarnation == 0:
		return nil
	case m.Incarnation == c.incarnation && c.runs.Has(m.Run):
		return nil
	case m.Incarnation == c.incarnation:
		return errCopied(c.name)
	case c.forgetful && c.since == 0 && r.n.raft().net.Silent(serverID(c.id), r.n.cfg.ElectionTimeout):
		return nil // nobody else answers under that name: see trust.go
	}
	return fmt.Errorf("%w: %s is on record with another directory; if that is lost, remove the member, and it can join again", ErrDirMismatch, c.name)
}

// admit makes a node a member without a vote, if it is none, and puts it on record.
func (r *roster) admit(ctx context.Context, c *change, m state.Member, ok bool, v *state.View, term uint64) (*state.View, error) {
	var err error
	if !ok {
		m.Wanted = c.voter
		if r.n.raft().addressless() {
			if err = r.n.settle(ctx, r.n.raft().addVoter(r.n.id, r.n.cfg.Advertise)); err != nil {
				return nil, err
			}
		}
		if err = r.n.settle(ctx, r.n.raft().addNonvoter(c.id, c.addr)); err != nil {
			return nil, err
		}
		if v, err = r.n.views.Await(ctx, func(v *state.View) bool { return v.Members.Has(uint64(c.id)) }); err != nil {
			return nil, err
		}
	}
	if c.runs != (run.Line{}) || m.Incarnation != c.incarnation {
		m.Run = c.runs.Now()
	}
	m.ID, m.Name, m.Addr, m.Incarnation = uint64(c.id), c.name, c.addr, c.incarnation
	return r.record(ctx, m, v, term)
}

// record puts what is known of a member on record.
func (r *roster) record(ctx context.Context, m state.Member, v *state.View, term uint64) (*state.View, error) {
	recorded := func(v *state.View) bool {
		now, ok := v.Members.Get(m.ID)
		return ok && now.Name == m.Name && now.Addr == m.Addr && now.Incarnation == m.Incarnation && now.Run == m.Run && now.Wanted == m.Wanted
	}
	if recorded(v) {
		return v, nil
	}
	r.n.apply(command.Single(&command.Proposal{Command: command.Command{Enroll: &command.Enroll{
		ID: m.ID, Name: m.Name, Addr: m.Addr, Incarnation: m.Incarnation, Run: m.Run, Voter: m.Wanted, Term: term,
	}}}))
	return r.n.views.Await(ctx, recorded)
}

// remove removes a member, if those who stay can go on. A leader has another lead first: it is that
// one's to remove it.
func (r *roster) remove(ctx context.Context, m state.Member, v *state.View) (*state.View, error) {
	if m.Voter {
		stay := v.Members.Voters() - 1
		if stay == 0 {
			return nil, fmt.Errorf("%w: the last voter cannot be removed", ErrInvalidOption)
		}
		if err := r.healthy(ctx, v, MemberID(m.ID), stay); err != nil {
			return nil, err
		}
	}
	if MemberID(m.ID) == r.n.id {
		r.n.raft().stepDown()
		return nil, errNotLeader
	}
	if err := r.n.settle(ctx, r.n.raft().remove(MemberID(m.ID))); err != nil {
		return nil, err
	}
	return r.n.views.Await(ctx, func(v *state.View) bool { return !v.Members.Has(m.ID) })
}

// transfer has a member lead, if it can: while raft hands over, writes wait.
func (r *roster) transfer(ctx context.Context, to state.Member) error {
	c, id := r.n.raft(), MemberID(to.ID)
	reachable := func() bool { return c.net.Reachable(serverID(id), r.n.cfg.ElectionTimeout) }
	if err := r.hear(ctx, reachable); err != nil {
		return fmt.Errorf("%w: %v cannot be reached", err, id)
	}
	return r.n.settle(ctx, c.transfer(id, to.Addr))
}

// healthy returns ErrUnhealthy unless a majority of the voters that would stay can be reached.
func (r *roster) healthy(ctx context.Context, v *state.View, leaver MemberID, stay int) error {
	up := 0
	err := r.hear(ctx, func() bool { up = r.n.reachable(v, leaver); return up >= stay/2+1 })
	if err != nil {
		return fmt.Errorf("%w: of the %d voters that would stay, %d can be reached", err, stay, up)
	}
	return nil
}

// hear returns ErrUnhealthy unless enough members are heard of, soon: a leader that has just been elected
// may not have heard of all of them yet.
func (r *roster) hear(ctx context.Context, enough func() bool) error {
	limit := time.NewTimer(r.n.cfg.ElectionTimeout / 2)
	defer limit.Stop()
	for {
		heard := r.n.raft().net.Watch()
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

// run gives a vote to those who are to have one, as soon as they have caught up: with everything that
// the log had an interval ago (Ongaro, Consensus, section 4.2.1).
func (r *roster) run() {
	look := time.NewTicker(r.n.cfg.ElectionTimeout / 4)
	defer look.Stop()
	var had uint64
	for {
		select {
		case <-look.C:
		case <-r.n.life.Closing():
			return
		}
		lead := r.n.lead.Now()
		if !lead.Self {
			had = 0
			continue
		}
		v := r.n.views.Load()
		for _, m := range v.Members {
			if !m.Voter && m.Wanted && m.Incarnation != 0 && had > 0 &&
				r.n.raft().net.Acknowledged(serverID(MemberID(m.ID)), r.n.cfg.ElectionTimeout) >= had {
				r.promote(m)
			}
		}
		had = v.Index
	}
}

func (r *roster) promote(m state.Member) {
	ctx, cancel := context.WithTimeout(r.n.life.Context(), r.n.cfg.ElectionTimeout)
	defer cancel()
	if r.take(ctx) != nil {
		return
	}
	defer r.pass()
	if now, ok := r.n.views.Load().Members.Get(m.ID); !ok || now != m {
		return // somebody else had the turn
	}
	err := r.n.settle(ctx, r.n.raft().addVoter(MemberID(m.ID), m.Addr))
	if err == nil {
		r.n.cfg.Logger.Info("member has a vote", "member", MemberID(m.ID).String(), "name", m.Name)
	}
}

// reachable returns how many voters, this node among them, can be reached, one aside.
func (n *Node) reachable(v *state.View, but MemberID) int {
	up := 0
	for _, m := range v.Members {
		id := MemberID(m.ID)
		if m.Voter && id != but && (id == n.id || n.raft().net.Reachable(serverID(id), n.cfg.ElectionTimeout)) {
			up++
		}
	}
	return up
}

// settle waits for a question to raft, which may wait for a disk and answers at the latest when raft
// is shut down.
func (n *Node) settle(ctx context.Context, ask func() error) error {
	answer := make(chan error, 1)
	n.life.Go(func() { answer <- ask() })
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.life.Closing():
		return n.life.Err()
	}
}

// membersChanged follows the members that the log has, in the FSM's goroutine.
func (n *Node) membersChanged(v *state.View) {
	c := n.raft()
	if c == nil {
		return // still in Open, which calls it at the end
	}
	c.retain(v.Members)
	for _, m := range v.Members {
		if MemberID(m.ID) != n.id {
			n.addresses.Suggest(m.ID, m.Addr)
		}
	}
	id := n.identity.Load()
	switch m, ok := v.Members.Get(uint64(n.id)); {
	case !ok && id.Since > 0 && id.Since <= v.Index:
		n.gone(fmt.Errorf("%w: this one was removed", ErrMemberNotFound))
	case ok && m.Incarnation == id.Incarnation && !id.Runs.Has(m.Run):
		n.gone(errCopied(n.cfg.Name))
	}
}

// final reports whether an error of a change will not be another when it is asked for again.
func final(err error) bool {
	for _, kind := range []error{
		ErrLeaseNotFound, ErrClusterMismatch, ErrDirMismatch, ErrDuplicateNode, ErrMemberNotFound, ErrMemberExists, ErrUnhealthy, ErrInvalidOption,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

func (c *change) append(b []byte) []byte {
	b = wire.Uint(b, 1, uint64(c.kind))
	b = wire.Uint(b, 2, uint64(c.id))
	b = wire.Text(b, 3, c.name)
	b = wire.Text(b, 4, c.addr)
	b = wire.Bool(b, 5, c.voter)
	b = wire.Text(b, 6, c.cluster)
	b = wire.Uint(b, 7, c.incarnation)
	b = wire.Uint(b, 8, c.since)
	b = wire.Bool(b, 9, c.forgetful)
	if c.runs != (run.Line{}) {
		b = wire.Message(b, 10, c.runs.Append)
	}
	return b
}

func readChange(b []byte) (*change, error) {
	c := &change{}
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			c.kind = changeKind(r.Uint())
		case 2:
			c.id = MemberID(r.Uint())
		case 3:
			c.name = r.Text()
		case 4:
			c.addr = r.Text()
		case 5:
			c.voter = r.Bool()
		case 6:
			c.cluster = r.Text()
		case 7:
			c.incarnation = r.Uint()
		case 8:
			c.since = r.Uint()
		case 9:
			c.forgetful = r.Bool()
		case 10:
			var err error
			if c.runs, err = run.ReadLine(r.Bytes()); err != nil {
				return nil, err
			}
		}
	}
	return c, r.Err()
}

func (a admission) append(b []byte) []byte {
	b = wire.Uint(b, 1, a.cluster)
	b = wire.Uint(b, 2, a.index)
	return wire.Uint(b, 3, a.term)
}

func readAdmission(b []byte) (a admission, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			a.cluster = r.Uint()
		case 2:
			a.index = r.Uint()
		case 3:
			a.term = r.Uint()
		}
	}
	return a, r.Err()
}
