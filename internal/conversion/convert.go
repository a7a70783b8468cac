// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Conversion says how to convert a directory.
type Conversion struct {
	From, To storage.Format
	Kept     string         // the name of the subdirectory for the old files; it begins with the name of From and "-"
	Reached  storage.Extent // what the log has reached
	Broken   func() error   // returns an error if the conversion is to end early
}

// batchBytes is roughly how many bytes of entries one write has.
const batchBytes = 1 << 20

// Run converts a directory, which the caller has locked and settled. old is the undamaged data of the directory, and Run
// closes it. If Run fails, the directory has the old format, as before, or Settle can undo or complete the conversion.
//
// Errors: fs.ErrExist if the subdirectory has files, an error of Broken, those of the formats, or an error of the file
// system.
func (c *Conversion) Run(files vfs.FS, dir string, old storage.Reading) error {
	kept := filepath.Join(dir, c.Kept)
	names, err := storage.FilesOf(files, kept, c.From.Name())
	if err == nil && len(names) > 0 {
		err = &fs.PathError{Op: "create", Path: names[0], Err: fs.ErrExist}
	}
	if err != nil {
		return errors.Join(err, old.Close())
	}
	note := Note{From: c.From.Name(), To: c.To.Name(), Kept: c.Kept}
	err = note.write(files, dir)
	if err == nil {
		err = c.fill(files, dir, old)
	}
	if err := errors.Join(err, old.Close()); err != nil {
		return errors.Join(err, Settle(files, dir))
	}
	note.Done = true
	if err := note.write(files, dir); err != nil {
		return err // it is not known which note a crash would leave
	}
	return Settle(files, dir)
}

// fill makes the files of the new format and a copy of the old ones, and compares both with the old ones.
func (c *Conversion) fill(files vfs.FS, dir string, old storage.Reading) error {
	kept := filepath.Join(dir, c.Kept)
	if err := c.keep(files, dir, kept); err != nil {
		return err
	}
	if err := c.compare(c.From, files, kept, old); err != nil {
		return err
	}
	store, err := c.To.Open(files, dir)
	if err != nil {
		return err
	}
	if err := errors.Join(c.copy(store, old), store.Close()); err != nil {
		return err
	}
	return c.compare(c.To, files, dir, old)
}

// keep copies the files of the old format to a subdirectory.
func (c *Conversion) keep(files vfs.FS, dir, kept string) error {
	names, err := c.From.Files(files, dir)
	if err != nil {
		return err
	}
	dirs := map[string]bool{kept: true}
	if err := files.MkdirAll(kept); err != nil {
		return err
	}
	for _, name := range names {
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		to := filepath.Join(kept, relative)
		if below := filepath.Dir(to); !dirs[below] {
			dirs[below] = true
			if err := files.MkdirAll(below); err != nil {
				return err
			}
		}
		if err := c.copyFile(files, name, to); err != nil {
			return err
		}
	}
	for below := range dirs {
		if err := files.SyncDir(below); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conversion) copyFile(files vfs.FS, from, to string) error {
	source, err := files.Open(from)
	if err != nil {
		return err
	}
	defer source.Close() // it is only read
	target, err := files.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(c.copyContents(target, source), target.Close())
}

func (c *Conversion) copyContents(target, source vfs.File) error {
	b := make([]byte, 1<<20)
	for at := int64(0); ; {
		if err := c.Broken(); err != nil {
			return err
		}
		n, err := source.ReadAt(b, at)
		if n > 0 {
			if _, err := target.WriteAt(b[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return target.Sync()
		}
		if err != nil {
			return err
		}
	}
}

// copy fills an empty store.
func (c *Conversion) copy(store storage.Store, old storage.Reading) error {
	loaded, err := store.Load()
	if err != nil {
		return err
	}
	if loaded.Last > 0 {
		return fmt.Errorf("the new log has entries already, from %d to %d", loaded.First, loaded.Last)
	}
	is := old.Loaded()
	if err := c.copyEntries(store, old, is); err != nil {
		return err
	}
	store.Extend(c.Reached)
	// The vote is first: its file is older than the identity, which is the last file that a new directory gets.
	for _, r := range records(old, store) {
		b, err := r.old()
		if err == nil && b != nil {
			err = r.new.Save(b)
		}
		if err != nil {
			return err
		}
	}
	store.Sync()
	return nil
}

type recordPair struct {
	old func() ([]byte, error)
	new storage.Record
}

func records(old storage.Reading, store storage.Store) []recordPair {
	return []recordPair{{old.Vote, store.Vote()}, {old.Identity, store.Identity()}}
}

func (c *Conversion) copyEntries(store storage.Store, old storage.Reading, is storage.Loaded) error {
	var batch []*raft.Log
	size := 0
	write := func(applied uint64) error {
		var changes []storage.Change
		if len(batch) > 0 {
			changes = []storage.Change{{Kind: storage.Append, Entries: batch}}
		}
		batch, size = nil, 0
		_, err := store.Write(changes, applied)
		return err
	}
	for index := is.First; index > 0 && index <= is.Last; index++ {
		l, err := old.Entry(index)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		batch, size = append(batch, l), size+len(l.Data)+len(l.Extensions)
		if size >= batchBytes || len(batch) >= 4096 {
			if err := errors.Join(c.Broken(), write(0)); err != nil {
				return err
			}
		}
	}
	if len(batch) == 0 && is.Applied == 0 {
		return nil
	}
	return write(is.Applied)
}

// compare returns an error if the data of a format in a directory differs from the old data.
func (c *Conversion) compare(format storage.Format, files vfs.FS, dir string, old storage.Reading) (err error) {
	var damage []error
	is, err := format.Read(vfs.ReadOnly(files), dir, func(file string, err error) { damage = append(damage, fmt.Errorf("%s: %w", file, err)) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, is.Close()) }()
	if len(damage) > 0 {
		return fmt.Errorf("the copy as %s cannot be read: %w", format.Name(), errors.Join(damage...))
	}
	return c.difference(is, old, format.Name())
}

// difference returns an error if two logs, votes or identities differ.
func (c *Conversion) difference(is, old storage.Reading, name string) error {
	was, now := old.Loaded(), is.Loaded()
	if was.First != now.First || was.Last != now.Last || was.Applied != now.Applied {
		return fmt.Errorf("the copy as %s has entries from %d to %d and applied %d, instead of %d to %d and %d",
			name, now.First, now.Last, now.Applied, was.First, was.Last, was.Applied)
	}
	for index := was.First; index > 0 && index <= was.Last; index++ {
		if index%1024 == 0 {
			if err := c.Broken(); err != nil {
				return err
			}
		}
		l, err := old.Entry(index)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		copied, err := is.Entry(index)
		if err != nil {
			return fmt.Errorf("entry %d of the copy as %s: %w", index, name, err)
		}
		if !equal(l, copied) {
			return fmt.Errorf("entry %d differs in the copy as %s", index, name)
		}
	}
	for what, read := range map[string]func(storage.Reading) ([]byte, error){
		"vote": storage.Reading.Vote, "identity": storage.Reading.Identity,
	} {
		a, err := read(old)
		b, err2 := read(is)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if (a == nil) != (b == nil) || !bytes.Equal(a, b) {
			return fmt.Errorf("the %s differs in the copy as %s", what, name)
		}
	}
	return nil
}

func equal(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && a.AppendedAt.Equal(b.AppendedAt) &&
		bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Extensions, b.Extensions)
}
