// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"time"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/state"
)

const (
	// keptTail and keptTailEntries bound the log that a snapshot leaves behind, so that a follower that was away for a
	// while needs no snapshot.
	keptTail        = 64 << 20
	keptTailEntries = 10_000
	// snapshotBytes of log are due for a snapshot, however few the entries.
	snapshotBytes = 64 << 20
	// snapshotShare is the part of a snapshot's size that the log has to reach before the next one is due, however many
	// the entries. It bounds the writes of snapshots to a multiple of those of the log. Applying so many entries takes
	// less time than loading the snapshot.
	snapshotShare = 16
)

// A snapshotRule decides when a node takes a snapshot. All members have the same log, so with the same rule they would
// take their snapshots at the same moment, and no majority would commit writes undisturbed. So the members take turns:
// each has its own place in every Config.SnapshotEntries entries.
type snapshotRule struct {
	entries uint64 // Config.SnapshotEntries
	rank    uint64 // the number of members with lower IDs
	members uint64 // more than rank
}

// rule returns the rule of this node among the members of a summary.
func (s *supervisor) rule(v *state.Summary) snapshotRule {
	rank := uint64(v.Members.Rank(uint64(s.id)))
	return snapshotRule{s.cfg.SnapshotEntries, rank, max(uint64(len(v.Members)), rank+1)}
}

// due reports whether a snapshot is due when the state machine has applied an index.
func (r snapshotRule) due(g raftlog.Growth, applied uint64) bool {
	limit := max(snapshotBytes, g.Size)
	if g.Bytes >= limit-limit/4/int64(r.members)*int64(r.rank) {
		return true
	}
	place := r.entries / r.members * r.rank
	return r.round(applied, place) > r.round(g.Snapshot, place) && g.Bytes >= g.Size/snapshotShare
}

// round returns how many times a log up to an index has reached a place.
func (r snapshotRule) round(index, place uint64) uint64 {
	rounds := index / r.entries
	if index%r.entries >= r.entries-place {
		rounds++
	}
	return rounds
}

// snapshotDue makes takeSnapshots look again if a snapshot is due.
func (s *supervisor) snapshotDue(v *state.Summary) {
	if s.rule(v).due(s.log.Growth(), v.Index) {
		signal.Poke(s.due)
	}
}

// takeSnapshots takes a snapshot whenever one is due.
func (s *supervisor) takeSnapshots() {
	for {
		select {
		case <-s.due:
		case <-s.life.Closing():
			return
		}
		v := s.views.Summary()
		if !s.rule(v).due(s.log.Growth(), v.Index) {
			continue // the last one has come since
		}
		begin := time.Now()
		taken, err := s.raft().takeSnapshot(v.Index)
		if err != nil {
			s.cfg.Logger.Warn("snapshot failed", "err", err)
			select { // otherwise each entry would begin another snapshot
			case <-time.After(s.cfg.ElectionTimeout):
				signal.Poke(s.due)
			case <-s.life.Closing():
				return
			}
			continue
		}
		if taken && s.cfg.Metrics != nil {
			s.meter.Observe(MetricSnapshotSeconds, time.Since(begin).Seconds())
			s.meter.Observe(MetricSnapshotBytes, float64(s.log.Growth().Size))
		}
	}
}
