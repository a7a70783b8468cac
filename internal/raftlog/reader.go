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
	files   storage.Layout // the paths of the format's files
	format  storage.Format
	lock    io.Closer
	disk    storage.Reading
	reached storage.Extent
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
// Errors: fault.ErrDirInUse, fault.ErrStorageMismatch, *wire.FormatError for a directory of the first version,
// fs.ErrNotExist, or an error of the file system about the directory.
func Read(fs vfs.FS, dir string, format storage.Format) (*Reader, error) {
	return read(vfs.ReadOnly(fs), dir, format)
}

// read reads a directory. It locks it through locks, which may refuse to create the lock file.
func read(locks vfs.FS, dir string, format storage.Format) (*Reader, error) {
	r := newReader(locks, dir, format)
	err := r.take(locks)
	if err == nil {
		err = r.load()
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func newReader(fs vfs.FS, dir string, format storage.Format) *Reader {
	r := &Reader{fs: vfs.ReadOnly(fs), dir: dir}
	r.setFormat(format)
	return r
}

func (r *Reader) setFormat(format storage.Format) { r.format, r.files = format, paths(r.dir, format) }

// take locks the directory, if it has data of a node.
func (r *Reader) take(locks vfs.FS) error {
	if err := r.recognize(); err != nil {
		return err
	}
	l := newLog(locks, r.dir, r.format)
	err := l.take()
	if err != nil && !isNotExist(err) {
		return err
	}
	r.lock = l.lock
	return nil
}

// load reads the contents of the directory.
func (r *Reader) load() (err error) {
	if err := refuseEarlier(r.fs, r.dir); err != nil {
		return err
	}
	if err := refuseOther(r.fs, r.dir, r.format); err != nil {
		return err
	}
	var found []func() // damage of the log, which is reported after that of other files
	r.disk, err = r.format.Read(r.fs, r.dir, func(file string, err error) {
		found = append(found, func() { r.damaged(file, err) })
	})
	if err != nil {
		r.disk = nil // not a nil pointer in an interface
		return err
	}
	if err := r.readIdentity(); err != nil {
		return err
	}
	if err := readDivergence(r.fs, r.dir, r.files.Log); errors.As(err, new(*CorruptError)) {
		r.Diverged = err
	} else if err != nil {
		return err
	}
	newest := r.readSnapshots()
	for _, report := range found {
		report()
	}
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
	if slices.Contains(names, foundingFile) || slices.Contains(names, earlierStore) {
		return nil
	}
	files, err := r.format.Files(r.fs, r.dir)
	if err != nil {
		return err
	}
	formats, err := storage.Detect(r.fs, r.dir)
	if err != nil {
		return err
	}
	snapshots, err := (&snapshotFiles{fs: r.fs, dir: filepath.Join(r.dir, snapshotDir)}).ids()
	if err != nil && !isNotExist(err) {
		return err
	}
	if len(files)+len(formats)+len(snapshots) == 0 {
		return noNodeError{r.dir}
	}
	return nil
}

// Format returns the name of the format of the directory.
func (r *Reader) Format() string { return r.format.Name() }

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

// readIdentity reads the identity, and whether Found was interrupted.
func (r *Reader) readIdentity() error {
	b, damage := r.disk.Identity()
	if damage == nil && b != nil {
		r.Identity, damage = decodeIdentity(b, r.files.Identity)
		r.Known = damage == nil
	}
	if damage != nil {
		r.damaged(r.files.Identity, damage)
		return nil
	}
	marked, err := exists(r.fs, filepath.Join(r.dir, foundingFile))
	r.Unfinished = marked && !r.Known
	return err
}

// readEntries reads each entry once. Members comes from the last entry that lists members.
func (r *Reader) readEntries() {
	found := r.disk.Loaded()
	r.First, r.Last, r.Recorded, r.Torn, r.reached = found.First, found.Last, found.Applied, r.disk.Torn(), found.Reached
	for i := r.First; i > 0 && i <= found.Last; i++ {
		l, err := r.entry(i)
		if err != nil {
			r.damaged(r.disk.File(i), err)
			if r.Last = i - 1; r.Last < r.First {
				r.First, r.Last = 0, 0
			}
			return
		}
		if l.Type == raft.LogConfiguration {
			members, err := Members(l.Data)
			if err != nil {
				r.damaged(r.disk.File(i), fmt.Errorf("entry %d: %w", l.Index, err))
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
	l, err := r.disk.Entry(index)
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
	overtaken, err := joins(r.dir, r.files.Log, r.First, r.Last, r.Recorded, &newest, r.entry)
	if err == nil && len(r.Damage) == 0 {
		err = lostSnapshot(r.dir, &r.reached, r.Last, newest.Index)
		if err == nil && r.Known && max(r.Last, newest.Index) == 0 {
			err = r.Identity.withoutLog(r.files.Log)
		}
	}
	if err != nil {
		r.damaged(r.files.Log, err)
	}
	if overtaken {
		r.First, r.Last, r.LastTerm = 0, 0, newest.Term
		r.Members = members(newest.Configuration)
	}
	if (r.Last > 0 || newest.Index > 0) && !r.Known && !r.Unfinished && len(r.Damage) == 0 {
		r.damaged(r.files.Identity, errIdentityMissing)
	}
}

func (r *Reader) readVotes() {
	var v vote
	b, err := r.disk.Vote()
	if err == nil {
		v, err = decodeVote(b, r.files.Vote)
	}
	if err == nil && b == nil && (r.Last > 0 || len(r.Snapshots) > 0) && !r.Unfinished {
		err = withoutVote(r.files.Vote)
	}
	if err != nil {
		r.damaged(r.files.Vote, err)
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
			return storage.Damaged(r.disk.File(index), fmt.Errorf("entry %d: %w", index, err))
		}
	}
	return nil
}

// Close unlocks the directory and closes its files.
func (r *Reader) Close() error {
	var errs []error
	if r.disk != nil {
		errs = append(errs, r.disk.Close())
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
	}
	return errors.Join(errs...)
}
