// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/metadata"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Inspect reads the directory of a node that is not running, verifies all of it, every entry of the log and
// every snapshot to its last byte, and changes nothing. No node can open the directory in the meantime.
// Inspect returns when it is done or when ctx ends; in the second case reading continues in the background
// for a moment. It takes as much time and memory as coterie.Open, and needs no permission to write.
//
// Errors: coterie.ErrCorrupt, with all the damage, and coterie.ErrFormat for files of another version, each
// with an Inspection of everything that could be read; coterie.ErrDirInUse; ctx's cause; fs.ErrNotExist if
// there is no node's directory; any other error of the operating system about the directory.
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
	format, err := formatOf(vfs.For(ctx), dir)
	if err != nil {
		return unread(ctx, dir, err)
	}
	r, err := raftlog.Read(vfs.For(ctx), dir, format)
	if err != nil {
		return unread(ctx, dir, err)
	}
	in := newInspector(ctx, dir, r)
	if r.Diverged != nil { // no damage for Recover, which may continue with this history
		in.damaged(dir, r.Diverged)
	}
	in.replay(in.snapshots(), r.Recorded)
	if err := r.Close(); err != nil {
		in.damaged(dir, err)
	}
	return in.found, in.verdict()
}

// unread returns the outcome of an inspection that could not read the directory because of an error. Damage of the
// note of a conversion is such an error, because only the note says which of the files are valid.
func unread(ctx context.Context, dir string, err error) (Inspection, error) {
	if !errors.As(err, new(*raftlog.CorruptError)) {
		return Inspection{}, logError(err)
	}
	in := &inspector{ctx: ctx, found: Inspection{Dir: dir}}
	in.damaged(dir, err)
	in.describe(state.New().View())
	return in.found, in.verdict()
}

// An inspector reads the contents of a directory as coterie.Open would.
type inspector struct {
	ctx    context.Context
	log    *raftlog.Reader
	found  Inspection
	damage []error // the errors behind found.DamagedFiles
	lack   error   // the system was short of a resource, so apparent damage proves nothing
}

func newInspector(ctx context.Context, dir string, r *raftlog.Reader) *inspector {
	in := &inspector{ctx: ctx, log: r, found: Inspection{
		Dir: dir, Storage: r.Format(), ClusterID: coterie.ClusterID(r.Identity.Cluster), Member: coterie.MemberID(r.Identity.Member),
		Incarnation: ID(r.Identity.Incarnation), RestoreUnfinished: r.Unfinished,
		Term: r.Term, VoteTerm: r.VotedIn, VotedFor: coterie.MemberID(raftlog.MemberID(r.Candidate)),
		FirstIndex: r.First, LastIndex: r.Last, LastTerm: r.LastTerm, AppliedIndex: r.Recorded, TornTailBytes: r.Torn,
	}}
	for _, err := range append(r.Formats, r.Damage...) {
		in.damaged(dir, err)
	}
	for _, m := range r.Members {
		in.found.Members = append(in.found.Members, Member{ID: coterie.MemberID(raftlog.MemberID(m.ID)), Addr: m.Addr, Voter: m.Voter})
	}
	return in
}

// verdict returns an error with all the damage. If ctx ended or the system was short of a resource, it returns
// that instead: a file that was not read is not damaged.
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
		errs = append(errs, fmt.Errorf("%w: %w", coterie.ErrCorrupt, errors.Join(in.damage...)))
	}
	return errors.Join(errs...)
}

// damaged records an error about a file.
func (in *inspector) damaged(file string, err error) {
	if vfs.Short(err) {
		in.lack = err
		return
	}
	if other := formatError(err); other != nil {
		if file != in.found.Dir { // else the error names the file
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
	in.found.DamagedFiles = append(in.found.DamagedFiles, DamagedFile{corrupt.File, corrupt.Err.Error()})
}

// snapshots reads all snapshots, and returns the state of the newest one that can be read.
func (in *inspector) snapshots() *state.State {
	var newest *state.State
	for i := range in.log.Snapshots {
		sn := &in.log.Snapshots[i]
		info := Snapshot{File: sn.File, Index: sn.Index, Term: sn.Term, Size: sn.Size}
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
			in.found.DurableIndex = sn.Index
		}
	}
	in.found.DurableIndex = max(in.found.DurableIndex, in.log.Last)
	in.found.MayLackAcknowledged = in.mayLackAcknowledged()
	if newest == nil {
		return state.New()
	}
	return newest
}

// mayLackAcknowledged reports whether the member may have acknowledged more than the directory has.
func (in *inspector) mayLackAcknowledged() bool {
	id := in.log.Identity
	neverLetIn := id.Since == 0 && in.log.Term <= raftlog.FoundingTerm // the cluster may have admitted an earlier directory of the member
	catchingUp := id.Floor > 0 && in.found.DurableIndex < id.Since
	return neverLetIn || catchingUp || id.Disputed
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

// replay applies the log to a state up to an index, unless entries are missing between the state and the log.
// Of all other entries it only checks that they can be read.
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
			_, err := command.DecodeEntry(e.Command)
			return err
		case e.Members != nil:
			s.Configure(e.Index, servers(e.Members))
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
	in.describe(s.View())
}

// servers returns the members of a configuration in the form of the state.
func servers(members []raftlog.Member) []state.Server {
	all := make([]state.Server, 0, len(members))
	for _, m := range members {
		all = append(all, state.Server{ID: raftlog.MemberID(m.ID), Addr: m.Addr, Voter: m.Voter})
	}
	return all
}

// describe records the contents of a state.
func (in *inspector) describe(v *state.View) {
	in.found.Epoch, in.found.AppliedIndex = ID(v.Epoch), max(in.found.AppliedIndex, v.Index)
	in.found.Revision, in.found.CompactRevision = v.KV.Revision(), v.KV.CompactRevision()
	in.found.Keys, in.found.Leases = v.KV.Keys(), v.Leases.Len()
	for i := range in.found.Members {
		m, _ := v.Members.Get(uint64(in.found.Members[i].ID))
		in.found.Members[i].Name, in.found.Members[i].Incarnation = m.Name, ID(m.Incarnation)
		in.found.Members[i].Metadata = metadata.Decode(m.Metadata)
	}
}
