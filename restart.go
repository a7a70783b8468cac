// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// Raft is started again, on the same log and with the same state machine, in two cases: when it is wedged, and
// when a snapshot of the leader shows that the log of this node went astray. For the other nodes that is a
// change of leader.

// revive starts raft again if it has been wedged for two election timeouts, or if its log went astray. It
// returns when to call revive again, nil for not before something happens, and whether raft was started
// again. Only followLeadership's goroutine calls it.
func (s *supervisor) revive() (again <-chan time.Time, revived bool) {
	c := s.raft()
	switch {
	case c.astray.Load():
		s.rebuild()
		return nil, s.raft() != c // otherwise the node stops
	case c.doubted.Load() == nil:
		return nil, false
	case !c.wedged():
		c.wedgedSince = time.Time{}
	case c.wedgedSince.IsZero():
		c.wedgedSince = time.Now()
	case time.Since(c.wedgedSince) >= 2*c.timeout:
		s.rebuild()
		return nil, s.raft() != c
	}
	return time.After(c.timeout), false
}

// rebuild ends raft and starts it again. The state machine skips the entries that it has applied.
func (s *supervisor) rebuild() {
	s.restart.Lock()
	defer s.restart.Unlock()
	if s.life.Context().Err() != nil {
		return
	}
	s.cfg.Logger.Warn("raft is stuck, and started again")
	old := s.raft()
	// At once, because the end of the old raft may have to wait for the disk.
	s.setLeadership(ClusterLeader{Term: s.lead.Now().Term})
	if err := errors.Join(old.net.Close(), old.stop(), s.mend(), s.start()); err != nil {
		s.stop(err, false)
	}
	old.pokeObserver() // so that followLeadership turns to the new raft
}

// mend makes the log and the state machine fit for raft to be started on them again, since it ended in the
// middle of something. It drops a log that went astray. If raft had received a snapshot without giving it to
// the state machine, mend gives it: raft begins behind its newest snapshot, and would never do so.
func (s *supervisor) mend() error {
	if err := s.log.Realign(); err != nil {
		return logError(err)
	}
	snapshots, err := s.log.Snapshots().List()
	if err != nil {
		return logError(err)
	}
	if len(snapshots) == 0 || snapshots[0].Index <= s.fsm.state.Index() {
		return nil
	}
	_, r, err := s.log.Snapshots().Open(snapshots[0].ID)
	if err != nil {
		return logError(err)
	}
	return s.fsm.Restore(r)
}

// impossibleIndex is the index of no configuration: raft refuses a change of members that is based on it.
const impossibleIndex = math.MaxUint64

// probe asks raft for a change of members that it refuses in any case, and returns how it refuses.
func (c *consensus) probe() error {
	return c.requests.AddVoter(c.self, "", impossibleIndex, c.timeout).Error()
}

// wedged reports whether this node leads and refuses everything because a hand-over is in progress. After a
// hand-over that has failed, hashicorp/raft may do so forever (hashicorp/raft#696).
func (c *consensus) wedged() bool {
	if c.raft.State() != raft.Leader {
		return false
	}
	err := c.probe()
	switch {
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return true
	case errors.Is(err, raft.ErrEnqueueTimeout): // raft does not answer such requests yet
	default:
		if at := c.doubted.Load(); time.Since(*at) > c.timeout { // the hand-over had begun before the probe
			c.doubted.CompareAndSwap(at, nil)
		}
	}
	return false
}

// stepDown hands leadership over, if this node leads, to the voter that can be reached and has most of the
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

// A handOver is one that was begun: in which term, and how many replies to appends the heir had sent.
type handOver struct{ term, replies uint64 }

// handOver hands leadership over to another server, unless an earlier hand-over to it may still be in
// progress. Raft puts its request to the replication of the heir into a queue of one. If the replication
// hangs, as at a disk, and then ends, because the leader does, a second request waits forever, and a
// goroutine with it. Raft takes from the queue at random among others, so some replies have to arrive first.
func (c *consensus) handOver(to raft.ServerID, addr raft.ServerAddress) (raft.Future, bool) {
	now := handOver{c.raft.CurrentTerm(), c.net.Replies(to)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.handOvers[to]; ok && last.term == now.term && now.replies < last.replies+10 {
		return nil, false
	}
	c.handOvers[to] = now
	defer c.doubt()
	return c.requests.LeadershipTransferToServer(to, addr), true
}

// doubt makes revive check whether raft is wedged.
func (c *consensus) doubt() {
	now := time.Now()
	c.doubted.Store(&now)
	c.pokeObserver()
}
