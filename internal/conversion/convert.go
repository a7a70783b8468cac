// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Conversion says how to convert a directory.
type Conversion struct {
	From, To storage.Format
	Kept     string         // the name of the subdirectory for the old files; it begins with the name of From and "-"
	Reached  storage.Extent // how far the log has reached
	Broken   func() error   // returns an error if the conversion is to end early
}

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
	if err := Settle(files, dir); err != nil {
		return fmt.Errorf("%s has the format %s now, and Open removes the remains of %s: %w", dir, note.To, note.From, err)
	}
	return nil
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
	if err := errors.Join(c.copyData(store, old), store.Close()); err != nil {
		return err
	}
	return c.compare(c.To, files, dir, old)
}
