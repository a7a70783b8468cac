// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// What founding a directory, or opening one that was founded, can be refused for.
var (
	// ErrTaken: the directory has a node's data.
	ErrTaken = errors.New("raftlog: directory has a node's data")
	// ErrUnfinished: Found was broken off in the directory. It can be called again.
	ErrUnfinished = errors.New("raftlog: founding the directory was not finished")
)

// The last of the entries with which a cluster is founded: two of the log or, where it begins with a
// state, what a snapshot has. Every founder has the same.
const (
	FoundingIndex = 2
	FoundingTerm  = 1
)

// foundingSuffix is of an identity that gets its name when all else is durable. As long as it has
// not, what is there is no node's.
const foundingSuffix = ".founding"

// A Member is one of the servers that a configuration of raft's names.
type Member struct {
	ID    raft.ServerID
	Addr  string
	Voter bool
}

// A Founding is what a founder begins with whose cluster has a state from the first.
type Founding struct {
	Identity Identity
	Members  []Member                // the founders, each with a vote, in the same order for each
	State    func(w io.Writer) error // writes the state as it is at the entry of the founding
}

// Found fills a directory of fs, which is made if need be, for a founder. It does so wholly or not
// at all: of what is broken off, by an error or the end of the process, Open says ErrUnfinished,
// and Found begins anew.
//
// Errors: ErrTaken, ErrInUse, f.State's, or what the file system says.
func Found(fs vfs.FS, dir string, f Founding) error {
	l := &Log{fs: fs, dir: dir}
	err := l.found(&f)
	if err := errors.Join(err, l.release()); err != nil {
		return wrap(err)
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
	// From here on it is known that there is something to finish, before there is anything else.
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

// foundingBegun reports whether Found was broken off in a directory.
func foundingBegun(fs vfs.FS, dir string) (bool, error) {
	identity := filepath.Join(dir, identityFile)
	if settled, err := exists(fs, identity); err != nil || settled {
		return false, err
	}
	return exists(fs, identity+foundingSuffix)
}

// vacate removes what a founding has left that was broken off. It refuses what else a node may have
// there.
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
		return fmt.Errorf("%w: %s", ErrTaken, names[0])
	}
	for _, name := range names {
		if err := l.fs.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// enterTerm makes durable that the node is in a term, with nothing running that could vote.
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

// takeSnapshot takes a snapshot that comes from elsewhere than raft. It has its name when all of it is
// durable.
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
