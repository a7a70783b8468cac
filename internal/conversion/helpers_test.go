// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// simple is a format of one file, which each change replaces. Unlike bbolt it runs on every file system, so tests can
// interrupt a conversion at each step. It has the name and the file of the format of package boltlog.
type simple struct {
	spoil  func(*simpleData) // damages the data that Open writes; nil for none
	damage error             // the damage that Read reports; nil for none
}

type simpleData struct {
	Entries        []raft.Log
	Applied        uint64
	Reached        storage.Extent
	Vote, Identity []byte
}

const simpleFile = "log.db"

func (simple) Name() string { return storage.Bolt }

func (simple) Layout() storage.Layout {
	return storage.Layout{Log: simpleFile, Vote: simpleFile, Identity: simpleFile}
}

func (simple) Files(files vfs.FS, dir string) ([]string, error) {
	f, err := files.Open(filepath.Join(dir, simpleFile))
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []string{filepath.Join(dir, simpleFile)}, f.Close()
}

func (s simple) Open(files vfs.FS, dir string) (storage.Store, error) {
	store := &simpleStore{fs: files, dir: dir, spoil: s.spoil}
	err := store.read()
	if missing(err) {
		err = store.save()
	}
	return store, err
}

func (s simple) Read(files vfs.FS, dir string, damaged func(file string, err error)) (storage.Reading, error) {
	if s.damage != nil {
		damaged(simpleFile, s.damage)
	}
	store := &simpleStore{fs: files, dir: dir}
	if err := store.read(); err != nil && !missing(err) {
		damaged(simpleFile, err)
	}
	return simpleReading{store}, nil
}

type simpleStore struct {
	fs    vfs.FS
	dir   string
	spoil func(*simpleData)
	simpleData
}

func (s *simpleStore) read() error {
	file, err := s.fs.Open(filepath.Join(s.dir, simpleFile))
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return err
	}
	return gob.NewDecoder(io.NewSectionReader(file, 0, size)).Decode(&s.simpleData)
}

func (s *simpleStore) save() error {
	written := s.simpleData
	if s.spoil != nil {
		s.spoil(&written)
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(written); err != nil {
		return err
	}
	name := filepath.Join(s.dir, simpleFile)
	file, err := s.fs.Create(name + storage.PartSuffix)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(b.Bytes(), 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := s.fs.Rename(name+storage.PartSuffix, name); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

func (s *simpleStore) loaded() (l storage.Loaded) {
	l = storage.Loaded{Applied: s.Applied, Reached: s.Reached}
	if n := len(s.Entries); n > 0 {
		l.First, l.Last = s.Entries[0].Index, s.Entries[n-1].Index
	}
	return l
}

func (s *simpleStore) Load() (storage.Loaded, error) { return s.loaded(), nil }

func (s *simpleStore) Write(changes []storage.Change, applied uint64) (int, error) {
	for _, c := range changes {
		for _, l := range c.Entries {
			s.Entries = append(s.Entries, *l)
		}
	}
	s.Applied = applied
	return 0, s.save()
}

func (s *simpleStore) Entry(index uint64) (*raft.Log, error) {
	if l := s.loaded(); l.First == 0 || index < l.First || index > l.Last {
		return nil, raft.ErrLogNotFound
	}
	return &s.Entries[index-s.Entries[0].Index], nil
}

func (s *simpleStore) Size(uint64) int64       { return 1 }
func (s *simpleStore) Compact(uint64) error    { return nil }
func (s *simpleStore) Extend(e storage.Extent) { s.Reached = e }
func (s *simpleStore) Sync()                   { _ = s.save() }
func (s *simpleStore) Close() error            { return nil }

func (s *simpleStore) Vote() storage.Record     { return simpleRecord{s, &s.simpleData.Vote} }
func (s *simpleStore) Identity() storage.Record { return simpleRecord{s, &s.simpleData.Identity} }

type simpleRecord struct {
	store *simpleStore
	value *[]byte
}

func (r simpleRecord) Load() ([]byte, error) { return *r.value, nil }

func (r simpleRecord) Save(b []byte) error {
	*r.value = b
	return r.store.save()
}

type simpleReading struct{ *simpleStore }

func (r simpleReading) Loaded() storage.Loaded    { return r.loaded() }
func (r simpleReading) Torn() int64               { return 0 }
func (r simpleReading) File(uint64) string        { return simpleFile }
func (r simpleReading) Vote() ([]byte, error)     { return r.simpleData.Vote, nil }
func (r simpleReading) Identity() ([]byte, error) { return r.simpleData.Identity, nil }
