// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// An Inspection is what [Inspect] has found in a directory. It is the caller's.
type Inspection struct {
	Dir         string   `json:"directory"` // absolute
	ClusterID   uint64   `json:"cluster"`
	Member      MemberID `json:"member"`      // 0: the directory is nobody's yet
	Incarnation uint64   `json:"incarnation"` // drawn when the directory was made: another one has forgotten what this one knows
	// Epoch is drawn when the cluster begins, and by Recover: nodes of two epochs refuse each other. 0:
	// none had been applied here.
	Epoch uint64 `json:"epoch"`
	// Forgetful: the member may have had another directory before, and acknowledged in it what this one
	// has not got again yet; or another member has told it that it has lost data.
	Forgetful bool `json:"forgetful"`
	// Unfinished: a restore was broken off here. Open refuses with ErrRestoreUnfinished.
	Unfinished bool     `json:"unfinishedRestore"`
	Term       uint64   `json:"term"`
	VoteTerm   uint64   `json:"voteTerm"` // the term of the last vote, and the member that it was for
	VotedFor   MemberID `json:"votedFor"`
	// FirstIndex and LastIndex are of the log, 0 if it has no entries that count, and LastTerm is
	// of its last entry, else of the newest snapshot. Everything up to Durable is here, in log or
	// snapshot.
	FirstIndex uint64 `json:"firstIndex"`
	LastIndex  uint64 `json:"lastIndex"`
	LastTerm   uint64 `json:"lastTerm"`
	Durable    uint64 `json:"durable"`
	// Applied is up to where the node had applied the log, as far as it noted that: at the latest
	// 50 ms later. Open begins there, with Revision.
	Applied         uint64              `json:"applied"`
	Revision        int64               `json:"revision"`
	CompactRevision int64               `json:"compactRevision"`
	Keys            int                 `json:"keys"`
	Leases          int                 `json:"leases"`
	Members         []InspectedMember   `json:"members"` // as the newest configuration has them
	Snapshots       []InspectedSnapshot `json:"snapshots"`
	// Torn is how many bytes at the end of the log a crash has torn. That is no damage: they were
	// never acknowledged, and Open cuts them off.
	Torn   int64    `json:"tornBytes"`
	Damage []Damage `json:"damage"`
	// OtherFormats are what another version of this package wrote and this one does not read. That is no
	// damage, but what it has is not in here; Damage is then no more than what is certain without.
	OtherFormats []FormatError `json:"otherFormats"`
}

// An InspectedMember is a member of the cluster as a node's directory has it.
type InspectedMember struct {
	ID    MemberID `json:"id"`
	Addr  string   `json:"addr"`
	Voter bool     `json:"voter"`
	// Name and Incarnation are what the cluster had on record of it, as far as the node had applied
	// that; empty and 0 if it had not.
	Name        string `json:"name"`
	Incarnation uint64 `json:"incarnation"`
}

// An InspectedSnapshot is a snapshot that a directory has, the newest first.
type InspectedSnapshot struct {
	File     string `json:"file"`
	Index    uint64 `json:"index"`
	Term     uint64 `json:"term"`
	Size     int64  `json:"size"`     // of the state in it, in bytes
	Revision int64  `json:"revision"` // 0 if it cannot be read
}

// A Damage says what is wrong with a file.
type Damage struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// Inspect reads the directory of a node that does not run, verifies all of it, every entry of the
// log and every snapshot to its last byte, and changes nothing. Meanwhile no node can open the
// directory. It returns when that is done, or ctx ends; then the rest goes on in the background for
// a moment. It takes the time and the memory of Open, and no right to write.
//
// Errors: ErrCorrupt if anything is damaged, with all of that, and ErrFormat if anything is of another
// version, each with what could be read nevertheless; ErrDirInUse; ctx's cause; fs.ErrNotExist if there is no node's directory, or what else the
// operating system says of it.
func Inspect(ctx context.Context, dir string) (Inspection, error) {
	type outcome struct {
		found Inspection
		err   error
	}
	if err := context.Cause(ctx); err != nil {
		return Inspection{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Inspection{}, err
	}
	done := make(chan outcome, 1)
	go func() {
		found, err := inspect(ctx, dir)
		done <- outcome{found, err}
	}()
	select {
	case o := <-done:
		return o.found, o.err
	case <-ctx.Done():
		return Inspection{}, context.Cause(ctx)
	}
}

func inspect(ctx context.Context, dir string) (Inspection, error) {
	r, err := raftlog.Read(vfs.For(ctx), dir)
	if err != nil {
		return Inspection{}, logError(err)
	}
	in := newInspector(ctx, dir, r)
	if r.Diverged != nil { // Recover decides that the cluster goes on with it
		in.damaged(dir, r.Diverged)
	}
	in.replay(in.snapshots(), r.Recorded)
	if err := r.Close(); err != nil {
		in.damaged(dir, err)
	}
	return in.found, in.verdict()
}

// An inspector reads what a directory has, as Open would.
type inspector struct {
	ctx    context.Context
	log    *raftlog.Reader
	found  Inspection
	damage []error
	lack   error // the system was short of something, so damage says nothing
}

func newInspector(ctx context.Context, dir string, r *raftlog.Reader) *inspector {
	in := &inspector{ctx: ctx, log: r, found: Inspection{
		Dir: dir, ClusterID: r.Identity.Cluster, Member: MemberID(r.Identity.Member), Incarnation: r.Identity.Incarnation,
		Unfinished: r.Unfinished, Term: r.Term, VoteTerm: r.VotedIn, VotedFor: memberOf(r.Candidate),
		FirstIndex: r.First, LastIndex: r.Last, LastTerm: r.LastTerm, Applied: r.Recorded, Torn: r.Torn,
	}}
	for _, err := range append(r.Formats, r.Damage...) {
		in.damaged(dir, err)
	}
	for _, m := range r.Members {
		in.found.Members = append(in.found.Members, InspectedMember{ID: memberOf(m.ID), Addr: m.Addr, Voter: m.Voter})
	}
	return in
}

// verdict returns all that is damaged, unless ctx ended: what was not read is not damaged.
func (in *inspector) verdict() error {
	if err := in.broken(); err != nil {
		in.found = Inspection{}
		return err
	}
	if in.lack != nil {
		in.found = Inspection{}
		return logError(in.lack)
	}
	var errs []error
	for i := range in.found.OtherFormats {
		errs = append(errs, &in.found.OtherFormats[i])
	}
	if len(in.damage) > 0 {
		errs = append(errs, fmt.Errorf("%w: %w", ErrCorrupt, errors.Join(in.damage...)))
	}
	return errors.Join(errs...)
}

func (in *inspector) damaged(file string, err error) {
	if vfs.Short(err) {
		in.lack = err
		return
	}
	if other := (*FormatError)(nil); errors.As(formatError(err), &other) {
		if file != in.found.Dir { // else the error names it
			other.What += " in " + file
		}
		in.found.OtherFormats = append(in.found.OtherFormats, *other)
		return
	}
	var corrupt *raftlog.CorruptError
	if !errors.As(err, &corrupt) {
		corrupt = &raftlog.CorruptError{File: file, Err: err}
	}
	in.damage = append(in.damage, corrupt)
	in.found.Damage = append(in.found.Damage, Damage{corrupt.File, corrupt.Err.Error()})
}

// snapshots reads all of them, and returns the state of the newest that can be read.
func (in *inspector) snapshots() *state.State {
	var newest *state.State
	for i := range in.log.Snapshots {
		sn := &in.log.Snapshots[i]
		info := InspectedSnapshot{File: sn.File, Index: sn.Index, Term: sn.Term, Size: sn.Size}
		s, err := in.read(sn)
		if err != nil {
			in.damaged(sn.File, err)
		} else {
			info.Revision = s.View().KV.Revision()
			if newest == nil {
				newest = s
			}
		}
		in.found.Snapshots = append(in.found.Snapshots, info)
		if i == 0 {
			in.found.Durable = sn.Index
		}
	}
	in.found.Durable = max(in.found.Durable, in.log.Last)
	id := in.log.Identity
	in.found.Forgetful = id.Since == 0 && in.log.Term <= raftlog.FoundingTerm || id.Floor > 0 && in.found.Durable < id.Since || id.Disputed
	if newest == nil {
		return state.New()
	}
	return newest
}

func (in *inspector) read(sn *raftlog.Snapshot) (*state.State, error) {
	body, err := in.log.Body(sn)
	if err != nil {
		return nil, err
	}
	s, err := state.Read(&breakable.Reader{Reader: body, Broken: in.broken})
	return s, errors.Join(err, body.Close())
}

func (in *inspector) broken() error { return context.Cause(in.ctx) }

// replay brings a state to what it was after an entry, unless there is a gap before the log; of the
// entries before and behind it makes sure that they can be read.
func (in *inspector) replay(s *state.State, through uint64) {
	gap := in.log.First > s.View().Index+1
	err := in.log.Entries(0, func(e raftlog.Entry) error {
		switch {
		case in.broken() != nil:
			return in.broken()
		case gap || e.Index <= s.View().Index || e.Index > through:
			if e.Command == nil {
				return nil
			}
			return command.DecodeEntry(e.Command, func(*command.Proposal) error { return nil })
		case e.Members != nil:
			s.Configure(e.Index, configured(e.Members))
			return nil
		case e.Command == nil:
			s.Advance(e.Index)
			return nil
		}
		return s.Apply(e.Index, e.Term, e.Command, state.Discard{})
	})
	if err != nil {
		in.damaged(in.found.Dir, err)
	}
	in.tell(s.View())
}

// tell notes what a state has.
func (in *inspector) tell(v *state.View) {
	in.found.Epoch, in.found.Applied = v.Epoch, max(in.found.Applied, v.Index)
	in.found.Revision, in.found.CompactRevision = v.KV.Revision(), v.KV.CompactRevision()
	in.found.Keys, in.found.Leases = v.KV.Keys(), v.Leases.Len()
	for i := range in.found.Members {
		m, _ := v.Members.Get(uint64(in.found.Members[i].ID))
		in.found.Members[i].Name, in.found.Members[i].Incarnation = m.Name, m.Incarnation
	}
}

// A BackupInspection is what [InspectBackup] has found.
type BackupInspection struct {
	Cluster                   string // the name of the cluster that the backup is of
	ClusterID                 uint64
	Member                    MemberID // whose node took it
	Taken                     time.Time
	Revision, CompactRevision int64
	Keys, Leases              int
	Bytes                     int64 // of the backup
}

// InspectBackup reads a backup to its end and verifies every byte of it, as [RestoreBackup] does.
// It blocks on r, and returns after r's Read when ctx ends.
//
// Errors: ErrCorrupt, ErrFormat, r's, ctx's cause.
func InspectBackup(ctx context.Context, r io.Reader) (BackupInspection, error) {
	b, err := readBackup(ctx, r)
	if err != nil {
		return BackupInspection{}, err
	}
	v := b.State.View()
	return BackupInspection{
		Cluster: b.Cluster, ClusterID: b.ClusterID, Member: MemberID(b.Member), Taken: b.Taken,
		Revision: b.Revision, CompactRevision: v.KV.CompactRevision(), Keys: v.KV.Keys(), Leases: v.Leases.Len(), Bytes: b.Bytes,
	}, nil
}
