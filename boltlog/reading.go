// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A reading is the data of a directory, for an inspection. It reads the pages without bbolt, and takes no lock.
type reading struct {
	name     string
	file     vfs.File // nil if it cannot be opened
	contents *contents
	reached  reached
}

func read(fsys vfs.FS, dir string, damage func(file string, err error)) (*reading, error) {
	r := &reading{name: filepath.Join(dir, logFile), contents: &contents{}}
	report := func(err error) {
		if err != nil {
			damage(r.name, damaged(r.name, err))
		}
	}
	var err error
	if r.reached, _, err = readNote(fsys, dir); err != nil {
		damage(filepath.Join(dir, noteFile), err)
	}
	r.file, err = fsys.Open(r.name)
	if errors.Is(err, fs.ErrNotExist) {
		report(r.reached.missing())
		return r, nil
	}
	if err != nil {
		report(err)
		return r, nil
	}
	size, err := r.file.Size()
	if err == nil {
		r.contents, err = readContents(r.file, size)
	}
	report(err)
	if err == nil {
		report(r.reached.lost(r.contents.transaction))
	}
	return r, nil
}

// Loaded implements storage.Reading.
func (r *reading) Loaded() storage.Loaded { return r.contents.loaded(r.reached.extent) }

// Torn implements storage.Reading. Bbolt never leaves an incomplete write.
func (r *reading) Torn() int64 { return 0 }

// Entry implements storage.Reading.
func (r *reading) Entry(index uint64) (*raft.Log, error) {
	c := r.contents
	if len(c.entries) == 0 || index < c.first || index > c.last() {
		return nil, raft.ErrLogNotFound
	}
	p := c.entries[index-c.first]
	b := make([]byte, p.size)
	if _, err := r.file.ReadAt(b, p.at); err != nil {
		return nil, err
	}
	l, _, err := newDecoder().decode(index, b)
	return l, damaged(r.name, err)
}

// File implements storage.Reading.
func (r *reading) File(uint64) string { return r.name }

// Vote implements storage.Reading.
func (r *reading) Vote() ([]byte, error) { return r.record(keyVote) }

// Identity implements storage.Reading.
func (r *reading) Identity() ([]byte, error) { return r.record(keyIdentity) }

func (r *reading) record(key string) ([]byte, error) {
	b, err := openRecord(key, r.contents.records[key])
	return b, damaged(r.name, err)
}

// Close implements storage.Reading.
func (r *reading) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
