// SPDX-License-Identifier: Apache-2.0

// Package segments is the usual format of a directory: a log of segments, which are files that only grow, a file with
// two slots for the vote, and a file with the identity. It runs on every vfs.FS, so tests can interrupt it at each of
// its steps.
package segments

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// The names in a directory.
const (
	segmentDir   = "log"
	voteFile     = "vote"
	identityFile = "identity"
	partSuffix   = ".part" // of a file that is being written
)

// segmentSize is the size at which a segment ends, unless a single batch is larger. Entries that a snapshot covers are
// removed a whole segment at a time.
const segmentSize = 8 << 20

// A Format is the format of a directory with segments of a size. Its zero value has segments of the usual size.
type Format struct{ SegmentSize int64 }

// Name implements storage.Format.
func (Format) Name() string { return storage.Segments }

// Layout implements storage.Format.
func (Format) Layout() storage.Layout {
	return storage.Layout{Log: segmentDir, Vote: voteFile, Identity: identityFile}
}

// Files implements storage.Format.
func (Format) Files(files vfs.FS, dir string) (names []string, err error) {
	for _, name := range []string{identityFile, voteFile} {
		there, err := exists(files, filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if there {
			names = append(names, filepath.Join(dir, name))
		}
	}
	found, err := findSegments(files, filepath.Join(dir, segmentDir))
	if err != nil && !missing(err) {
		return nil, err
	}
	for _, g := range found {
		names = append(names, g.name)
	}
	return names, nil
}

// Open implements storage.Format.
func (f Format) Open(files vfs.FS, dir string) (storage.Store, error) {
	logDir := filepath.Join(dir, segmentDir)
	if err := files.MkdirAll(logDir); err != nil {
		return nil, err
	}
	// From now on the names in the directory count as durable. The previous process may have been killed before it
	// synced them.
	if err := errors.Join(files.SyncDir(dir), files.SyncDir(logDir)); err != nil {
		return nil, err
	}
	s := &store{identity: &identity{fs: files, dir: dir}, vote: &vote{fs: files, dir: dir}}
	if err := s.vote.open(s.identity); err != nil {
		return nil, errors.Join(err, s.vote.close())
	}
	limit := f.SegmentSize
	if limit == 0 {
		limit = segmentSize
	}
	s.segments = &segments{fs: files, dir: logDir, limit: limit, batch: newBatch(), extents: &extents{file: s.vote.file}}
	return s, nil
}

// A store is the data of one directory.
type store struct {
	*segments
	vote     *vote
	identity *identity
}

// Vote implements storage.Store.
func (s *store) Vote() storage.Record { return s.vote }

// Identity implements storage.Store.
func (s *store) Identity() storage.Record { return s.identity }

// Close implements storage.Store.
func (s *store) Close() error { return errors.Join(s.segments.close(), s.vote.close()) }

// exists reports whether a file exists.
func exists(files vfs.FS, name string) (bool, error) {
	f, err := files.Open(name)
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
