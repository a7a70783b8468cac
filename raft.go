// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/state"
)

// A consensus is this node's part in Raft, and the only owner of *raft.Raft. The fields above mu do not change,
// or are safe for concurrent use, but for wedgedSince, which belongs to followLeadership's goroutine.
type consensus struct {
	raft         *raft.Raft
	requests     requests // of raft
	log          *raftlog.Log
	net          *raftnet.Transport
	self         raft.ServerID
	timeout      time.Duration // of an election
	started      time.Time
	observations chan raft.Observation
	doubted      atomic.Pointer[time.Time] // when a hand-over was begun; nil once raft has proved not to be wedged
	wedgedSince  time.Time
	astray       atomic.Bool // the leader sent a snapshot that contradicts the log

	mu        sync.Mutex                 // guards handOvers, and the changes of raft's configuration in reload
	handOvers map[raft.ServerID]handOver // the last one to each server
}

// requests are the requests to raft that change its log. A *raft.Raft answers them; a test may put itself
// before it, to refuse them as raft does while it hands leadership over.
type requests interface {
	Apply(cmd []byte, timeout time.Duration) raft.ApplyFuture
	AddVoter(id raft.ServerID, addr raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	AddNonvoter(id raft.ServerID, addr raft.ServerAddress, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	RemoveServer(id raft.ServerID, prevIndex uint64, timeout time.Duration) raft.IndexFuture
	LeadershipTransferToServer(id raft.ServerID, addr raft.ServerAddress) raft.Future
}

// wrapRequests is the key of a func(requests) requests in the context of a test's Open.
type wrapRequests struct{}

// termKey is raft's name for the term in its stable store.
var termKey = []byte("CurrentTerm")

// maxUnapplied bounds the entries of a leader that it has not applied. Raft's queue to the state machine holds
// 128 batches. A full queue stalls raft's main loop, and with it heartbeats and hand-overs. The entries that
// raft has taken from its own queue, and those that wait there, come on top: each at most maxAppend.
const (
	maxUnapplied = 48
	maxAppend    = 32
)

// found writes the founding entries to an empty log, unless that was done before or the node is no founder.
// Every founder writes the same entries. Unlike raft's BootstrapCluster, found completes a founding that a
// crash has interrupted: the term is written first, and has no meaning alone.
func found(log *raftlog.Log, cfg *Config) error {
	last, err := log.Logs().LastIndex()
	if err != nil {
		return fmt.Errorf("coterie: reading the log: %w", err)
	}
	if last > 0 || log.Durable() > 0 || len(cfg.Join) > 0 {
		return nil
	}
	term, err := log.Stable().GetUint64(termKey)
	if err == nil && term == 0 {
		err = log.Stable().SetUint64(termKey, raftlog.FoundingTerm)
	}
	if err == nil {
		err = log.Logs().StoreLogs(foundingEntries(cfg))
	}
	if err != nil {
		return fmt.Errorf("coterie: founding: %w", err)
	}
	return nil
}

func foundingEntries(cfg *Config) []*raft.Log {
	var c raft.Configuration
	names := command.NewEntry()
	for _, m := range cfg.founders() {
		c.Servers = append(c.Servers, raft.Server{ID: serverID(MemberID(m.ID)), Address: raft.ServerAddress(m.Addr)})
		names.Add(&command.Proposal{Command: command.Command{Enroll: &command.Enroll{
			ID: m.ID, Name: m.Name, Addr: m.Addr, Voter: true, Term: raftlog.FoundingTerm,
		}}})
	}
	return []*raft.Log{
		{Index: raftlog.FoundingIndex - 1, Term: raftlog.FoundingTerm, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)},
		{Index: raftlog.FoundingIndex, Term: raftlog.FoundingTerm, Type: raft.LogCommand, Data: names.Bytes()},
	}
}

// newIncarnation draws the number that tells the data of a directory from all other data.
func newIncarnation() uint64 { return max(rand.Uint64(), 1) }

func serverID(id MemberID) raft.ServerID { return raftlog.ServerID(uint64(id)) }

func memberOf(id raft.ServerID) MemberID { return MemberID(raftlog.MemberID(id)) }

// leadership returns the leader that raft knows.
func (c *consensus) leadership() ClusterLeader {
	for {
		term := c.raft.CurrentTerm()
		_, id := c.raft.LeaderWithID()
		self := c.raft.State() == raft.Leader
		if c.raft.CurrentTerm() != term {
			continue
		}
		lead := ClusterLeader{Leader: memberOf(id), Term: term, Self: self}
		// Raft changes these one after the other. It observes a change when both are done.
		if self != (id == c.self) {
			lead.Leader, lead.Self = 0, false
		}
		return lead
	}
}

// voters returns the servers that have a vote in the newest configuration of the log. That configuration
// counts, whether or not it is committed.
func (c *consensus) voters() (ids []raft.ServerID) {
	for _, s := range c.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// voterIDs returns the members that have a vote in the newest configuration of the log.
func (c *consensus) voterIDs() (ids []MemberID) {
	for _, id := range c.voters() {
		ids = append(ids, memberOf(id))
	}
	return ids
}

// founding reports whether this node's log has nothing beyond the founding entries. The term is no evidence:
// a node learns of later terms without having taken part in them.
func (c *consensus) founding() bool {
	switch last := c.raft.LastIndex(); {
	case last < raftlog.FoundingIndex:
		return true
	case last > raftlog.FoundingIndex:
		return false
	default:
		entry, err := c.log.Entry(last)
		return err != nil || entry.Term <= raftlog.FoundingTerm
	}
}

// elect makes this node stand for election now, if it is a follower.
func (c *consensus) elect() {
	if c.raft.State() == raft.Follower {
		c.net.Elect()
	}
}

// silence returns the leader that this node follows, or followed last, and since when it has been silent.
func (c *consensus) silence() (leader MemberID, since time.Time) {
	id, since := c.net.Heard()
	for _, other := range []time.Time{c.started, c.raft.LastContact()} { // it may have voted since
		if other.After(since) {
			since = other
		}
	}
	return memberOf(id), since
}

// look makes a voter that follows check now whether its leader is silent, and stand for election if so. Raft
// does that whenever its timeout becomes shorter.
func (c *consensus) look() {
	if c.raft.State() != raft.Follower || !slices.Contains(c.voters(), c.self) {
		return
	}
	for _, timeout := range []time.Duration{c.timeout + 1, c.timeout} {
		_ = c.reload(func(r *raft.ReloadableConfig) { r.HeartbeatTimeout, r.ElectionTimeout = timeout, timeout })
	}
}

// reload changes a part of raft's configuration.
func (c *consensus) reload(change func(*raft.ReloadableConfig)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.raft.ReloadableConfig()
	change(&r)
	return c.raft.ReloadConfig(r)
}

// votedFor reports whether this node's last vote was for a server, in a term.
func (c *consensus) votedFor(id raft.ServerID, term uint64) bool {
	in, candidate := c.log.Voted()
	return in == term && candidate == string(id)
}

// addressless reports whether this node's own address is missing in the log, because the node founded its
// cluster alone, without a network. Raft then accepts no change of members.
func (c *consensus) addressless() bool {
	return slices.ContainsFunc(c.raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool {
		return s.ID == c.self && s.Address == ""
	})
}

// The ways to change the members. Each returns a request to raft, which blocks until a majority has agreed, or
// the change has failed: see settle.

func (c *consensus) addNonvoter(id MemberID, addr string) func() error {
	return func() error {
		return changeError(c.requests.AddNonvoter(serverID(id), raft.ServerAddress(addr), 0, c.timeout).Error())
	}
}

// addVoter appends an entry after the change. Raft does not count an acknowledgement that a new voter sends
// before raft has noted its vote. If the change itself needs that vote, it would not be committed until
// another entry is.
func (c *consensus) addVoter(id MemberID, addr string) func() error {
	return func() error {
		change := c.requests.AddVoter(serverID(id), raft.ServerAddress(addr), 0, c.timeout)
		c.append(command.OfCluster(command.Command{Term: true}))
		return changeError(change.Error())
	}
}

func (c *consensus) remove(id MemberID) func() error {
	return func() error { return changeError(c.requests.RemoveServer(serverID(id), 0, c.timeout).Error()) }
}

func (c *consensus) transfer(to MemberID, addr string) func() error {
	return func() error {
		under, begun := c.handOver(serverID(to), raft.ServerAddress(addr))
		if !begun {
			return errNotLeader // for now
		}
		return changeError(under.Error())
	}
}

// changeError returns errNotLeader for the errors after which to ask another leader, or this one again.
func changeError(err error) error {
	for _, again := range []error{
		raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress, raft.ErrEnqueueTimeout, raft.ErrRaftShutdown,
	} {
		if errors.Is(err, again) {
			return errNotLeader
		}
	}
	return err
}

// retain makes the transport forget the servers that are no longer members.
func (c *consensus) retain(members state.Members) {
	voters := c.voters()
	c.net.Retain(func(id raft.ServerID) bool {
		return members.Has(uint64(memberOf(id))) || slices.Contains(voters, id)
	})
}

// mayAppend reports whether raft's log has few enough entries that are not applied: see maxUnapplied.
func (c *consensus) mayAppend(applied uint64) bool { return c.raft.LastIndex() < applied+maxUnapplied }

// append submits an entry, whether or not mayAppend. It ignores raft's future, which may never resolve after
// a shutdown: whether the entry is committed shows when the FSM applies it, or the term changes.
func (c *consensus) append(entry []byte) { c.requests.Apply(entry, c.timeout) }

// commands reports whether the log has a command of the newest term that is not applied yet.
func (c *consensus) commands(term, applied uint64) bool {
	for i := c.raft.LastIndex(); i > applied; i-- {
		switch l, err := c.log.Entry(i); {
		case err != nil || l.Term != term:
			return false
		case l.Type == raft.LogCommand:
			return true
		}
	}
	return false
}

// confirm returns an index at or after every write that was answered before the call, once a majority has
// shown that no later leader had been elected when it was called.
func (c *consensus) confirm(ctx context.Context, term uint64) (uint64, error) {
	index := c.raft.CommitIndex()
	mark := c.net.Mark()
	// The voters at this moment are enough. Two configurations that follow each other have a voter in common in any two
	// majorities, so if a later leader had been elected, one of these voters would know its term.
	servers := c.raft.GetConfiguration().Configuration().Servers
	voter := func(id raft.ServerID) bool {
		return slices.ContainsFunc(servers, func(s raft.Server) bool { return s.ID == id && s.Suffrage == raft.Voter })
	}
	others := 0 // that make a majority, with this node
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			others++
		}
	}
	others /= 2
	for asked := false; ; asked = true {
		confirmed := c.net.Watch()
		if c.raft.State() != raft.Leader || c.raft.CurrentTerm() != term {
			return 0, errNotLeader
		}
		if c.net.Confirmed(term, mark, voter) >= others {
			return index, nil
		}
		// At the beginning of a term the transport does not know yet where to send. VerifyLeader is called only to make
		// raft send heartbeats: its result also counts replies to earlier ones.
		if !asked && c.net.Beat(term, voter) < others {
			c.raft.VerifyLeader()
		}
		select {
		case <-confirmed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// confirmedBy confirms, without a message, that this node leads in a term, and returns its commit index. A voter has asked
// this node, and had recorded no later term by then: of up to three voters, the two are a majority. A leader of a later term
// needs the vote of one of them, so there was none when the voter asked.
func (c *consensus) confirmedBy(voter MemberID, term uint64) (index uint64, ok bool) {
	index = c.raft.CommitIndex()
	voters, asks := c.voters(), serverID(voter)
	majority := len(voters) <= 3 && asks != c.self && slices.Contains(voters, asks) && slices.Contains(voters, c.self)
	return index, majority && c.raft.State() == raft.Leader && c.raft.CurrentTerm() == term
}

// takeSnapshot takes a snapshot and removes the part of the log that is not kept. It reports whether it did. applied is
// the index that the state machine has applied, at least.
func (c *consensus) takeSnapshot(applied uint64) (taken bool, err error) {
	kept := c.log.Tail(keptTailEntries, keptTail)
	if err := c.reload(func(r *raft.ReloadableConfig) { r.TrailingLogs = kept }); err != nil {
		return false, err
	}
	err = c.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, raft.ErrRaftShutdown) {
		return false, nil
	}
	// Raft refuses a snapshot, with an error without a name, while a committed change of the members is not
	// applied. The next entry makes this node try again.
	if err != nil && c.raft.GetConfiguration().Index() > applied {
		return false, nil
	}
	return err == nil, err
}

// pokeObserver makes followLeadership look, as if raft had observed something.
func (c *consensus) pokeObserver() {
	select {
	case c.observations <- raft.Observation{}:
	default: // an observation waits already
	}
}

// stop ends raft and waits for its goroutines.
func (c *consensus) stop() error { return c.raft.Shutdown().Error() }

// describe fills in the fields of a Status that raft and its log know.
func (c *consensus) describe(s *Status) {
	s.Durable = c.log.Durable()
	disk := c.log.Condition()
	s.DiskRefused, s.DiskError, s.DiskStalled = disk.Short, disk.Lack, disk.Stalled
	s.Committed = min(c.raft.CommitIndex(), s.Durable) // raft's own may run ahead of the disk
	switch c.raft.State() {
	case raft.Leader:
		s.Role = RoleLeader
	case raft.Candidate:
		s.Role = RoleCandidate
	}
	if s.Role == RoleLeader {
		return
	}
	s.LastContact = -1
	if last := c.raft.LastContact(); !last.IsZero() {
		s.LastContact = time.Since(last)
	}
}
