// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/proposer"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// An fsm gives the committed log to the state machine, in raft's FSM goroutine, which owns all fields but
// received. The state depends on the log alone. An applier learns the outcome of each batch.
type fsm struct {
	state    *state.State
	changing sync.Locker // the lock of the views: held while the state changes, and while a snapshot shares its trees
	applier  applier
	effects  effects
	fed      uint64                  // the index that raft gave last: after a restart it is behind the state
	fenced   bool                    // the log cannot be understood: nothing more is applied
	closing  <-chan struct{}         // snapshots in either direction are cut short
	durable  func(index uint64) bool // waits until an entry is on the disk; false if it never will be

	// received is the state of the newest snapshot of a leader, until Restore takes it. Raft's main loop
	// sets it, and waits while Restore runs.
	received *state.State
}

// An applier learns the outcome of each batch of the log.
type applier interface {
	// publish makes the state after a batch visible. The caller holds the lock of the views.
	publish(s *state.State, e *effects) appliedBatch
	// applied follows publish, without the lock.
	applied(b appliedBatch)
	// replace makes the state of a snapshot visible, as publish does, and restored follows.
	replace(s *state.State)
	restored(s *state.State)
	fence(err error)
}

// effects are the outcome of a batch beside the change of the state.
type effects struct {
	me      func(id uint64) bool // whether the proposals with an ID are this node's own
	answers []proposer.Answer
	leases  []lease.Lease // that were granted or, without a TTL, have ended
}

func newFSM(changing sync.Locker, a applier, me func(uint64) bool, closing <-chan struct{}, durable func(uint64) bool) *fsm {
	return &fsm{state: state.New(), changing: changing, applier: a, effects: effects{me: me}, closing: closing, durable: durable}
}

// load brings the state machine to the state that it had when the node last ran, as far as the log knows:
// from the newest snapshot and the entries after it. Raft starts behind that. The founding entries need no
// majority, because every founder has them.
func (f *fsm) load(log *raftlog.Log) error {
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
	if err := log.Replay(next, last, func(batch []*raft.Log) { f.ApplyBatch(batch) }); err != nil {
		return fmt.Errorf("reading the log: %w", logError(err))
	}
	return nil
}

// ApplyBatch is raft.BatchingFSM: entries in the order of the log, commands and configurations.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	// A leader commits entries that a majority of the other nodes has. Entries that its own disk may still
	// lose are applied, and so visible, only later.
	if f.fenced || !f.durable(logs[len(logs)-1].Index) {
		f.fenced = true
		return results
	}
	f.fed = logs[len(logs)-1].Index
	f.effects.answers, f.effects.leases = f.effects.answers[:0], f.effects.leases[:0]
	f.changing.Lock()
	var err error
	for _, l := range logs {
		if err = f.apply(l); err != nil {
			break
		}
	}
	b := f.applier.publish(f.state, &f.effects)
	f.changing.Unlock()
	f.applier.applied(b)
	if err != nil {
		f.fenced = true
		f.applier.fence(damaged(err))
	}
	return results
}

func (f *fsm) apply(l *raft.Log) error {
	switch l.Type {
	case raft.LogCommand:
		return f.state.Apply(l.Index, l.Term, l.Data, &f.effects)
	case raft.LogConfiguration:
		members, err := raftlog.Members(l.Data)
		if err != nil {
			return err
		}
		f.state.Configure(l.Index, configured(members))
	default:
		f.state.Advance(l.Index)
	}
	return nil
}

// Apply is raft.FSM. Raft calls ApplyBatch instead.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// StoreConfiguration is raft.ConfigurationStore: with it, entries that change the members come to
// ApplyBatch too. Raft does not call it.
func (f *fsm) StoreConfiguration(uint64, raft.Configuration) {}

// configured returns the servers of a configuration.
func configured(members []raftlog.Member) []state.Server {
	all := make([]state.Server, 0, len(members))
	for _, m := range members {
		all = append(all, state.Server{ID: uint64(memberOf(m.ID)), Addr: m.Addr, Voter: m.Voter})
	}
	return all
}

// Snapshot is raft.FSM. Its cost does not depend on the size of the store.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.fenced {
		return nil, ErrCorrupt
	}
	f.changing.Lock()
	s := f.state.Snapshot()
	f.changing.Unlock()
	if f.fed < s.Index() {
		return nil, raft.ErrNothingNewToSnapshot // raft would record it under the index that it gave last
	}
	return &snapshot{s, f.closing}, nil
}

// receive reads a snapshot of another node, and returns why no state can be made of it. Then it must not be
// kept, because Open would find it. receive runs in raft's main loop.
func (f *fsm) receive(index uint64, body io.Reader) error {
	in := &breakable.Reader{Reader: body, Broken: breakable.When(f.closing, ErrClosed)}
	s, err := state.Read(in)
	switch {
	case in.Err != nil:
		return in.Err
	case err != nil:
		return fmt.Errorf("%w: %w", raftlog.ErrSnapshot, err)
	case s.Index() > index:
		return fmt.Errorf("%w: its state is of entry %d, and it says %d", raftlog.ErrSnapshot, s.Index(), index)
	}
	f.received = s
	return nil
}

// Restore is raft.FSM. The snapshot replaces the state once it is read to its end and found to be whole: by
// receive, if it has just come. A damaged one stops the node, because raft itself would panic.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	s := f.received
	if f.received = nil; s == nil {
		if s = f.read(r); s == nil {
			return nil
		}
	}
	f.changing.Lock()
	f.state, f.fed = s, s.Index()
	f.applier.replace(s)
	f.changing.Unlock()
	f.applier.restored(s)
	return nil
}

// read returns the state of a snapshot that this node has taken. If it cannot be read, read stops the node and
// returns nil.
func (f *fsm) read(r io.Reader) *state.State {
	in := &breakable.Reader{Reader: r, Broken: breakable.When(f.closing, ErrClosed)}
	s, err := state.Read(in)
	if err != nil {
		f.fenced = true
		switch {
		case errors.Is(in.Err, ErrClosed) || vfs.Short(in.Err): // only a log that ends gives up on a shortage
		case in.Err != nil:
			f.applier.fence(diskError(in.Err))
		default:
			f.applier.fence(damaged(err))
		}
		return nil
	}
	return s
}

// A snapshot is the state as it was, for raft to write out while the log goes on.
type snapshot struct {
	*state.Snapshot
	closing <-chan struct{}
}

// Persist is raft.FSMSnapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	// A sink in memory keeps the immutable state itself instead of its bytes.
	if keeper, ok := sink.(interface {
		Keep(func(io.Writer) (int64, error))
	}); ok {
		keeper.Keep(s.WriteTo)
		return sink.Close()
	}
	if file, ok := sink.(interface{ Own(broken breakable.Broken) }); ok {
		file.Own(breakable.When(s.closing, ErrClosed))
	}
	if _, err := s.WriteTo(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

// Release is raft.FSMSnapshot.
func (s *snapshot) Release() {}

// An appliedBatch is what one batch of the log has changed.
type appliedBatch struct {
	lead     ClusterLeader  // as this node knew it when the batch was applied
	old, now *state.Summary // before the batch and after it
	state    *state.State   // after it
	effects  *effects
}

// consumers are the parts of a node that follow its log, in the order in which they are given each batch. They
// run in the FSM's goroutine.
type consumers struct {
	n       *Node
	inOrder []func(appliedBatch)
}

func newConsumers(n *Node) *consumers {
	c := &consumers{n: n}
	c.inOrder = []func(appliedBatch){
		// The other nodes, which wait for the commit index, and the members.
		func(b appliedBatch) {
			if b.lead.Self {
				n.raft().net.Committed(b.lead.Term, b.now.Index)
			}
		},
		func(b appliedBatch) {
			if !slices.Equal(b.now.Members, b.old.Members) {
				c.membersChanged(b.now)
			}
		},
		// Only then the calls and the watches: they find what they are woken for.
		func(b appliedBatch) { n.proposer.Answered(b.effects.answers) },
		func(b appliedBatch) {
			n.hub.Applied(b.state.KV(), b.old.Revision)
			if b.now.Auth != b.old.Auth {
				n.hub.WakeAll() // a user may have lost the permission to watch
			}
		},
		// At last the parts that write something themselves: compactions and snapshots.
		func(b appliedBatch) {
			if b.lead.Self {
				n.retention.Applied(b.state.KV())
			}
		},
		func(b appliedBatch) { n.supervisor.snapshotDue(b.now) },
		func(b appliedBatch) { n.meter.Add(MetricEntriesApplied, int(b.now.Index-b.old.Index)) },
	}
	return c
}

// publish is the applier.
func (c *consumers) publish(s *state.State, e *effects) appliedBatch {
	b := appliedBatch{lead: c.n.lead.applied(s.Term()), old: c.n.views.Summary(), state: s, effects: e}
	// Two parts come before the state is published. A call that has waited for the state asks for the deadlines of its leases;
	// and nothing that was visible may be discarded from the log.
	if b.lead.Self && s.Term() == b.lead.Term {
		c.n.leases.expirer.Applied(b.lead.Term, s.Leases(), e.leases)
	}
	c.n.log.Applied(s.Index())
	b.now = c.n.views.publish(s)
	return b
}

// applied is the applier: it gives a batch to the consumers.
func (c *consumers) applied(b appliedBatch) {
	for _, consume := range c.inOrder {
		consume(b)
	}
}

// replace is the applier.
func (c *consumers) replace(s *state.State) { c.n.views.publish(s) }

// restored is the applier: a snapshot has replaced the state.
func (c *consumers) restored(s *state.State) {
	now := c.n.views.Summary()
	c.membersChanged(now)
	c.n.proposer.Restored(s.Result)
	c.n.hub.Replaced(now.Revision)
	if r, started := c.n.supervisor.started(); started && c.n.log.Astray() {
		r.astray.Store(true)
		r.pokeObserver()
	}
}

// fence is the applier: the log or a snapshot cannot be read or understood, so this replica must not go on.
func (c *consumers) fence(err error) {
	c.n.cfg.Logger.Error("node stops", "err", err)
	c.n.stop(err, false)
}

// membersChanged makes the node follow a change of the members. While Open loads entries that were applied before, it
// does nothing: Open looks at the members when it has started raft.
func (c *consumers) membersChanged(v *state.Summary) {
	if _, started := c.n.supervisor.started(); started {
		c.n.joiner.membersChanged(v)
	}
}

// Granted and Ended are state.Sink.

func (e *effects) Granted(l lease.Lease) { e.leases = append(e.leases, l) }

func (e *effects) Ended(id int64) { e.leases = append(e.leases, lease.Lease{ID: id}) }

// Answer is state.Sink. Only the node that proposed something waits for its result.
func (e *effects) Answer(id, seq uint64, r *command.Result) {
	if e.me(id) {
		e.answers = append(e.answers, proposer.Answer{Proposer: id, Seq: seq, Result: r})
	}
}
