// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/conversion"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Conversion says how to change the format of a directory.
type Conversion struct {
	To      storage.Format
	Formats func(name string) storage.Format // returns a format by its name
	Kept    func(from string) string         // returns the name of the subdirectory for the old files
	Check   func(*Reader) error              // returns an error if the directory is not to be converted
	Broken  func() error                     // returns an error if the conversion is to end early
}

// Converted describes a conversion that is done.
type Converted struct {
	From                 string // the name of the old format
	Kept                 string // the directory with the old files
	First, Last, Applied uint64 // of the log
}

// ErrSameFormat means that the directory has the format already.
var ErrSameFormat = errors.New("the directory has this format already")

// Convert changes the format of the directory of a node that is not running: completely or not at all. If it is
// interrupted, Open finds the old format or the new one, and Convert can be called again. No node can open the
// directory in the meantime.
//
// Errors: those of Read, ErrSameFormat, those of Check and Broken, or an error of the file system.
func Convert(fs vfs.FS, dir string, c Conversion) (Converted, error) {
	r := newReader(fs, dir, c.Formats(storage.Segments))
	done, err := c.convert(fs, r)
	return done, errors.Join(err, r.Close())
}

func (c *Conversion) convert(fs vfs.FS, r *Reader) (Converted, error) {
	if err := r.take(fs); err != nil {
		return Converted{}, err
	}
	resumed, err := conversion.ReadNote(fs, r.dir)
	if err != nil {
		return Converted{}, err
	}
	if err := conversion.Settle(fs, r.dir); err != nil {
		return Converted{}, err
	}
	names, err := conversion.Formats(fs, r.dir)
	if err != nil {
		return Converted{}, err
	}
	if len(names) > 0 {
		r.setFormat(c.Formats(names[0]))
	}
	if err := r.load(); err != nil {
		return Converted{}, err
	}
	if len(names) == 0 { // snapshots alone, or the remains of a founding
		if err := c.Check(r); err != nil {
			return Converted{}, err
		}
		return Converted{}, noNodeError{r.dir}
	}
	return c.run(fs, r, resumed)
}

// run converts a directory that was read. resumed is the note of a conversion that was interrupted before, or nil.
func (c *Conversion) run(fs vfs.FS, r *Reader, resumed *conversion.Note) (Converted, error) {
	found := r.disk.Loaded()
	done := Converted{From: r.format.Name(), First: found.First, Last: found.Last, Applied: found.Applied}
	if done.From == c.To.Name() {
		if resumed == nil || !resumed.Done || resumed.To != done.From {
			return Converted{}, ErrSameFormat
		}
		done.From, done.Kept = resumed.From, filepath.Join(r.dir, resumed.Kept)
		return done, nil
	}
	if err := c.Check(r); err != nil {
		return Converted{}, err
	}
	kept := c.Kept(done.From)
	done.Kept = filepath.Join(r.dir, kept)
	reached := storage.Extent{Index: r.Last, Term: r.LastTerm, Snapshot: r.reached.Snapshot}
	if len(r.Snapshots) > 0 {
		newest := r.Snapshots[0].Index
		reached.Index, reached.Snapshot = max(reached.Index, newest), max(reached.Snapshot, newest)
	}
	next := conversion.Conversion{From: r.format, To: c.To, Kept: kept, Reached: reached, Broken: c.Broken}
	old := r.disk
	r.disk = nil // Run closes it
	if err := next.Run(fs, r.dir, old); err != nil {
		return Converted{}, err
	}
	return done, nil
}
