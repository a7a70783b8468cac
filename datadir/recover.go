// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Recovery is the result of [Recover]: the data that it kept, and the data that may be lost. The caller owns it.
type Recovery struct {
	Member      coterie.MemberID  `json:"member"` // the only member from now on
	Name        string            `json:"name"`
	Addr        string            `json:"addr"`
	WasNonVoter bool              `json:"wasNonVoter"` // the member had no vote before
	ClusterID   coterie.ClusterID `json:"cluster"`
	Epoch       ID                `json:"epoch"` // the new epoch: nodes of the old one are refused
	// LastIndex and LastTerm are those of the last entry that was kept. Revision is that of the store with this entry.
	LastIndex uint64 `json:"lastIndex"`
	LastTerm  uint64 `json:"lastTerm"`
	Revision  int64  `json:"revision"`
	// AppliedIndex is the index up to which the node knew that the log was committed. The entries after it, up
	// to LastIndex, may or may not have been acknowledged. They are kept.
	AppliedIndex uint64 `json:"appliedIndex"`
	// Voters are the voters of the newest configuration in the log. InspectedVoters is the number of voters,
	// the recovered one among them, of which a directory was inspected that has everything its member
	// acknowledged.
	Voters          []Member `json:"voters"`
	InspectedVoters int      `json:"inspectedVoters"`
	// NothingLost reports whether InspectedVoters is a majority. Then no acknowledged write is lost.
	// Otherwise, acknowledged writes after LastIndex may be lost.
	NothingLost bool `json:"nothingLost"`
}

// String describes in a few lines, for an operator, the data that was kept, and the data that may be lost.
func (r Recovery) String() string {
	var b strings.Builder
	vote := ""
	if r.WasNonVoter {
		vote = ", which had no vote before,"
	}
	fmt.Fprintf(&b, "cluster %v continues with member %v (%s at %s)%s alone, in epoch %v\n",
		r.ClusterID, r.Member, r.Name, r.Addr, vote, r.Epoch)
	fmt.Fprintf(&b, "kept: everything up to entry %d of term %d, which is revision %d\n", r.LastIndex, r.LastTerm, r.Revision)
	if r.LastIndex > r.AppliedIndex {
		fmt.Fprintf(&b, "kept, though possibly never acknowledged: entries %d to %d\n", r.AppliedIndex+1, r.LastIndex)
	}
	fmt.Fprintf(&b, "inspected: %d of %d voters\n", r.InspectedVoters, len(r.Voters))
	if r.NothingLost {
		b.WriteString("lost: no acknowledged write")
	} else {
		fmt.Fprintf(&b, "lost: possibly acknowledged writes after entry %d", r.LastIndex)
	}
	return b.String()
}

// Recover restarts a cluster that has lost its majority for good, as a single member made from dir. The node
// of dir must not be running. Everything in the directory is kept, including the last entries of the log, which
// may or may not have been acknowledged. Anything that other members have beyond that is lost. Pass as
// survivors the Inspections of all other directories that are left: Recover refuses dir if one of them has
// more. The directory of a member without a vote can be recovered, and an Inspection of dir itself may be among
// the survivors. Every Inspection that is missing makes it more likely that writes are lost; see [Recovery].
//
// Afterwards open the node as before. It leads at once, and revisions, leases and history continue. The
// cluster has another epoch, so that no node returns with the knowledge of the old one: the remaining old
// nodes are refused with coterie.ErrClusterMismatch. When the recovered node runs, remove their directories,
// and they join again, by Config.Join or with the Founders that they had. Make sure that none of them runs
// before that: if enough of them are left to form a majority, they continue on their own.
//
// The recovery is done completely or not at all. If the process ends in the meantime, the node has its old
// state or the new one, and Recover can be called again. Recover holds the whole state in memory and takes as
// long as coterie.Open and a snapshot. It blocks on the disk, and returns after the current disk operation
// when ctx ends.
//
// Errors: coterie.ErrCorrupt with all the damage; coterie.ErrFormat; coterie.ErrDirInUse;
// coterie.ErrRestoreUnfinished; ErrNothingToRecover for the directory of a node that was never let in, or has
// taken part in nothing; coterie.ErrMemberNotFound if its member had been removed; a [BehindError], which
// matches ErrBehind, if a survivor has more; coterie.ErrClusterMismatch if a survivor is of another cluster or
// epoch; fs.ErrNotExist if there is no node's directory; ctx's cause; any other error of the operating system
// about the directory. After all but the last two, nothing in the directory was changed. After ctx's cause the
// node has its old state, in a later term at most; after the last, its old state or the new one.
func Recover(ctx context.Context, dir string, survivors ...Inspection) (Recovery, error) {
	if err := context.Cause(ctx); err != nil {
		return Recovery{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Recovery{}, err
	}
	format, err := formatOf(vfs.For(ctx), dir)
	if err != nil {
		return Recovery{}, logError(err)
	}
	var done Recovery
	var refused error
	err = raftlog.Recover(vfs.For(ctx), dir, format, func(r *raftlog.Reader) (next raftlog.Continuation, err error) {
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
