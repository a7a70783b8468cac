// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A consensus is this node's part in Raft, and the only owner of *raft.Raft.
type consensus struct {
	raft         *raft.Raft
	log          *raftlog.Log
	net          *raftnet.Transport
	self         raft.ServerID
	timeout      time.Duration // of an election
	started      time.Time
	observations chan raft.Observation
	doubted      atomic.Pointer[time.Time] // when a hand-over was begun; nil once raft was seen to be well
	wedgedSince  time.Time                 // of revive
	astray       atomic.Bool               // it was sent a snapshot that its log is no part of

	mu        sync.Mutex
	handOvers map[raft.ServerID]handOver // the last to each
}

// termKey is raft's name for the term in its stable store.
var termKey = []byte("CurrentTerm")

// maxUnapplied bounds the entries of a leader that it has not applied. Raft's queue to the state
// machine holds 128 batches; full, it stalls raft's main loop, and with it heartbeats and hand-over.
// What raft has taken from its own queue, and what waits there, comes on top: each at most maxAppend
// entries.
const (
	maxUnapplied = 48
	maxAppend    = 32
)

// keptTail is how much log a snapshot leaves behind, so that a follower that was away for a while
// needs no snapshot.
const (
	keptTail        = 64 << 20
	keptTailEntries = 10_000
	// snapshotBytes of log are due for a snapshot, however few the entries.
	snapshotBytes = 64 << 20
)

// openLog opens the log of a node, and makes its directory the node's: on the first start as the
// configuration says, later as it was then. fresh reports the first start.
func openLog(ctx context.Context, cfg *Config) (log *raftlog.Log, fresh bool, err error) {
	fs, given := vfs.From(ctx), true
	if fs == nil {
		given = false
		fs = vfs.OS{}
		if cfg.InMemory {
			fs = vfs.NewMemory().Mount()
		}
	}
	dir := cfg.Dir
	if cfg.InMemory {
		dir = "/" + cfg.Name
	}
	if log, err = raftlog.Open(fs, dir, cfg.InMemory && !given); err != nil {
		return nil, false, logError(err)
	}
	if fresh, err = identify(log, cfg); err != nil {
		return nil, false, errors.Join(err, log.Close(context.Background()))
	}
	return log, fresh, nil
}

func identify(log *raftlog.Log, cfg *Config) (fresh bool, err error) {
	member := uint64(cfg.memberID(cfg.Name))
	kept, known := log.Identity()
	if !known {
		id := raftlog.Identity{Member: member, Incarnation: newIncarnation(), Runs: run.Line{}.Next(run.Number{}, newDraw())}
		if len(cfg.Join) == 0 {
			id.Cluster = cfg.clusterID()
		}
		return true, logError(log.Identify(id))
	}
	if kept.Member != member {
		return false, fmt.Errorf("%w: %s belongs to member %v, not to %q of %q, which is %v", ErrClusterMismatch, cfg.Dir,
			MemberID(kept.Member), cfg.Name, cfg.Cluster, MemberID(member))
	}
	return false, nil
}

// load brings the state machine to what it had applied when the node last ran, as far as the log
// knows: from the newest snapshot and the entries after it. Raft starts behind that. The founding
// entries need no majority: every founder has them.
func load(log *raftlog.Log, f *fsm) error {
	snapshots, err := log.Snapshots().List()
	if err != nil {
		return logError(err)
	}
	next := uint64(1)
	if len(snapshots) > 0 {
		_, r, err := log.Snapshots().Open(snapshots[0].ID)
		if err != nil {
			return logError(err)
		}
		if err := f.Restore(r); err != nil {
			return err
		}
		next = snapshots[0].Index + 1
	}
	last := log.Recorded()
	if end, err := log.Logs().LastIndex(); err == nil && next == 1 {
		last = max(last, min(end, raftlog.FoundingIndex))
	}
	for next <= last {
		batch := make([]*raft.Log, min(last-next+1, loadBatch))
		for i := range batch {
			if batch[i], err = log.Entry(next); err != nil {
				return fmt.Errorf("reading entry %d: %w", next, logError(err))
			}
			next++
		}
		f.ApplyBatch(batch)
	}
	return nil
}

// loadBatch is how many entries are applied at a time before raft starts.
const loadBatch = 1000

// raft is this node's part in Raft: nil until Open has started it, and another after a rebuild.
func (n *Node) raft() *consensus { return n.consensus.Load() }

// startRaft begins or resumes this node's part in Raft.
func (n *Node) startRaft() error {
	cfg := &n.cfg
	c := &consensus{
		log: n.log, self: serverID(n.id), timeout: cfg.ElectionTimeout, observations: make(chan raft.Observation, 16),
		handOvers: map[raft.ServerID]handOver{}, started: time.Now(),
	}
	c.net = n.newTransport(func() uint64 { return c.raft.CurrentTerm() }, func() uint64 { return c.raft.CommitIndex() })
	conf := raft.DefaultConfig()
	conf.LocalID = c.self
	conf.HeartbeatTimeout = cfg.ElectionTimeout
	conf.ElectionTimeout = cfg.ElectionTimeout
	// Followers wait as long: a leader that gave up earlier would cost an election for a pause that
	// nobody else noticed.
	conf.LeaderLeaseTimeout = cfg.ElectionTimeout
	conf.BatchApplyCh = true
	conf.MaxAppendEntries = maxAppend // and so long is raft's queue
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	conf.TrailingLogs = keptTailEntries
	conf.NoSnapshotRestoreOnStart = true // load has done it
	// This node decides when to take a snapshot: see takeSnapshot.
	conf.SnapshotThreshold = math.MaxUint64
	conf.SnapshotInterval = 24 * time.Hour
	conf.Logger = raftLogger(cfg.Logger)
	var err error
	if c.raft, err = raft.NewRaft(conf, n.fsm, n.log.Logs(), n.log.Stable(), n.log.Snapshots(), c.net); err != nil {
		return fmt.Errorf("starting from what is in %s: %w", cfg.Dir, damaged(err))
	}
	c.raft.RegisterObserver(raft.NewObserver(c.observations, false, func(o *raft.Observation) bool {
		switch state := o.Data.(type) {
		case raft.RaftState:
			if state == raft.Candidate {
				n.count(MetricElections, 1)
			}
			return true
		case raft.LeaderObservation:
			return true
		}
		return false
	}))
	n.consensus.Store(c)
	return nil
}

// revive has raft started again when it was wedged for two election timeouts, or when its log went
// astray. It returns when to look next, if that is to be, and whether it did. followLeadership
// calls it.
func (n *Node) revive() (again <-chan time.Time, revived bool) {
	c := n.raft()
	switch {
	case c.astray.Load():
		n.rebuild()
		return nil, n.raft() != c // else the node ends
	case c.doubted.Load() == nil:
		return nil, false
	case !c.wedged():
		c.wedgedSince = time.Time{}
	case c.wedgedSince.IsZero():
		c.wedgedSince = time.Now()
	case time.Since(c.wedgedSince) >= 2*c.timeout:
		n.rebuild()
		return nil, n.raft() != c
	}
	return time.After(c.timeout), false
}

// rebuild ends raft and starts it again, on the same log and with the same state machine, which skips
// what it has applied. For others it is a change of leader.
func (n *Node) rebuild() {
	n.restart.Lock()
	defer n.restart.Unlock()
	if n.life.Context().Err() != nil {
		return
	}
	n.cfg.Logger.Warn("raft is stuck, and started again")
	old := n.raft()
	// At once, for the end of the old one may have to wait for the disk.
	n.setLeadership(ClusterLeader{Term: n.lead.Now().Term})
	if err := errors.Join(old.net.Close(), old.stop(), n.mend(), n.startRaft()); err != nil {
		n.stop(err, false)
	}
	old.observe() // who waits for it is to turn to the new one
}

// wedged reports whether this node leads, and refuses everything since it is said to hand over. After a
// hand-over that came to nothing, hashicorp/raft may do so for ever (hashicorp/raft#696). It asks for a
// change of members that raft refuses in any case.
func (c *consensus) wedged() bool {
	if c.raft.State() != raft.Leader {
		return false
	}
	err := c.raft.AddVoter(c.self, "", math.MaxUint64, c.timeout).Error()
	switch {
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return true
	case errors.Is(err, raft.ErrEnqueueTimeout): // it does not answer such questions yet
	default:
		if at := c.doubted.Load(); time.Since(*at) > c.timeout { // by then the hand-over was begun
			c.doubted.CompareAndSwap(at, nil)
		}
	}
	return false
}

// found writes the founding entries to an empty log, if that was not done before, and the node is a
// founder. Every founder writes the same. Unlike raft's BootstrapCluster it finishes what a crash left
// half done: the term is written first, and alone says nothing.
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

// newIncarnation draws what tells the data of a directory from all other.
func newIncarnation() uint64 { return max(rand.Uint64(), 1) }

func serverID(id MemberID) raft.ServerID { return raftlog.ServerID(uint64(id)) }

func memberOf(id raft.ServerID) MemberID { return MemberID(raftlog.MemberID(id)) }

// leadership tells who leads, as far as this node knows.
func (c *consensus) leadership() ClusterLeader {
	for {
		term := c.raft.CurrentTerm()
		_, id := c.raft.LeaderWithID()
		self := c.raft.State() == raft.Leader
		if c.raft.CurrentTerm() != term {
			continue
		}
		lead := ClusterLeader{Leader: memberOf(id), Term: term, Self: self}
		// Raft changes these one after the other; a change that is half done is told of when it is
		// done.
		if self != (id == c.self) {
			lead.Leader, lead.Self = 0, false
		}
		return lead
	}
}

// voters returns the servers that have a vote, in the newest configuration of the log: that is the one
// that counts, whether or not it is committed.
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

// founding reports whether this node's log has nothing beyond the founding entries. The term does not
// tell: a node hears of later ones without having been there.
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

// elect makes this node stand for election now, unless it does already.
func (c *consensus) elect() {
	if c.raft.State() == raft.Follower {
		c.net.Elect()
	}
}

// silence returns the leader that this node follows, or has followed last, and since when it has been
// silent.
func (c *consensus) silence() (leader MemberID, since time.Time) {
	id, since := c.net.Heard()
	for _, other := range []time.Time{c.started, c.raft.LastContact()} { // it may have voted since
		if other.After(since) {
			since = other
		}
	}
	return memberOf(id), since
}

// look has a voter that follows look now whether its leader is silent, and stand for election if it is.
// Raft does so whenever its timeout is made shorter.
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

// addressless reports whether this node's own address is missing in the log: it was founded alone,
// without a network. Raft takes no change of members then.
func (c *consensus) addressless() bool {
	return slices.ContainsFunc(c.raft.GetConfiguration().Configuration().Servers, func(s raft.Server) bool {
		return s.ID == c.self && s.Address == ""
	})
}

// The ways to change the members. Each returns a question to raft, which it answers when a majority has
// agreed, or has not: see settle.

func (c *consensus) addNonvoter(id MemberID, addr string) func() error {
	return func() error {
		return changeError(c.raft.AddNonvoter(serverID(id), raft.ServerAddress(addr), 0, c.timeout).Error())
	}
}

// addVoter has an entry follow the change. What a new voter acknowledges before raft has noted that it has
// a vote, raft does not count: the change itself, where that vote is needed for it. Then nothing would
// be committed until something else is written.
func (c *consensus) addVoter(id MemberID, addr string) func() error {
	return func() error {
		change := c.raft.AddVoter(serverID(id), raft.ServerAddress(addr), 0, c.timeout)
		c.append(command.Single(&command.Proposal{Command: command.Command{Term: true}}))
		return changeError(change.Error())
	}
}

func (c *consensus) remove(id MemberID) func() error {
	return func() error { return changeError(c.raft.RemoveServer(serverID(id), 0, c.timeout).Error()) }
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

// changeError makes one error of all those after which another leader is to be asked, or this one again.
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

// retain has the transport forget who is no member any more.
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
func (c *consensus) append(entry []byte) { c.raft.Apply(entry, c.timeout) }

// commands reports whether the log has a command of a term behind what is applied. The term is the
// newest.
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

// confirm returns an index at or after every write answered so far, once a majority has shown that
// no later leader had been elected when it was called.
func (c *consensus) confirm(ctx context.Context, term uint64) (uint64, error) {
	index := c.raft.CommitIndex()
	mark := c.net.Mark()
	for asked := false; ; {
		confirmed := c.net.Watch()
		if c.raft.State() != raft.Leader || c.raft.CurrentTerm() != term {
			return 0, errNotLeader
		}
		voters := c.voters()
		voter := func(id raft.ServerID) bool { return slices.Contains(voters, id) }
		if c.net.Confirmed(term, mark, voter) >= len(voters)/2 { // a majority, with this node
			return index, nil
		}
		if !asked {
			// It has raft send heartbeats at once. Its own verdict is not asked: it counts answers
			// to earlier ones.
			c.raft.VerifyLeader()
			asked = true
		}
		select {
		case <-confirmed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// takeSnapshot takes a snapshot if the log has outgrown the last one, so that what is written for
// snapshots stays in proportion to what is written to the log. It reports whether it did.
func (c *consensus) takeSnapshot(entries uint64) (taken bool, err error) {
	n, bytes := c.log.Size()
	if n < entries && bytes < max(snapshotBytes, c.snapshotSize()) {
		return false, nil
	}
	kept := min(c.log.Tail(keptTail), keptTailEntries)
	if err := c.reload(func(r *raft.ReloadableConfig) { r.TrailingLogs = kept }); err != nil {
		return false, err
	}
	err = c.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, raft.ErrRaftShutdown) {
		return false, nil
	}
	// A change of the members is in the log and not applied yet; raft has no name for this error.
	if err != nil && strings.Contains(err.Error(), "wait until the configuration entry") {
		return false, nil
	}
	return err == nil, err
}

func (c *consensus) snapshotSize() int64 {
	snapshots, err := c.log.Snapshots().List()
	if err != nil || len(snapshots) == 0 {
		return 0
	}
	return snapshots[0].Size
}

// stepDown has another node lead, if this one does: the voter that can be reached and has most of the
// log. It reports whether there is one.
func (c *consensus) stepDown() bool {
	var best *raft.Server
	var most uint64
	for _, s := range c.raft.GetConfiguration().Configuration().Servers {
		if s.ID == c.self || s.Suffrage != raft.Voter {
			continue
		}
		if has := c.net.Acknowledged(s.ID, c.timeout); has > most {
			best, most = &s, has
		}
	}
	if best == nil {
		return false
	}
	_, begun := c.handOver(best.ID, best.Address)
	return begun
}

// A handOver is one that was begun: in which term, and how many replies to appends its heir had given.
type handOver struct{ term, replies uint64 }

// handOver has another server lead, unless one that was begun before may still be under way with it:
// raft leaves its question to the heir's replication in a queue of one. Where that hangs, as at a disk,
// and then ends, because the leader does, a second question waits for ever, and a goroutine with it.
// The queue is taken from at random among others, so some replies have to come in.
func (c *consensus) handOver(to raft.ServerID, addr raft.ServerAddress) (raft.Future, bool) {
	now := handOver{c.raft.CurrentTerm(), c.net.Replies(to)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.handOvers[to]; ok && last.term == now.term && now.replies < last.replies+10 {
		return nil, false
	}
	c.handOvers[to] = now
	defer c.doubt()
	return c.raft.LeadershipTransferToServer(to, addr), true
}

// doubt has revive look whether raft is well.
func (c *consensus) doubt() {
	now := time.Now()
	c.doubted.Store(&now)
	c.observe()
}

// observe has followLeadership look, as if raft had something to tell.
func (c *consensus) observe() {
	select {
	case c.observations <- raft.Observation{}:
	default: // it will come by
	}
}

// stop ends raft and waits for its goroutines.
func (c *consensus) stop() error { return c.raft.Shutdown().Error() }

// describe fills in what raft knows.
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
