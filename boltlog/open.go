// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/vfs"
)

const (
	// logFile is the name of the file with the entries, the vote and the identity.
	logFile = "log.db"
	// partSuffix is appended to the name of a new file until it is complete.
	partSuffix = ".part"
)

// openStore opens the data in a directory, which it creates if there is none.
func openStore(fsys vfs.FS, dir string, o Options) (*store, error) {
	name := filepath.Join(dir, logFile)
	found, serial, err := readNote(fsys, dir)
	if err != nil {
		return nil, err
	}
	if err := create(fsys, dir, o, found); err != nil {
		return nil, err
	}
	s := &store{}
	var c *contents
	s.db, err = openDatabase(name, o, func(f *os.File) error {
		info, err := f.Stat()
		if err == nil {
			c, err = readContents(f, info.Size())
		}
		if err == nil {
			err = found.lost(c.transaction)
		}
		return damaged(name, err)
	})
	if err != nil {
		return nil, err
	}
	if s.note, err = openNote(fsys, dir, found, serial); err != nil {
		return nil, errors.Join(err, s.db.close())
	}
	s.loaded, s.state, s.applied = c.loaded(found.extent), c.state, c.applied
	s.first, s.sizes = c.first, make([]int32, len(c.entries))
	for i, p := range c.entries {
		s.sizes[i] = p.size
	}
	if err := s.sweep(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// create makes the file, unless it exists. It has its name only when it is complete and durable.
func create(fsys vfs.FS, dir string, o Options, found reached) error {
	name := filepath.Join(dir, logFile)
	file, err := fsys.Open(name)
	if err == nil {
		return file.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := found.missing(); err != nil {
		return damaged(name, err)
	}
	part := name + partSuffix
	if err := fsys.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openDatabase(part, o, nil)
	if err != nil {
		return err
	}
	if err := db.close(); err != nil {
		return err
	}
	if err := fsys.Rename(part, name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}
