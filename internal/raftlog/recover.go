// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"io"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Continuation is how a directory goes on whose cluster has lost its majority.
type Continuation struct {
	Index  uint64                  // of the last entry that State has
	Term   uint64                  // later than any that a node of the cluster has been in
	Member Member                  // the only one from then on, with a vote
	State  func(w io.Writer) error // writes the state
}

// Recover has decide read the directory of a node that does not run, and makes of it what that returns,
// wholly or not at all; after an error of decide nothing was written. No node can open the directory
// meanwhile.
//
// What makes it whole is that a snapshot gets its name at once. It is of a term that no entry of the
// log is of. So it has overtaken that log, whose rest is dropped when it is opened: it ends in entries
// that name other members, and a node that joins must be sent the snapshot in place of them. The term
// is written first. Alone it changes nothing of what the node has.
//
// Errors: those of Read, decide's, or what the file system says.
func Recover(fs vfs.FS, dir string, decide func(r *Reader) (Continuation, error)) error {
	r, err := read(fs, dir)
	if err != nil {
		return err
	}
	next, err := decide(r)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	l := &Log{fs: fs, dir: dir, lock: r.lock}
	r.lock = nil
	if err := errors.Join(l.recover(next), r.Close(), l.release()); err != nil {
		return wrap(err)
	}
	return nil
}

func (l *Log) recover(next Continuation) error {
	if err := l.makeDirs(); err != nil { // of a copy that has left out an empty one
		return err
	}
	if err := l.enterTerm(next.Term); err != nil {
		return err
	}
	if err := l.takeSnapshot(next.Index, next.Term, []Member{next.Member}, next.State); err != nil {
		return err
	}
	return l.forgetDivergence()
}
