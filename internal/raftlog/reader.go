// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A noNodeError says that a directory has no data of a node. It matches fs.ErrNotExist.
type noNodeError struct{ dir string }

func (e noNodeError) Error() string { return "no node's directory: " + e.dir }

func (e noNodeError) Is(target error) bool { return target == fs.ErrNotExist }

// A Reader holds the contents of a directory as Open would find them. If Open would reject the directory,
// the Reader has everything that can be read. It changes nothing on the disk.
type Reader struct {
	Identity   Identity
	Known      bool // the directory has an identity
	Unfinished bool // Found was interrupted
	Term       uint64
	VotedIn    uint64        // the term of the last vote
	Candidate  raft.ServerID // of the last vote
	First      uint64        // of the log; 0 if it is empty or overtaken by a snapshot
	Last       uint64
	LastTerm   uint64 // of the entry at Last, else of the newest snapshot
	Recorded   uint64 // the state machine had applied everything up to this index
	Torn       int64  // bytes at the end of the log that a crash has torn and that Open cuts off
	Members    []Member
	Snapshots  []Snapshot // newest first
	Diverged   error      // why the log differs from the cluster's: *CorruptError; nil if nothing is noted
	Damage     []error    // everything else that Open rejects or may find later: each a *CorruptError, which names the file
	Formats    []error    // files of another version: each a *wire.FormatError. If there are any, Damage lists only certain damage

	fs      vfs.FS
	dir     string
	lock    io.Closer
	opened  []*segment
	reached extent
	entries contents
	lack    error // the system was short of a resource, so Damage proves nothing
}

// A Snapshot describes one snapshot in the directory. Its body is not verified.
type Snapshot struct {
	File        string
	Index, Term uint64
	Size        int64 // of the body
	Members     []Member

	id string
}

// An Entry is an entry of the log: a command, a list of members, or an entry of raft's own with neither.
type Entry struct {
	Index, Term uint64
	Command     []byte   // nil if it is not a command
	Members     []Member // nil if it lists no members
}

// Read reads the directory of a node that is not running. While the Reader is open, no node can open the
// directory, unless the directory has no lock file.
//
// Errors: fault.ErrDirInUse, *wire.FormatError for a directory of the first format, fs.ErrNotExist, or an error of the
// file system about the directory.
func Read(fs vfs.FS, dir string) (*Reader, error) { return read(vfs.ReadOnly(fs), dir) }

// read reads a directory. It locks it through locks, which may refuse to create the lock file.
func read(locks vfs.FS, dir string) (*Reader, error) {
	r := &Reader{fs: vfs.ReadOnly(locks), dir: dir}
	if err := r.read(locks); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Reader) read(locks vfs.FS) error {
	if err := r.recognize(); err != nil {
		return err
	}
	l := &Log{fs: locks, dir: r.dir}
	err := l.take()
	if err != nil && !isNotExist(err) {
		return err
	}
	r.lock = l.lock
	if err := refuseEarlier(r.fs, r.dir); err != nil {
		return err
	}
	if r.Unfinished, err = foundingBegun(r.fs, r.dir); err != nil {
		return err
	}
	if r.Identity, r.Known, err = readIdentity(r.fs, r.dir); err != nil {
		r.damaged(filepath.Join(r.dir, identityFile), err)
	}
	if err := readDivergence(r.fs, r.dir); errors.As(err, new(*CorruptError)) {
		r.Diverged = err
	} else if err != nil {
		return err
	}
	newest := r.readSnapshots()
	r.readSegments()
	r.readEntries()
	r.join(newest)
	r.readVotes()
	return r.lack
}

// recognize returns fs.ErrNotExist if the directory has no data of a node. Subdirectories with the right names
// are not enough: other programs have logs, too.
func (r *Reader) recognize() error {
	names, err := r.fs.ReadDir(r.dir)
	if err != nil {
		return err
	}
	ours := []string{identityFile, identityFile + foundingSuffix, voteFile, earlierStore}
	if slices.ContainsFunc(names, func(name string) bool { return slices.Contains(ours, name) }) {
		return nil
	}
	segments, err := findSegments(r.fs, filepath.Join(r.dir, segmentDir))
	if err != nil && !isNotExist(err) {
		return err
	}
	snapshots, err := (&snapshotFiles{fs: r.fs, dir: filepath.Join(r.dir, snapshotDir)}).ids()
	if err != nil && !isNotExist(err) {
		return err
	}
	if len(segments)+len(snapshots) == 0 {
		return noNodeError{r.dir}
	}
	return nil
}

// damaged notes that a file is damaged. If the error already names a file, that name stays.
func (r *Reader) damaged(file string, err error) {
	if vfs.Short(err) {
		r.lack = err
		return
	}
	var corrupt *CorruptError
	switch {
	case errors.Is(err, wire.ErrFormat):
		r.Formats = append(r.Formats, err)
		return
	case !errors.As(err, &corrupt):
		err = &CorruptError{File: file, Err: err}
	}
	r.Damage = append(r.Damage, err)
}

// readSnapshots reads the heads of all snapshots, and returns the newest one that is readable.
func (r *Reader) readSnapshots() (newest raft.SnapshotMeta) {
	files := &snapshotFiles{fs: r.fs, dir: filepath.Join(r.dir, snapshotDir)}
	ids, err := files.ids()
	if err != nil && !isNotExist(err) {
		r.damaged(files.dir, err)
	}
	for _, id := range ids {
		file := filepath.Join(files.dir, id+snapshotSuffix)
		meta, body, err := files.open(id)
		if err != nil {
			r.damaged(file, err)
			continue
		}
		_ = body.Close() // it was only read
		sn := Snapshot{file, meta.Index, meta.Term, meta.Size, members(meta.Configuration), id}
		if len(r.Snapshots) == 0 {
			newest = *meta
			r.Members, r.LastTerm = sn.Members, sn.Term
		}
		r.Snapshots = append(r.Snapshots, sn)
	}
	return newest
}

// Members decodes the data of a configuration entry.
func Members(data []byte) ([]Member, error) {
	c, err := decodeConfiguration(data)
	return members(c), err
}

func members(c raft.Configuration) []Member {
	all := []Member{}
	for _, s := range c.Servers {
		all = append(all, Member{ID: s.ID, Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return all
}

// readSegments reads all segments. The entries are those up to the first damage; later segments are
// verified on their own.
func (r *Reader) readSegments() {
	dir := filepath.Join(r.dir, segmentDir)
	found, err := findSegments(r.fs, dir)
	if err != nil && !isNotExist(err) {
		r.damaged(dir, err)
	}
	s, c, whole := &segments{fs: r.fs, dir: dir}, &r.entries, true
	for i, g := range found {
		b, err := g.load(r.fs)
		if g.file != nil {
			r.opened = append(r.opened, g)
		}
		torn := false
		if err == nil {
			torn, err = s.read(g, b, i == len(found)-1, c)
		}
		if err != nil {
			r.damaged(g.name, err)
			s.files, c, whole = nil, &contents{}, false
			continue
		}
		if torn {
			r.Torn = int64(len(b)) - g.end
		}
		s.files = append(s.files, g)
	}
	r.Recorded = s.applied
	reached, _, err := readExtent(r.fs, r.dir)
	if err != nil {
		r.damaged(filepath.Join(r.dir, voteFile), err)
	}
	r.reached = reached
	if whole {
		if err := reached.lost(dir, newestOf(s.files), c.last()); err != nil {
			r.damaged(dir, err)
		}
	}
}

// readEntries reads each entry once. Members comes from the last entry that lists members.
func (r *Reader) readEntries() {
	r.First, r.Last = r.entries.first, r.entries.last()
	if r.Last == 0 {
		r.First = 0
		return
	}
	for i := range r.entries.refs {
		l, err := r.entry(r.entries.first + uint64(i))
		if err != nil {
			r.damaged(r.entries.refs[i].segment.name, err)
			if r.Last = r.entries.first + uint64(i) - 1; r.Last < r.First {
				r.First, r.Last = 0, 0
			}
			return
		}
		if l.Type == raft.LogConfiguration {
			members, err := Members(l.Data)
			if err != nil {
				r.damaged(r.entries.refs[i].segment.name, fmt.Errorf("entry %d: %w", l.Index, err))
				continue
			}
			if len(r.Snapshots) == 0 || l.Index > r.Snapshots[0].Index {
				r.Members = members
			}
		}
		r.LastTerm = l.Term
	}
}

func (r *Reader) entry(index uint64) (*raft.Log, error) {
	if index < r.First || index > r.Last {
		return nil, raft.ErrLogNotFound
	}
	at := r.entries.refs[index-r.entries.first]
	l, err := at.read()
	if err == nil && l.Index != index {
		err = fmt.Errorf("entry %d stands where %d should", l.Index, index)
	}
	return l, err
}

// join checks that the log and the newest snapshot agree. A log that the snapshot has overtaken is
// ignored, including its members.
func (r *Reader) join(newest raft.SnapshotMeta) {
	if len(r.Formats) > 0 {
		return // the files of another version may have the missing entries
	}
	overtaken, err := joins(r.dir, r.First, r.Last, r.Recorded, &newest, r.entry)
	if err == nil && len(r.Damage) == 0 {
		err = r.reached.lostSnapshot(r.dir, r.Last, newest.Index)
		if err == nil && r.Known && max(r.Last, newest.Index) == 0 {
			err = r.Identity.withoutLog(r.dir)
		}
	}
	if err != nil {
		r.damaged(filepath.Join(r.dir, segmentDir), err)
	}
	if overtaken {
		r.First, r.Last, r.LastTerm = 0, 0, newest.Term
		r.Members = members(newest.Configuration)
	}
	if (r.Last > 0 || newest.Index > 0) && !r.Known && !r.Unfinished && len(r.Damage) == 0 {
		r.damaged(filepath.Join(r.dir, identityFile), errIdentityMissing)
	}
}

func (r *Reader) readVotes() {
	name := filepath.Join(r.dir, voteFile)
	v := &votes{}
	var err error
	if v.file, err = r.fs.Open(name); err == nil {
		_, err = v.read(name)
		err = errors.Join(err, v.file.Close())
	} else if isNotExist(err) {
		if err = nil; r.Known {
			err = errVoteMissing
		}
	}
	if err == nil && v.serial == 0 && (r.Last > 0 || len(r.Snapshots) > 0) && !r.Unfinished {
		err = withoutVote(r.dir)
	}
	if err != nil {
		r.damaged(name, err)
	}
	r.Term, r.VotedIn, r.Candidate = v.term, v.votedIn, raft.ServerID(v.candidate)
}

// Body returns the body of a snapshot. The caller closes it.
func (r *Reader) Body(sn *Snapshot) (io.ReadCloser, error) {
	files := &snapshotFiles{fs: r.fs, dir: filepath.Join(r.dir, snapshotDir)}
	_, body, err := files.open(sn.id)
	if err != nil {
		return nil, err // not a nil pointer in an interface
	}
	return body, nil
}

// Entries calls fn with each entry of the log at an index or after, until fn returns an error. It returns
// that error, or a *CorruptError or *wire.FormatError if an entry cannot be read.
func (r *Reader) Entries(from uint64, fn func(Entry) error) error {
	for index := max(from, r.First); index > 0 && index <= r.Last; index++ {
		l, err := r.entry(index)
		if err == nil {
			e := Entry{Index: l.Index, Term: l.Term}
			switch l.Type {
			case raft.LogCommand:
				e.Command = append([]byte{}, l.Data...) // not nil, though it is empty
			case raft.LogConfiguration:
				e.Members, err = Members(l.Data)
			}
			if err == nil {
				err = fn(e)
			}
		}
		if err != nil {
			return storage.Damaged(r.entries.refs[index-r.entries.first].segment.name, fmt.Errorf("entry %d: %w", index, err))
		}
	}
	return nil
}

// Close unlocks the directory and closes its files.
func (r *Reader) Close() error {
	var errs []error
	for _, g := range r.opened {
		errs = append(errs, g.file.Close())
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
	}
	return errors.Join(errs...)
}
