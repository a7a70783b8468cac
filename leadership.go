// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"iter"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/signal"
)

// A ClusterLeader is the member that leads the cluster, as far as a node knows.
type ClusterLeader struct {
	Leader MemberID `json:"leader"` // 0: none is known
	Term   uint64   `json:"term"`
	Self   bool     `json:"self"` // this node leads
}

// ClusterLeaders yields the leader of the cluster that this node knows, and the latest one again after
// each change. A slow loop misses the changes in between and slows nothing down. The sequence ends when
// ctx ends or the node closes. A node may believe that it leads for up to an election timeout after
// another was elected, so neither reads nor writes rely on it. Do not rely on it either: to elect an
// instance of your service, use [RunAsLeader].
func (n *Node) ClusterLeaders(ctx context.Context) iter.Seq[ClusterLeader] {
	return func(yield func(ClusterLeader) bool) {
		for first, last := true, (ClusterLeader{}); ; {
			changed := n.lead.Changed()
			if lead := n.lead.Now(); first || lead != last {
				if first, last = false, lead; !yield(lead) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-n.life.Closing():
				return
			}
		}
	}
}

// A leadership is what a node knows about the leader of its cluster. followLeadership writes it; every
// goroutine may read it.
type leadership struct {
	current atomic.Pointer[ClusterLeader]
	changed signal.Signal // of current
	opened  time.Time
	vacant  atomic.Int64 // since when no leader is known, in nanoseconds since opened; 0 while one is
	// ready is the value of current during which this node, as the leader, applied a command of its term.
	// It is the pointer and not the term, so that losing the lead ends it.
	ready atomic.Pointer[ClusterLeader]
}

// newLeadership returns the leadership of a node that knows no leader yet.
func newLeadership() *leadership {
	l := &leadership{opened: time.Now()}
	l.current.Store(&ClusterLeader{})
	l.vacant.Store(1)
	return l
}

// Now returns the leader that is known.
func (l *leadership) Now() ClusterLeader { return *l.current.Load() }

// Changed returns a channel that the next change of Now closes. To miss none, call it before Now.
func (l *leadership) Changed() <-chan struct{} { return l.changed.Wait() }

// Vacant returns for how long no leader has been known, 0 while one is.
func (l *leadership) Vacant() time.Duration {
	since := l.vacant.Load()
	if since == 0 {
		return 0
	}
	return max(time.Since(l.opened)-time.Duration(since), 1)
}

// Ready reports whether this node leads and has applied a command of its term since it learned that it
// leads. Before that, it does not know everything that its predecessors committed, and it keeps no
// deadlines of leases. The term of the newest view is no evidence: the node may have applied that command
// before it learned that it leads.
func (l *leadership) Ready() bool {
	ready := l.ready.Load()
	return ready != nil && ready == l.current.Load()
}

// set replaces the known leader, and returns the previous one. The caller calls announce when everything
// else has followed.
func (l *leadership) set(lead ClusterLeader) (old ClusterLeader) {
	old = *l.current.Swap(&lead)
	switch {
	case lead.Leader != 0:
		l.vacant.Store(0)
	case old.Leader != 0:
		l.vacant.Store(int64(time.Since(l.opened)))
	}
	return old
}

// announce wakes all goroutines that wait for a change.
func (l *leadership) announce() { l.changed.Broadcast() }

// applied notes the term of the newest applied command. It returns the leader that is known, for the
// consumers of the same batch: what they do for a leader that has just become ready, they do exactly once.
func (l *leadership) applied(term uint64) ClusterLeader {
	lead := l.current.Load()
	if lead.Self && lead.Term == term {
		l.ready.Store(lead)
	}
	return *lead
}

// leaderGrace is how many election timeouts a node may know no leader before it is not ready and the
// watches that require a leader end. After a crash of its leader, a cluster elects another within them.
const leaderGrace = 3

// followLeadership keeps the leadership current. It begins each term that this node leads with a command,
// and repeats that until the node is ready.
func (s *supervisor) followLeadership() {
	first := &firstCommand{s: s}
	grace := leaderGrace * s.cfg.ElectionTimeout
	vacant := time.NewTimer(grace)
	defer vacant.Stop()
	for {
		if old, lead := s.lead.Now(), s.raft().leadership(); lead != old {
			s.setLeadership(lead)
			switch {
			case lead.Leader != 0:
				vacant.Stop()
			case old.Leader != 0:
				vacant.Reset(grace)
			}
		}
		var again <-chan time.Time
		if lead := s.lead.Now(); lead.Self && !s.lead.Ready() {
			again = first.send(lead.Term)
		}
		look, revived := s.revive()
		if revived {
			continue // the new raft does not repeat what it knows already
		}
		select {
		case <-s.raft().observations:
		case <-again:
		case <-look:
		case <-vacant.C:
			if !s.joiner.gathers() { // a founder that waits for the others logs that itself
				s.cfg.Logger.Warn("no leader for three election timeouts", "err", s.peers.noLeader())
			}
		case <-s.life.Context().Done(): // after the hand-over
			return
		}
	}
}

// setLeadership replaces the known leader, and logs the change. Only followLeadership's goroutine calls it.
func (s *supervisor) setLeadership(lead ClusterLeader) {
	old := s.lead.set(lead)
	if lead.Leader != 0 && lead.Leader != old.Leader {
		s.meter.Add(MetricLeaderChanges, 1)
	}
	if lead.Leader != 0 {
		s.peers.forgetTroubles()
	}
	if !lead.Self {
		s.demote()
	}
	s.lead.announce()
	if s.life.Err() != nil {
		return // the other nodes log the next leader
	}
	if lead.Leader == 0 {
		if old.Leader != 0 { // it is a warning if that lasts
			s.cfg.Logger.Debug("the leader is lost", "leader", old.Leader.String(), "name", s.nameOf(old.Leader), "term", old.Term)
		}
		return
	}
	s.cfg.Logger.Info("leadership", "leader", lead.Leader.String(), "name", s.nameOf(lead.Leader), "term", lead.Term, "self", lead.Self)
	if lead.Self && s.views.Summary().Epoch == 0 {
		s.cfg.Logger.Info("founded a new cluster", "cluster", s.cfg.Cluster, "founders", len(s.raft().voterIDs()))
	}
}

// nameOf returns the name of a member, or nothing if this node does not know it yet.
func (s *supervisor) nameOf(id MemberID) string {
	m, _ := s.views.Summary().Members.Get(uint64(id))
	return m.Name
}

// A firstCommand begins a term that this node leads. Only followLeadership's goroutine uses it.
type firstCommand struct {
	s    *supervisor
	term uint64
	seen time.Time // when it was last sent, or found to be in the log
}

// send sends the command of a term, unless it was sent a moment ago or the log has a command of the term
// that is not applied yet: behind a disk that hangs, they would accumulate. Raft may drop the command, for
// instance while it hands leadership over. Repeating it does no harm. It does not wait until the log has
// few unapplied entries, since elections leave entries that are applied only after it.
//
// It returns when to call send again.
func (f *firstCommand) send(term uint64) <-chan time.Time {
	timeout := f.s.cfg.ElectionTimeout
	if left := timeout - time.Since(f.seen); f.term == term && left > 0 {
		return time.After(left)
	}
	if c := f.s.raft(); f.term != term || !c.commands(term, f.s.views.Summary().Index) {
		first := command.Command{Term: true, Epoch: max(rand.Uint64(), 1)} // the first epoch names the cluster
		c.append(command.OfCluster(first))
	}
	f.term, f.seen = term, time.Now()
	return time.After(timeout)
}

// Raft looks for its leader after a random time between one and two election timeouts, and after another
// such time if the leader was silent for less than one. So a follower may notice only three election
// timeouts after a crash that its leader is gone. It then asks the others for an election, and those that
// have not noticed yet refuse. Two measures shorten that to one election timeout:
//
//   - campaign makes raft look when the leader has been silent for an election timeout. The voters take
//     turns, so that they do not stand at the same time and split the votes;
//   - a voter does not refuse others for the sake of a leader that has been silent for half of that: see
//     raftnet.

// turnsPerTimeout is how many voters get their turn within an election timeout. Followers receive the last
// heartbeat of a leader at moments up to a fifth of a timeout apart.
const turnsPerTimeout = 3

// campaign makes this node stand for election when its leader is silent and the node's turn has come. If
// raft asks for an election earlier, that waits for the turn, too.
func (s *supervisor) campaign() {
	for {
		wait := s.cfg.ElectionTimeout // raft goes on by itself
		if left := time.Until(s.turnToStand()); left > 0 {
			wait = left
		} else {
			s.raft().look()
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-s.life.Context().Done():
			again.Stop()
			return
		}
	}
}

// turnToStand returns when it is this node's turn to stand for election if its leader stays silent.
func (s *supervisor) turnToStand() time.Time {
	leader, since := s.raft().silence()
	rank := rank(s.id, leader, s.raft().voterIDs())
	turn := since.Add(s.cfg.ElectionTimeout * time.Duration(turnsPerTimeout+rank) / turnsPerTimeout)
	if yields := s.raft().net.Yields(); yields.After(turn) {
		return yields
	}
	return turn
}

// rank returns how many voters have their turn before a node. The first is the one that follows the leader
// in the order of IDs; the least ID follows the greatest.
func rank(node, leader MemberID, voters []MemberID) (before int) {
	for _, v := range voters {
		if v != leader && v-leader < node-leader {
			before++
		}
	}
	return before
}
