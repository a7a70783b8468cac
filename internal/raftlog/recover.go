// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"io"

	"github.com/coterie-kv/coterie/internal/conversion"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Continuation says how a directory continues after its cluster has lost its majority.
type Continuation struct {
	Index  uint64                  // of the last entry in State
	Term   uint64                  // later than every term that a node of the cluster has been in
	Member Member                  // the only member from then on, a voter
	State  func(w io.Writer) error // writes the state
}

// Recover calls decide with the directory of a node that is not running, and changes the directory as the
// returned Continuation says: completely or not at all. If decide returns an error, nothing is written.
// No node can open the directory in the meantime.
//
// The change is atomic because a snapshot gets its name in one step. No entry of the log has the term of
// that snapshot. So the snapshot has overtaken the log, and Open drops the log's entries: the log ends in
// entries that name other members, and a node that joins must receive the snapshot instead. The term is
// written first. By itself it does not change the node's data.
//
// Errors: those of Read, an error of decide, or an error of the file system.
func Recover(fs vfs.FS, dir string, format storage.Format, decide func(r *Reader) (Continuation, error)) error {
	r, err := read(fs, dir, format)
	if err != nil {
		return err
	}
	next, err := decide(r)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	l := newLog(fs, dir, format)
	l.lock, r.lock = r.lock, nil
	err = r.Close() // before its files are opened again
	if err == nil {
		err = l.recover(next)
	}
	return errors.Join(err, l.release())
}

func (l *Log) recover(next Continuation) error {
	if err := l.makeDirs(); err != nil { // a copy may lack an empty directory
		return err
	}
	if err := conversion.Settle(l.fs, l.dir); err != nil {
		return err
	}
	if err := l.openDisk(); err != nil {
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
