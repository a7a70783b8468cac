// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// The last of the entries that found a cluster. There are two: in the log, or in a snapshot if the
// cluster begins with a state. All founders have the same ones.
const (
	FoundingIndex = 2
	FoundingTerm  = 1
)

// foundingFile marks a directory that is being founded. As long as the directory has no identity, it belongs to no node.
// Directories of earlier versions have the staged identity in this file.
const foundingFile = "identity.founding"

// A Member is one of the servers in a raft configuration.
type Member struct {
	ID    raft.ServerID
	Addr  string
	Voter bool
}

// ServerID returns the ID by which raft knows the member with a number: the number in hexadecimal.
func ServerID(member uint64) raft.ServerID { return raft.ServerID(fmt.Sprintf("%016x", member)) }

// MemberID returns the number that ServerID was given, or 0 for an empty ID.
func MemberID(id raft.ServerID) uint64 {
	member, _ := strconv.ParseUint(string(id), 16, 64) // only ServerID makes IDs
	return member
}

// A Founding is the initial data of a founder if the cluster begins with a state.
type Founding struct {
	Identity Identity
	Members  []Member                // the founders, all voters, in the same order on each of them
	State    func(w io.Writer) error // writes the state after the founding entries
}

// Found fills a directory of fs for a founder, and makes the directory if needed. It does so completely
// or not at all: if it is interrupted, by an error or by the end of the process, Open returns
// fault.ErrRestoreUnfinished, and Found can start again.
//
// Errors: fault.ErrDirNotEmpty, fault.ErrDirInUse, an error of f.State, or an error of the file system.
func Found(fs vfs.FS, dir string, format storage.Format, f Founding) error {
	l := newLog(fs, dir, format)
	err := l.found(&f)
	if err := errors.Join(err, l.release()); err != nil {
		return err
	}
	return nil
}

func (l *Log) found(f *Founding) error {
	if err := l.makeDirs(); err != nil {
		return err
	}
	if err := l.take(); err != nil {
		return err
	}
	if err := l.vacate(); err != nil {
		return err
	}
	// The marker comes first, and the identity last.
	if err := l.markFounding(); err != nil {
		return err
	}
	if err := l.openDisk(); err != nil {
		return err
	}
	if err := l.enterTerm(FoundingTerm); err != nil {
		return err
	}
	if err := l.takeSnapshot(FoundingIndex, FoundingTerm, f.Members, f.State); err != nil {
		return err
	}
	if err := l.disk.Identity().Save(encodeIdentity(&f.Identity)); err != nil {
		return err
	}
	_ = l.unmarkFounding() // the founding is complete: Open removes the marker, too
	return nil
}

// markFounding durably makes the marker of an unfinished founding.
func (l *Log) markFounding() error {
	file, err := l.fs.Create(filepath.Join(l.dir, foundingFile))
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	return l.fs.SyncDir(l.dir)
}

// unmarkFounding removes the marker. It may come back after a crash: founded removes it again.
func (l *Log) unmarkFounding() error {
	err := l.fs.Remove(filepath.Join(l.dir, foundingFile))
	if isNotExist(err) {
		return nil
	}
	return err
}

// founded returns fault.ErrRestoreUnfinished if Found was interrupted before the directory had its identity. If Found
// was interrupted afterwards, founded removes the marker.
func (l *Log) founded() error {
	marked, err := exists(l.fs, filepath.Join(l.dir, foundingFile))
	switch {
	case err != nil || !marked:
		return err
	case l.known:
		return l.unmarkFounding()
	}
	return fmt.Errorf("%w: %s", fault.ErrRestoreUnfinished, l.dir)
}

// vacate removes the remains of an interrupted founding. It returns fault.ErrDirNotEmpty if a node has other data in
// the directory.
func (l *Log) vacate() error {
	names, err := l.data()
	if err != nil || len(names) == 0 {
		return err
	}
	begun, err := exists(l.fs, filepath.Join(l.dir, foundingFile))
	if err == nil && begun {
		begun, err = l.unsettled()
	}
	if err != nil {
		return err
	}
	if !begun {
		return fmt.Errorf("%w: %s", fault.ErrDirNotEmpty, names[0])
	}
	for _, name := range slices.Backward(names) { // see storage.Format.Files
		if err := l.fs.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// unsettled reports whether the directory has no identity.
func (l *Log) unsettled() (bool, error) {
	disk, err := l.format.Open(l.fs, l.dir)
	if err != nil {
		return false, err
	}
	id, err := disk.Identity().Load()
	return id == nil, errors.Join(err, disk.Close())
}

// data returns the names of all files with data of a node.
func (l *Log) data() ([]string, error) {
	if err := refuseOther(l.fs, l.dir, l.format); err != nil {
		return nil, errors.Join(fault.ErrDirNotEmpty, err)
	}
	names, err := l.format.Files(l.fs, l.dir)
	if err != nil {
		return nil, err
	}
	earlier := filepath.Join(l.dir, earlierStore)
	there, err := exists(l.fs, earlier)
	if err != nil {
		return nil, err
	}
	if there {
		names = append(names, earlier)
	}
	snapshots := filepath.Join(l.dir, snapshotDir)
	below, err := l.fs.ReadDir(snapshots)
	for _, name := range below {
		names = append(names, filepath.Join(snapshots, name))
	}
	return names, err
}

// enterTerm durably writes the term of the node. It may run only while the node cannot vote.
func (l *Log) enterTerm(term uint64) (err error) {
	var failed error
	once := func(write func() error) bool {
		failed = write()
		return failed == nil
	}
	if l.votes, err = loadVotes(l.disk.Vote(), l.files.Vote, once); err != nil {
		return err
	}
	if err = l.votes.SetUint64(keyTerm, term); err != nil {
		return err
	}
	return failed
}

// takeSnapshot writes a snapshot of a state that does not come from raft. The snapshot gets its name when all
// of it is durable.
func (l *Log) takeSnapshot(index, term uint64, members []Member, state func(io.Writer) error) error {
	files := &snapshotFiles{fs: l.fs, dir: filepath.Join(l.dir, snapshotDir), done: func(*raft.SnapshotMeta) {}}
	var c raft.Configuration
	for _, m := range members {
		c.Servers = append(c.Servers, raft.Server{ID: m.ID, Address: raft.ServerAddress(m.Addr)})
	}
	sink, err := files.Create(raft.SnapshotVersionMax, index, term, c, index, nil)
	if err != nil {
		return err
	}
	if err := state(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
