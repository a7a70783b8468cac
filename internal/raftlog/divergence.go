// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// ErrDiverged: the cluster has other entries in place of some that this log has applied.
var ErrDiverged = errors.New("a member has lost entries that it had acknowledged")

// divergedFile tells the next Open that the log differs from the cluster's. It holds the reason as text,
// for people.
const divergedFile = "diverged"

// A Claim lists entries of a leader's log. Every leader's log has all entries that were committed before
// its election, and terms in it never decrease. So if a claim contradicts an entry that this node has
// applied, or has in a snapshot, one of the two logs has lost an acknowledged entry.
type Claim struct {
	Leader      uint64      // the leader's term
	Committed   uint64      // the entries of the leader's log up to this index are committed
	Index, Term uint64      // of an entry of its log; 0 if none is named
	Entries     []*raft.Log // the entries after it
}

// Contradiction returns how a claim contradicts this log, or nil. The caller makes sure that the claim is
// from a leader of the newest term: an earlier one may lack entries that were committed since.
func (l *Log) Contradiction(c Claim) error {
	s := l.store
	s.mu.Lock()
	k := known{store: s, snapshot: s.snapshot, snapshotTerm: s.snapshotTerm}
	if fixed := max(s.applied, min(c.Committed, s.last)); s.first > 0 && s.first <= fixed && fixed <= s.last {
		k.first, k.last = s.first, fixed
	}
	s.mu.Unlock()
	if c.Term > 0 {
		if own := k.other(c.Index, c.Term, nil); own != nil {
			return l.contradicts(&c, own, c.Index, c.Term)
		}
	}
	for _, e := range c.Entries {
		if own := k.other(e.Index, e.Term, e); own != nil {
			return l.contradicts(&c, own, e.Index, e.Term)
		}
		if e.Index > max(k.last, k.snapshot) {
			break // terms never decrease: the remaining entries prove nothing more
		}
	}
	return nil
}

func (l *Log) contradicts(c *Claim, own *raft.Log, index, term uint64) error {
	l.store.mu.Lock()
	applied := max(l.store.applied, l.store.snapshot, own.Index)
	l.store.mu.Unlock()
	first, last := index, index
	if n := len(c.Entries); n > 0 {
		first, last = c.Entries[0].Index, c.Entries[n-1].Index
		if c.Term > 0 {
			first = c.Index
		}
	}
	return l.store.diverged("it has applied the entries up to %d, among them entry %d of term %d; the leader of term %d "+
		"has other entries from %d to %d, among them entry %d of term %d",
		applied, own.Index, own.Term, c.Leader, first, last, index, term)
}

// Behind returns the contradiction with a leader that has committed less than this node has applied.
func (l *Log) Behind(applied, leader, committed uint64) error {
	return l.store.diverged("it has applied the entries up to %d; the leader of term %d has committed no more than those up to %d",
		applied, leader, committed)
}

// discards returns the error for a deletion that would include applied entries. The caller holds mu.
func (s *store) discards(low uint64) error {
	return s.diverged("it has applied the entries up to %d; the leader has others in the place of entries %d to %d", s.applied, low, s.last)
}

// diverged returns an error which says that the log differs from the cluster's.
func (s *store) diverged(format string, args ...any) error {
	return &CorruptError{File: s.place, Err: fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrDiverged)}
}

// known is the part of a log that can no longer change.
type known struct {
	store                  *store
	first, last            uint64 // committed entries; 0 if there are none
	snapshot, snapshotTerm uint64
}

// other returns an entry of this log, or the last one of the snapshot, that cannot be in the same log as
// the given entry; nil if there is none. If l is not nil, its contents are compared as well.
func (k *known) other(index, term uint64, l *raft.Log) *raft.Log {
	conflicts := func(at, of uint64) bool {
		return at == index && of != term || at < index && of > term || at > index && of < term
	}
	if k.snapshot > 0 && conflicts(k.snapshot, k.snapshotTerm) {
		return &raft.Log{Index: k.snapshot, Term: k.snapshotTerm}
	}
	if k.last == 0 || index < k.first {
		return nil
	}
	own, err := k.store.entry(min(index, k.last))
	switch {
	case err != nil: // the disk has failed, or the entry has been compacted in the meantime
		return nil
	case conflicts(own.Index, own.Term):
		return own
	case l != nil && own.Index == index && (own.Type != l.Type || !bytes.Equal(own.Data, l.Data)):
		return own // two leaders had the same term
	}
	return nil
}

// Diverge ends the log because of a contradiction. Nothing more becomes durable, and the next Open
// returns the reason.
func (l *Log) Diverge(reason error) { l.store.diverge(reason) }

// orDiverge ends the log if err is a contradiction, and returns err. The caller does not hold mu.
func (s *store) orDiverge(err error) error {
	if errors.Is(err, ErrDiverged) {
		s.diverge(err)
	}
	return err
}

// diverge implements Log.Diverge. The caller does not hold mu.
func (s *store) diverge(reason error) {
	if s.fail(reason) && s.note != nil {
		if err := s.note(reason); err != nil {
			s.fail(err)
		}
	}
}

// noteDivergence durably writes the reason to the directory.
func (l *Log) noteDivergence(reason error) error {
	var corrupt *CorruptError
	if errors.As(reason, &corrupt) {
		reason = corrupt.Err
	}
	name := filepath.Join(l.dir, divergedFile)
	file, err := l.fs.Create(name + partSuffix)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte(reason.Error()+"\n"), 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = l.fs.Rename(name+partSuffix, name); err != nil {
		return err
	}
	return l.fs.SyncDir(l.dir)
}

// readDivergence returns the divergence that is noted in a directory as a *CorruptError about the log, nil if there is
// none, or an error of the file system.
func readDivergence(fs vfs.FS, dir, log string) error {
	name := filepath.Join(dir, divergedFile)
	file, err := fs.Open(name)
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	b := make([]byte, 4<<10)
	n, err := file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	reason := strings.TrimSuffix(strings.TrimSpace(string(b[:n])), ": "+ErrDiverged.Error())
	return &CorruptError{File: log, Err: fmt.Errorf("%s (noted in %s): %w", reason, name, ErrDiverged)}
}

// forgetDivergence removes the note. From then on the log of the directory is the cluster's.
func (l *Log) forgetDivergence() error {
	err := l.fs.Remove(filepath.Join(l.dir, divergedFile))
	if isNotExist(err) {
		return nil
	}
	return errors.Join(err, l.fs.SyncDir(l.dir))
}
