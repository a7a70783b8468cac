// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/raftlogger"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/usercode"
)

// A supervisor runs raft for a node: it starts raft, starts it again when it is stuck, follows its leadership and the
// disk, and takes its snapshots. Open sets the fields above current, and no goroutine changes them later; each part
// guards its own state. followLeadership, followDisk, campaign and takeSnapshots have a goroutine each. The other
// methods may be called by any, unless they say otherwise.
type supervisor struct {
	cfg       *Config
	id        MemberID
	life      *lifecycle
	lead      *leadership
	views     *views
	identity  *identity
	peers     *peers
	joiner    *joiner
	log       *raftlog.Log
	meter     *usercode.Meter[Metric]
	transport *transport
	fsm       *fsm
	demote    func()                           // forgets the deadlines of leases
	stop      func(fault error, handOver bool) // stops the node

	current atomic.Pointer[consensus] // nil until start; replaced with restart held
	restart sync.Mutex                // held while raft is started again, or ended for good
	due     chan struct{}             // has a value when a snapshot is due
	turn    chan struct{}             // has a value while a goroutine of submit waits for a free place in the log, and appends
}

func newSupervisor(n *Node, fsm *fsm) *supervisor {
	return &supervisor{
		cfg: &n.cfg, id: n.id, life: n.life, lead: n.lead, views: n.views, identity: n.identity, peers: n.peers, joiner: n.joiner,
		log: n.log, meter: n.meter, transport: n.transport, fsm: fsm, demote: n.leases.expirer.Demote, stop: n.stop,
		due: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
}

// raft returns this node's part in Raft: another one after a restart. It must not be called before Open has
// started raft; the FSM's goroutine, and Open when it fails, call started instead.
func (s *supervisor) raft() *consensus { return s.current.Load() }

// started returns this node's part in Raft, if Open has started it.
func (s *supervisor) started() (c *consensus, started bool) {
	c = s.current.Load()
	return c, c != nil
}

// start begins or resumes this node's part in Raft.
func (s *supervisor) start() error {
	cfg := s.cfg
	c := &consensus{
		log: s.log, self: serverID(s.id), timeout: cfg.ElectionTimeout, observations: make(chan raft.Observation, 16),
		handOvers: map[raft.ServerID]handOver{}, started: time.Now(),
	}
	c.net = s.newTransport(func() uint64 { return c.raft.CurrentTerm() }, func() uint64 { return c.raft.CommitIndex() })
	conf := raft.DefaultConfig()
	conf.LocalID = c.self
	conf.HeartbeatTimeout = cfg.ElectionTimeout
	conf.ElectionTimeout = cfg.ElectionTimeout
	// Followers wait as long. A leader that gave up earlier would cost an election for a pause that no
	// other node noticed.
	conf.LeaderLeaseTimeout = cfg.ElectionTimeout
	conf.BatchApplyCh = true
	conf.MaxAppendEntries = maxAppend // also the length of raft's queue
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	conf.TrailingLogs = keptTailEntries
	conf.NoSnapshotRestoreOnStart = true // fsm.load has done it
	// This node decides when to take a snapshot: see takeSnapshot.
	conf.SnapshotThreshold = math.MaxUint64
	conf.SnapshotInterval = 24 * time.Hour
	conf.Logger = raftlogger.New(cfg.Logger, errGathering)
	var err error
	if c.raft, err = raft.NewRaft(conf, s.fsm, s.log.Logs(), s.log.Stable(), s.log.Snapshots(), c.net); err != nil {
		return fmt.Errorf("starting from the data in %s: %w", cfg.Dir, damaged(err))
	}
	c.requests = c.raft
	if wrap, ok := s.life.Context().Value(wrapRequests{}).(func(requests) requests); ok {
		c.requests = wrap(c.raft)
	}
	c.raft.RegisterObserver(raft.NewObserver(c.observations, false, func(o *raft.Observation) bool {
		switch state := o.Data.(type) {
		case raft.RaftState:
			if state == raft.Candidate {
				s.meter.Add(MetricElections, 1)
			}
			return true
		case raft.LeaderObservation:
			return true
		}
		return false
	}))
	s.current.Store(c)
	return nil
}

// newTransport makes the transport of raft's messages. Raft tells candidates apart by their addresses, but
// two members may have the same address one after the other. So to raft, a member's address is its ID.
func (s *supervisor) newTransport(term, committed func() uint64) *raftnet.Transport {
	return raftnet.New(raftnet.Config{
		Self: serverID(s.id), Addr: raft.ServerAddress(serverID(s.id)), Client: s.transport.client, Timeout: s.cfg.ElectionTimeout,
		Resolve: s.peers.addresses.Find,
		Admit:   s.joiner.mayAnswer,
		Newest:  func() uint64 { return max(s.log.Term(), s.identity.Load().Floor) },
		Check:   command.Check,
		Refused: s.transport.messageRefused,
		Stand:   s.joiner.mayStand,
		Turn:    s.turnToStand,
		Lost:    s.peers.lostData,
		Log:     s.log,
		Applied: func() uint64 { return s.views.Summary().Index },
		Term:    term,

		Committed: committed,
		Heartbeat: func(took time.Duration, err error) { measureHeartbeat(s.meter, took, err) },
	})
}

// end ends raft, if Open has started it, before the stores that it uses are closed. It waits for a restart that is in
// progress. Unless Open fails, the node's own work is over, so that no other restart follows.
func (s *supervisor) end() error {
	s.restart.Lock()
	defer s.restart.Unlock()
	c, started := s.started()
	if !started {
		return nil
	}
	return errors.Join(c.net.Close(), c.stop())
}

// handOver hands leadership over, and waits until another node leads, but not for long.
func (s *supervisor) handOver() {
	unheard := s.raft().net.Unheard()
	if !s.raft().stepDown() {
		return // nobody could take over
	}
	limit := time.NewTimer(min(s.cfg.ElectionTimeout, handOverTime))
	defer limit.Stop()
	for {
		changed := s.lead.Changed()
		if lead := s.lead.Now(); !lead.Self && lead.Leader != 0 {
			return
		}
		select {
		case <-changed:
		case <-unheard:
			return // the heir is gone, as when all nodes of a cluster are closed
		case <-limit.C:
			return
		}
	}
}

// submit appends an entry to the log of this node, which leads. It blocks while too many entries are in
// flight, but not for long: then it drops the entry.
func (s *supervisor) submit(entry []byte) {
	free := func(v *state.Summary) bool { return s.raft().mayAppend(v.Index) || !s.lead.Now().Self }
	// One at a time: many that look at the same moment would each find the same free place.
	select {
	case s.turn <- struct{}{}:
		ready := free(s.views.Summary()) && s.log.HasRoom()
		if ready { // almost always: then submit needs no timer
			s.raft().append(entry)
		}
		<-s.turn
		if ready {
			return
		}
	default:
	}
	ctx, cancel := context.WithTimeout(s.life.Context(), s.cfg.ElectionTimeout)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return
	}
	if _, err := s.views.Await(ctx, free); err != nil || s.log.AwaitRoom(ctx) != nil {
		return
	}
	s.raft().append(entry)
}
