// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// The last of the entries that found a cluster. There are two: in the log, or in a snapshot if the
// cluster begins with a state. All founders have the same ones.
const (
	FoundingIndex = 2
	FoundingTerm  = 1
)

// foundingSuffix ends the name of an identity until everything else is durable. While the identity has
// this name, the directory belongs to no node.
const foundingSuffix = ".founding"

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
func Found(fs vfs.FS, dir string, f Founding) error {
	l := &Log{fs: fs, dir: dir}
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
	// The staged identity comes first. It marks the directory as unfinished.
	if err := stageIdentity(l.fs, l.dir, foundingSuffix, f.Identity); err != nil {
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	if err := l.enterTerm(FoundingTerm); err != nil {
		return err
	}
	if err := l.takeSnapshot(FoundingIndex, FoundingTerm, f.Members, f.State); err != nil {
		return err
	}
	return settleIdentity(l.fs, l.dir, foundingSuffix)
}

// foundingBegun reports whether Found was interrupted in a directory.
func foundingBegun(fs vfs.FS, dir string) (bool, error) {
	identity := filepath.Join(dir, identityFile)
	if settled, err := exists(fs, identity); err != nil || settled {
		return false, err
	}
	return exists(fs, identity+foundingSuffix)
}

// vacate removes the remains of an interrupted founding. It returns fault.ErrDirNotEmpty if a node has other data in
// the directory.
func (l *Log) vacate() error {
	begun, err := foundingBegun(l.fs, l.dir)
	if err != nil {
		return err
	}
	names := []string{}
	for _, name := range []string{identityFile, voteFile, earlierStore} {
		there, err := exists(l.fs, filepath.Join(l.dir, name))
		if err != nil {
			return err
		}
		if there {
			names = append(names, filepath.Join(l.dir, name))
		}
	}
	for _, dir := range l.dirs()[1:] {
		below, err := l.fs.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, name := range below {
			names = append(names, filepath.Join(dir, name))
		}
	}
	if len(names) > 0 && !begun {
		return fmt.Errorf("%w: %s", fault.ErrDirNotEmpty, names[0])
	}
	for _, name := range names {
		if err := l.fs.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// enterTerm durably writes the term of the node. It may run only while the node cannot vote.
func (l *Log) enterTerm(term uint64) (err error) {
	var failed error
	once := func(write func() error) bool {
		failed = write()
		return failed == nil
	}
	if l.votes, err = openVotes(l.fs, l.dir, once); err != nil {
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
	files := &snapshotFiles{fs: l.fs, dir: filepath.Join(l.dir, snapshotDir), done: func(uint64, uint64) {}}
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
