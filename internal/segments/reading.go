// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"errors"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A reading is the data of a directory that is only read.
type reading struct {
	loaded   storage.Loaded
	torn     int64
	contents contents   // up to the first damage
	opened   []*segment // to be closed
	vote     *vote
	identity *identity
}

// Read implements storage.Format.
func (Format) Read(files vfs.FS, dir string, damaged func(file string, err error)) (storage.Reading, error) {
	r := &reading{vote: &vote{fs: files, dir: dir}, identity: &identity{fs: files, dir: dir}}
	r.readSegments(files, filepath.Join(dir, segmentDir), damaged)
	return r, nil
}

// readSegments reads all segments. The entries are those up to the first damage; later segments are verified on their
// own.
func (r *reading) readSegments(files vfs.FS, dir string, damaged func(file string, err error)) {
	found, err := findSegments(files, dir)
	if err != nil && !missing(err) {
		damaged(dir, err)
	}
	s, c, whole := &segments{fs: files, dir: dir}, &r.contents, true
	var buffer []byte
	for i, g := range found {
		b, err := g.load(files, &buffer)
		if g.file != nil {
			r.opened = append(r.opened, g)
		}
		torn := false
		if err == nil {
			torn, err = s.read(g, b, i == len(found)-1, c)
		}
		if err != nil {
			damaged(g.name, err)
			s.files, c, whole = nil, &contents{}, false
			continue
		}
		if torn {
			r.torn = int64(len(b)) - g.end
		}
		s.files = append(s.files, g)
	}
	reached, err := r.readExtent()
	if err != nil {
		damaged(r.vote.name(), err)
	}
	if whole {
		if err := reached.lost(dir, newestOf(s.files), c.last()); err != nil {
			damaged(dir, err)
		}
	}
	r.loaded = storage.Loaded{First: r.contents.first(), Last: r.contents.last(), Applied: s.applied, Reached: reached.Extent}
}

func (r *reading) readExtent() (reached extent, err error) {
	file, err := r.vote.fs.Open(r.vote.name())
	if missing(err) {
		return reached, nil
	}
	if err != nil {
		return reached, err
	}
	reached, _, err = readExtent(file)
	return reached, errors.Join(err, file.Close())
}

// Loaded implements storage.Reading.
func (r *reading) Loaded() storage.Loaded { return r.loaded }

// Torn implements storage.Reading.
func (r *reading) Torn() int64 { return r.torn }

// Entry implements storage.Reading.
func (r *reading) Entry(index uint64) (*raft.Log, error) {
	at, ok := r.contents.at(index)
	if !ok {
		return nil, raft.ErrLogNotFound
	}
	return at.read()
}

// File implements storage.Reading.
func (r *reading) File(index uint64) string {
	at, ok := r.contents.at(index)
	if !ok {
		return ""
	}
	return at.segment.name
}

// Vote implements storage.Reading.
func (r *reading) Vote() (record []byte, err error) {
	r.vote.file, err = r.vote.fs.Open(r.vote.name())
	if missing(err) {
		if id, err := r.identity.Load(); err == nil && id != nil {
			return nil, &storage.CorruptError{File: r.vote.name(), Err: errVoteMissing}
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	record, _, err = r.vote.read()
	return record, errors.Join(err, r.vote.close())
}

// Identity implements storage.Reading.
func (r *reading) Identity() ([]byte, error) { return r.identity.Load() }

// Close implements storage.Reading.
func (r *reading) Close() error {
	var errs []error
	for _, g := range r.opened {
		errs = append(errs, g.file.Close())
	}
	return errors.Join(errs...)
}
