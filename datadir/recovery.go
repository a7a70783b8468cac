// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/state"
)

// A recovery decides how a directory continues.
type recovery struct {
	in        *inspector
	survivors []Inspection
	done      Recovery
}

func (rec *recovery) decide() (next raftlog.Continuation, err error) {
	in := rec.in
	s := in.snapshots()
	applied := max(in.log.Recorded, s.View().Index)
	in.replay(s, in.log.Last)
	if err := in.verdict(); err != nil {
		return next, err
	}
	me, err := rec.member(s.View())
	if err != nil {
		return next, err
	}
	if err := rec.compare(); err != nil {
		return next, err
	}
	voter := me.Voter
	me.Voter, me.Wanted = true, true
	rec.done = Recovery{
		Member: in.found.Member, Name: me.Name, Addr: me.Addr, WasNonVoter: !voter,
		ClusterID: in.found.ClusterID, Epoch: newEpoch(), LastIndex: in.found.DurableIndex, LastTerm: in.found.LastTerm,
		Revision: in.found.Revision, AppliedIndex: applied,
	}
	rec.count()
	term := rec.nextTerm()
	s.Recover(rec.done.LastIndex, term, uint64(rec.done.Epoch), me)
	return raftlog.Continuation{
		Index: rec.done.LastIndex, Term: term,
		Member: raftlog.Member{ID: raftlog.ServerID(uint64(in.found.Member)), Addr: me.Addr, Voter: true},
		State: func(w io.Writer) error {
			_, err := s.Snapshot().WriteTo(breakable.Writer{Writer: w, Broken: in.broken})
			return err
		},
	}, nil
}

// newEpoch draws a number that distinguishes the cluster from the one that it was before.
func newEpoch() ID { return ID(max(rand.Uint64(), 1)) }

// member returns the member that the directory belongs to, as it is from now on.
func (rec *recovery) member(v *state.View) (me state.Member, err error) {
	in := &rec.in.found
	switch {
	case in.RestoreUnfinished:
		return me, fmt.Errorf("%w: %s", coterie.ErrRestoreUnfinished, in.Dir)
	case in.ClusterID == 0:
		return me, fmt.Errorf("%w: the node of %s was never let into a cluster", ErrNothingToRecover, in.Dir)
	case in.LastTerm <= raftlog.FoundingTerm:
		return me, fmt.Errorf("%w: %s has at most the founding of its cluster", ErrNothingToRecover, in.Dir)
	}
	me, ok := v.Members.Get(uint64(in.Member))
	if !ok {
		return me, fmt.Errorf("%w: %s belongs to %v, which had been removed", coterie.ErrMemberNotFound, in.Dir, in.Member)
	}
	me.Incarnation, me.Run = uint64(in.Incarnation), run.Number{}
	return me, nil
}

// compare refuses a directory that has less than a survivor, by the rule of elections: the later last term
// wins, and then the higher index.
func (rec *recovery) compare() error {
	mine := &rec.in.found
	for i := range rec.survivors {
		other := &rec.survivors[i]
		if other.ClusterID != mine.ClusterID || other.Epoch != mine.Epoch && other.Epoch != 0 && mine.Epoch != 0 {
			return fmt.Errorf("%w: %s is of cluster %v, epoch %v, %s of cluster %v, epoch %v", coterie.ErrClusterMismatch,
				other.Dir, other.ClusterID, other.Epoch, mine.Dir, mine.ClusterID, mine.Epoch)
		}
		if other.LastTerm > mine.LastTerm || other.LastTerm == mine.LastTerm && other.DurableIndex > mine.DurableIndex {
			return &BehindError{Member: other.Member, Dir: other.Dir, Index: other.DurableIndex, Term: other.LastTerm}
		}
	}
	return nil
}

// count counts the voters with a complete directory among the inspected ones. NothingLost needs a majority. Half of an
// even number of voters would intersect every majority, too, but the other voters may have added a member since, and
// then have a majority without the inspected ones.
func (rec *recovery) count() {
	complete := map[coterie.MemberID]bool{}
	for _, in := range append([]Inspection{rec.in.found}, rec.survivors...) {
		complete[in.Member] = complete[in.Member] || rec.hasAllAcknowledged(&in)
	}
	for _, m := range rec.in.found.Members {
		if !m.Voter {
			continue
		}
		rec.done.Voters = append(rec.done.Voters, m)
		if complete[m.ID] {
			rec.done.InspectedVoters++
		}
	}
	rec.done.NothingLost = rec.done.InspectedVoters > len(rec.done.Voters)/2
}

// hasAllAcknowledged reports whether a directory has everything that its member acknowledged.
func (rec *recovery) hasAllAcknowledged(in *Inspection) bool {
	for _, m := range rec.in.found.Members {
		if m.ID == in.Member && m.Incarnation != 0 && m.Incarnation != in.Incarnation {
			return false // the member has had another directory since
		}
	}
	return !in.MayLackAcknowledged && len(in.DamagedFiles)+len(in.OtherFormats) == 0
}

// nextTerm returns a term later than any known one. It has no entry, and no member has led or leads in it.
func (rec *recovery) nextTerm() uint64 {
	last := max(rec.in.found.Term, rec.in.found.LastTerm)
	for _, in := range rec.survivors {
		last = max(last, in.Term, in.LastTerm)
	}
	return last + 1
}
