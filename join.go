// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-kv/coterie/internal/leader"
	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A joiner brings this node into its cluster, as a founder or as a node that joins, and keeps it there: it
// puts the node on record, looks for the other nodes while no leader is known, and stops the node when the
// cluster has removed it. run and gather each have a goroutine; the other methods may be called by any.
type joiner struct {
	cfg      *Config
	id       MemberID
	life     *lifecycle
	lead     *leadership
	views    *views
	identity *identity
	peers    *peers
	client   *rpc.Client
	raft     func() *consensus
	change   func(context.Context, *membership.Change) (membership.Admission, error) // makes the leader change the members
	stop     func(fault error)                                                       // stops the node, without a hand-over
	start    uint64                                                                  // random: identifies the opening that has its Config.Metadata on record

	leaving atomic.Bool // Leave waits until this node is removed, which is no fault then
}

func newJoiner(n *Node) *joiner {
	return &joiner{
		cfg: &n.cfg, id: n.id, life: n.life, lead: n.lead, views: n.views, identity: n.identity, peers: n.peers,
		client: n.transport.client, raft: n.raft, change: n.askToChange, stop: func(fault error) { n.stop(fault, false) },
		start: newDraw(),
	}
}

// run puts this node on record, with its data and its address, and keeps the record current. While no
// leader is known, it calls the other nodes.
func (j *joiner) run() {
	logged := "" // why the node is not let in
	for {
		changed := j.lead.Changed()
		wait := j.cfg.ElectionTimeout
		if !j.onRecord() {
			if err := j.enroll(); err != nil {
				if j.rejected(err) && err.Error() != logged {
					logged = err.Error()
					j.cfg.Logger.Warn("not let in", "err", err)
				}
				wait = leader.RetryAfter(j.cfg.ElectionTimeout)
				if j.peers.refusal.Load() != nil {
					wait = j.cfg.ElectionTimeout / 4 // an operator has to help
				}
			}
		}
		retry := time.NewTimer(wait)
		select {
		case <-changed:
		case <-retry.C:
			if j.lead.Now().Leader == 0 {
				j.announce()
			}
		case <-j.life.Closing():
			retry.Stop()
			return
		}
		retry.Stop()
	}
}

// onRecord reports whether the cluster is known to have this node on record as it is now. A node that knows
// no leader asks again: it may have been removed.
func (j *joiner) onRecord() bool {
	id := j.identity.Load()
	if j.lead.Now().Leader == 0 || id.Since == 0 {
		return false
	}
	m, ok := j.views.Summary().Members.Get(uint64(j.id))
	return ok && m.Incarnation == id.Incarnation && m.Run == id.Runs.Now() && m.Addr == j.cfg.Advertise && m.Name == j.cfg.Name &&
		m.Start == j.start
}

// enroll asks the leader to put this node on record. If no leader is known, it asks each node that can be
// reached to pass the request on.
func (j *joiner) enroll() error {
	id := j.identity.Load()
	since := id.Since
	if j.identity.wasMember() {
		since = max(since, raftlog.FoundingIndex) // if the node is not a member, it was removed
	}
	m, known := j.views.Summary().Members.Get(uint64(j.id))
	c := &membership.Change{
		Kind: membership.Enroll, ID: uint64(j.id), Name: j.cfg.Name, Addr: j.cfg.Advertise, Voter: !j.cfg.NonVoter,
		Cluster: j.cfg.Cluster, Incarnation: id.Incarnation, Since: since, Runs: id.Runs, InMemory: j.cfg.InMemory,
		Start: j.start, Metadata: j.cfg.Metadata, Blank: known && m.Incarnation == id.Incarnation && m.Start == 0,
	}
	ctx, cancel := context.WithTimeout(j.life.Context(), 2*j.cfg.ElectionTimeout)
	defer cancel()
	if j.lead.Now().Leader != 0 {
		a, err := j.change(ctx, c)
		switch {
		case err == nil:
			return j.identity.confirm(a)
		case ctx.Err() != nil:
			return ErrNoLeader // err may have refusals, but is no verdict of the leader
		}
		return err
	}
	err := ErrNoLeader
	for _, addr := range j.peers.dialable() {
		var a membership.Admission
		if a, err = j.callJoin(ctx, addr, c); err == nil {
			return j.identity.confirm(a)
		}
		if ctx.Err() == nil && final(err) {
			return err
		}
	}
	return err
}

// callJoin asks the node at an address to let this node in.
func (j *joiner) callJoin(ctx context.Context, addr string, c *membership.Change) (membership.Admission, error) {
	ctx, cancel := context.WithTimeout(ctx, j.cfg.ElectionTimeout)
	defer cancel()
	resp, err := j.client.Call(ctx, rpc.Peer{Addr: addr}, methodJoin, c.Append(nil))
	err = localError(err)
	j.peers.tried(addr, err)
	if err != nil {
		return membership.Admission{}, err
	}
	return membership.ReadAdmission(resp)
}

// rejected notes it if err says that this node is not let in, and reports whether the node keeps trying. If
// it was a member before, it stops.
func (j *joiner) rejected(err error) bool {
	mismatch := errors.Is(err, ErrDirMismatch) || errors.Is(err, ErrDuplicateNode)
	if !mismatch && !errors.Is(err, ErrMemberNotFound) && !errors.Is(err, ErrClusterMismatch) {
		return false
	}
	j.peers.refusal.Store(&err)
	if j.identity.wasMember() {
		if errors.Is(err, ErrDirMismatch) {
			j.identity.dispute()
		}
		j.expel(err)
		return false
	}
	if mismatch {
		j.identity.forgotten.Store(true)
	}
	return true
}

// expel stops this node: the cluster has removed it, or goes on without its directory.
func (j *joiner) expel(err error) {
	if j.leaving.Swap(false) {
		j.stop(nil) // Leave has asked for it
		return
	}
	if errors.Is(err, ErrMemberNotFound) {
		j.cfg.Logger.Error("no longer a member, the node stops", "err", err)
	} else {
		j.cfg.Logger.Error("the directory must not be used, the node stops", "err", err)
	}
	j.stop(err)
}

// membersChanged follows the members that the log has, in the FSM's goroutine.
func (j *joiner) membersChanged(v *state.Summary) {
	j.raft().retain(v.Members)
	for _, m := range v.Members {
		if MemberID(m.ID) != j.id {
			j.peers.addresses.Suggest(m.ID, m.Addr)
		}
	}
	id := j.identity.Load()
	switch m, ok := v.Members.Get(uint64(j.id)); {
	case !ok && id.Since > 0 && id.Since <= v.Index:
		j.expel(fmt.Errorf("%w: this one was removed", ErrMemberNotFound))
	case ok && m.Incarnation == id.Incarnation && !id.Runs.Has(m.Run):
		j.expel(membership.CopiedError(j.cfg.Name))
	}
}

// announce tells the nodes at all known addresses where this node is, and learns which nodes are there.
func (j *joiner) announce() {
	for _, addr := range j.peers.dialable() {
		j.life.Go(func() {
			ctx, cancel := context.WithTimeout(j.life.Context(), j.cfg.ElectionTimeout)
			defer cancel()
			j.ping(ctx, 0, addr)
		})
	}
}

// checkRun asks the other members about this run before the node votes. Any of them may know that the
// directory is an older copy, or that another node runs on a copy of it, and a candidate may be a member
// that does not know. The wait is short: a member that cannot be reached is not waited for.
func (j *joiner) checkRun() {
	defer j.identity.endRunCheck()
	if !j.identity.wasMember() || j.cfg.Addr == "" {
		return
	}
	ctx, cancel := context.WithTimeout(j.life.Context(), j.cfg.ElectionTimeout/2)
	defer cancel()
	addrs := append(j.peers.dialable(), j.cfg.Advertise)
	if m, ok := j.views.Summary().Members.Get(uint64(j.id)); ok && m.Addr != j.cfg.Advertise {
		addrs = append(addrs, m.Addr)
	}
	var asked sync.WaitGroup
	for _, addr := range addrs {
		asked.Go(func() {
			// This node does not say yet where it is: another may run on a copy of the directory.
			if p, err := j.ask(ctx, 0, addr, ""); err == nil {
				j.learn(p, addr)
			}
		})
	}
	asked.Wait()
}

// ping tells a member (0: any node) where this node is, and learns which node is at the address.
func (j *joiner) ping(ctx context.Context, to MemberID, addr string) (membership.Pong, error) {
	p, err := j.ask(ctx, to, addr, j.cfg.Advertise)
	if err == nil {
		j.learn(p, addr)
	}
	return p, err
}

// ask asks a member (0: any node) about itself, and about its knowledge of this node. The member takes own,
// unless it is empty, for this node's address.
//
// A reply may arrive after the leader has put this node on record, and be older than that record. So only a
// node that was a member when it asked can be forgotten. The question carries Since, because the handshake of
// the connection may be older, too.
func (j *joiner) ask(ctx context.Context, to MemberID, addr, own string) (membership.Pong, error) {
	wasMember := j.identity.wasMember() // before Since is read
	req := wire.Uint(wire.Text(nil, 1, own), 2, j.identity.Load().Since)
	resp, err := j.client.Call(ctx, rpc.Peer{ID: uint64(to), Addr: addr}, methodPing, req)
	j.peers.tried(addr, err)
	if err != nil {
		return membership.Pong{}, err
	}
	p, err := membership.ReadPong(resp)
	p.Forgotten = p.Forgotten && wasMember
	if err == nil && !p.New && j.gathers() {
		j.peers.attempts.Note(addr, membership.ErrFounded)
	}
	return p, err
}

// learn acts on the reply of the node at an address. If two nodes run on copies of one directory, the one
// that has had more runs stops: it came later.
func (j *joiner) learn(p membership.Pong, addr string) {
	id := j.identity.Load()
	switch now := id.Runs.Now(); {
	case p.Member != uint64(j.id):
		j.peers.addresses.Learn(p.Member, addr)
	case p.Incarnation == id.Incarnation && p.Run != now && p.Run.Count <= now.Count:
		j.expel(membership.TwinError(j.cfg.Name))
	}
	if p.Forgotten {
		err := membership.CopiedError(j.cfg.Name)
		j.peers.refusal.Store(&err)
		j.identity.dispute()
	}
}

// answerPing replies to the ping of another node, and takes a member's address from it.
func (j *joiner) answerPing(from rpc.Identity, req []byte) []byte {
	r := wire.NewReader(req)
	for r.Next() {
		switch r.Field() {
		case 1:
			addr := r.Text()
			if from.Member != uint64(j.id) && j.peers.judge(from, rpc.LaneRaft) == nil && checkDialable(addr) == nil {
				j.peers.addresses.Learn(from.Member, addr)
			}
		case 2:
			from.Since = max(from.Since, r.Uint())
		}
	}
	id := j.identity.Load()
	return membership.Pong{
		Member: uint64(j.id), New: j.identity.isNew(), Gathered: j.identity.hasGathered(),
		Incarnation: id.Incarnation, Run: id.Runs.Now(),
		Forgotten: errors.Is(j.peers.standing(from), rpc.ErrForgotten),
	}.Append(nil)
}

// mayAnswer waits until this node may answer one of raft's requests, for at most an election timeout, or until ctx ends.
func (j *joiner) mayAnswer(ctx context.Context, from rpc.Identity, r raftnet.Request) error {
	var limit <-chan time.Time // almost every request is answered at once, without a timer
	for {
		changed := j.identity.Changed()
		if err := j.peers.judge(from, rpc.LaneRaft); err != nil {
			return err
		}
		mayVote := j.identity.runChecked.Load() || !r.Vote && !r.Elect
		if mayVote && j.trust(MemberID(from.Member), r.Term).MayAnswer(membership.Request{Since: from.Since, Term: r.Term, Vote: r.Vote, Elect: r.Elect}) {
			return nil
		}
		if limit == nil {
			timer := time.NewTimer(j.cfg.ElectionTimeout)
			defer timer.Stop()
			limit = timer.C
		}
		select {
		case <-changed:
		case <-limit:
			return errUntrusted
		case <-ctx.Done():
			return errUntrusted
		case <-j.life.Closing():
			return j.life.Err()
		}
	}
}

// trust returns what this node knows about itself when a request of a member arrives, in a term.
func (j *joiner) trust(from MemberID, term uint64) membership.Trust {
	c, id := j.raft(), j.identity.Load()
	t := membership.Trust{
		Since: id.Since, Floor: id.Floor, Last: c.raft.LastIndex(), Gathered: id.Gathered, Forgotten: j.identity.forgotten.Load(),
	}
	if t.Since == 0 {
		t.Founding, t.Elected = c.founding(), c.votedFor(serverID(from), term)
	}
	return t
}

// mayConfirm reports whether this node may confirm the leader of a term, as if it answered an append of it. An append goes
// to the address of a member. A question may come from a copy of its directory, too, unless this run was checked.
func (j *joiner) mayConfirm(leader MemberID, term uint64) bool {
	return j.identity.runChecked.Load() && !j.identity.disputed.Load() && j.trust(leader, term).MayAnswer(membership.Request{Term: term})
}

// errUntrusted: this node does not know its promises in an earlier incarnation.
var errUntrusted = errors.New("coterie: this node may have forgotten its promises")

// gathers reports whether this node is a founder that has not met all the others yet.
func (j *joiner) gathers() bool {
	return !j.identity.hasGathered() && slices.Contains(j.raft().voterIDs(), j.id)
}
