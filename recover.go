// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Recovery is what [Recover] has kept, and what may be lost. It is the caller's.
type Recovery struct {
	Member     MemberID // with which the cluster goes on, alone
	Name, Addr string
	NonVoter   bool // it had no vote before
	ClusterID  uint64
	Epoch      uint64 // from now on: nodes of the one before are refused
	// Index and Term are of the last entry that was kept, and Revision is what the store has with it.
	Index, Term uint64
	Revision    int64
	// Applied is up to where the node knew that the log was committed. Of the entries behind it, to
	// Index, nobody knows whether they were acknowledged. They are kept.
	Applied uint64
	// Voters are those of the last configuration that the log has, and Inspected is of how many of them
	// a directory was inspected that has all that its member acknowledged, this one among them.
	Voters    []InspectedMember
	Inspected int
	// Complete: those are a majority, so nothing that was acknowledged is lost. Else what was
	// acknowledged behind Index may be.
	Complete bool
}

// String tells an operator, in a few lines, what was kept and what may be lost.
func (r Recovery) String() string {
	var b strings.Builder
	vote := ""
	if r.NonVoter {
		vote = ", which had no vote before,"
	}
	fmt.Fprintf(&b, "cluster %016x goes on with member %v (%s at %s)%s alone, in epoch %016x\n",
		r.ClusterID, r.Member, r.Name, r.Addr, vote, r.Epoch)
	fmt.Fprintf(&b, "kept: everything up to entry %d of term %d, which is revision %d\n", r.Index, r.Term, r.Revision)
	if r.Index > r.Applied {
		fmt.Fprintf(&b, "kept, though nobody may have been answered: entries %d to %d\n", r.Applied+1, r.Index)
	}
	fmt.Fprintf(&b, "inspected: %d of %d voters\n", r.Inspected, len(r.Voters))
	if r.Complete {
		b.WriteString("lost: nothing that was acknowledged")
	} else {
		fmt.Fprintf(&b, "lost: what may have been acknowledged behind entry %d", r.Index)
	}
	return b.String()
}

// Recover has a cluster go on whose majority is lost for good, with the member alone that a directory
// belongs to; its node must not run. Everything that is in the directory is kept, also the end of the
// log of which nobody knows whether it was acknowledged. What other members have beyond that is lost:
// survivors are what [Inspect] has found in all other directories that are left, wherever they are, and
// the directory is refused if one of them has more. That of a member without a vote will do, and so
// will an Inspection of dir itself among the others. With every Inspection that is missing more may
// be lost: [Recovery] tells.
//
// Afterwards open the node as before. It leads at once, and revisions, leases and history go on. The
// cluster has another epoch, so that no node comes back with what it knew before: what is left of the
// others is refused with ErrClusterMismatch. Remove their directories, when the recovered node runs, and
// they come in anew, by Config.Join or with the Founders that they had. See to it that none of them runs
// meanwhile: those that could still make a majority would go on by themselves.
//
// It is done wholly or not at all. If the process ends meanwhile, the node has its old state or the
// new one, and Recover can be called again. It holds all of the state in memory, takes the time of
// Open and that of writing a snapshot, blocks on the disk, and returns after what that is doing when ctx
// ends.
//
// Errors: ErrCorrupt with all that is damaged; ErrFormat; ErrDirInUse; ErrRestoreUnfinished; ErrNothingToRecover
// for the directory of a node that was never let in, or has taken part in nothing; ErrMemberNotFound if
// its member had been removed; a [BehindError], which matches ErrBehind, if a survivor has more;
// ErrClusterMismatch if one is of another cluster or epoch; fs.ErrNotExist if there is no node's
// directory; ctx's cause; or what else the operating system says of the directory. After any but the last
// two nothing of what the directory has was changed. After ctx's cause the node has its old state, in a
// later term at most; after the last that, or the new one.
func Recover(ctx context.Context, dir string, survivors ...Inspection) (Recovery, error) {
	if err := context.Cause(ctx); err != nil {
		return Recovery{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Recovery{}, err
	}
	var done Recovery
	var refused error
	err = raftlog.Recover(vfs.For(ctx), dir, func(r *raftlog.Reader) (next raftlog.Continuation, err error) {
		rec := &recovery{in: newInspector(ctx, dir, r), survivors: survivors}
		next, refused = rec.decide()
		done = rec.done
		return next, refused
	})
	switch {
	case refused != nil:
		return Recovery{}, refused
	case err != nil && context.Cause(ctx) != nil:
		return Recovery{}, context.Cause(ctx)
	case err != nil:
		return Recovery{}, logError(err)
	}
	return done, nil
}

// A recovery decides how a directory goes on.
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
		Member: in.found.Member, Name: me.Name, Addr: me.Addr, NonVoter: !voter,
		ClusterID: in.found.ClusterID, Epoch: newEpoch(),
		Index: in.found.Durable, Term: in.found.LastTerm, Revision: in.found.Revision, Applied: applied,
	}
	rec.count()
	term := rec.nextTerm()
	s.Recover(rec.done.Index, term, rec.done.Epoch, me)
	return raftlog.Continuation{
		Index: rec.done.Index, Term: term,
		Member: raftlog.Member{ID: serverID(in.found.Member), Addr: me.Addr, Voter: true},
		State: func(w io.Writer) error {
			_, err := s.Snapshot().WriteTo(breakable.Writer{Writer: w, Broken: in.broken})
			return err
		},
	}, nil
}

// newEpoch draws what tells a cluster from what it was before.
func newEpoch() uint64 { return max(rand.Uint64(), 1) }

// member returns the member that the directory belongs to, as the cluster goes on with it.
func (rec *recovery) member(v *state.View) (me state.Member, err error) {
	in := &rec.in.found
	switch {
	case in.Unfinished:
		return me, fmt.Errorf("%w: %s", ErrRestoreUnfinished, in.Dir)
	case in.ClusterID == 0:
		return me, fmt.Errorf("%w: the node of %s was never let into a cluster", ErrNothingToRecover, in.Dir)
	case in.LastTerm <= raftlog.FoundingTerm:
		return me, fmt.Errorf("%w: %s has nothing but the founding of its cluster, if that", ErrNothingToRecover, in.Dir)
	}
	me, ok := v.Members.Get(uint64(in.Member))
	if !ok {
		return me, fmt.Errorf("%w: %v, to which %s belongs, had been removed", ErrMemberNotFound, in.Member, in.Dir)
	}
	me.Incarnation, me.Run = in.Incarnation, run.Number{}
	return me, nil
}

// compare refuses a directory that has less than a survivor, by the rule of elections.
func (rec *recovery) compare() error {
	mine := &rec.in.found
	for i := range rec.survivors {
		other := &rec.survivors[i]
		if other.ClusterID != mine.ClusterID || other.Epoch != mine.Epoch && other.Epoch != 0 && mine.Epoch != 0 {
			return fmt.Errorf("%w: %s is of cluster %016x/%x, %s of %016x/%x", ErrClusterMismatch,
				other.Dir, other.ClusterID, other.Epoch, mine.Dir, mine.ClusterID, mine.Epoch)
		}
		if other.LastTerm > mine.LastTerm || other.LastTerm == mine.LastTerm && other.Durable > mine.Durable {
			return &BehindError{Member: other.Member, Dir: other.Dir, Index: other.Durable, Term: other.LastTerm}
		}
	}
	return nil
}

// count tells how many voters' directories are known. A majority is asked for where half of an even
// number would meet every majority, too: those who are not known may have let in another since, and have
// a majority without.
func (rec *recovery) count() {
	known := map[MemberID]bool{}
	for _, in := range append([]Inspection{rec.in.found}, rec.survivors...) {
		known[in.Member] = known[in.Member] || rec.knows(&in)
	}
	for _, m := range rec.in.found.Members {
		if !m.Voter {
			continue
		}
		rec.done.Voters = append(rec.done.Voters, m)
		if known[m.ID] {
			rec.done.Inspected++
		}
	}
	rec.done.Complete = rec.done.Inspected > len(rec.done.Voters)/2
}

// knows reports whether a directory has all that its member has acknowledged.
func (rec *recovery) knows(in *Inspection) bool {
	for _, m := range rec.in.found.Members {
		if m.ID == in.Member && m.Incarnation != 0 && m.Incarnation != in.Incarnation {
			return false // the member has had another one since
		}
	}
	return !in.Forgetful && len(in.Damage)+len(in.OtherFormats) == 0
}

// nextTerm is later than any that is known. It is of no entry, and nobody has led or leads in it.
func (rec *recovery) nextTerm() uint64 {
	last := max(rec.in.found.Term, rec.in.found.LastTerm)
	for _, in := range rec.survivors {
		last = max(last, in.Term, in.LastTerm)
	}
	return last + 1
}

// A BehindError says which survivor has more than the directory that was to be recovered. It matches
// [ErrBehind].
type BehindError struct {
	Member      MemberID
	Dir         string // as its Inspection has it
	Index, Term uint64 // of its last entry
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("%v: member %v (%s) goes on to entry %d of term %d; recover that one", ErrBehind, e.Member, e.Dir, e.Index, e.Term)
}

// Is reports whether target is ErrBehind.
func (e *BehindError) Is(target error) bool { return target == ErrBehind }
