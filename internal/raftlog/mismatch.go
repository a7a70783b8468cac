// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"fmt"
	"strings"

	"github.com/coterie-kv/coterie/internal/conversion"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A MismatchError says that a directory has the data of another format. It matches fault.ErrStorageMismatch.
type MismatchError struct {
	Dir   string
	Has   string // the name of the format of the directory
	Wants string // the name of the format with which it was to be opened
}

// choices say how Config.Storage chooses each format.
var choices = map[string]string{
	storage.Segments: "leave Config.Storage nil",
	storage.Bolt:     "set Config.Storage to boltlog.New(boltlog.Options{})",
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s has the format %q, and the node is configured for %q; %s, "+
		"or convert the directory with datadir.Convert or coterie-inspect convert -to %s",
		fault.ErrStorageMismatch, e.Dir, e.Has, e.Wants, choices[e.Has], e.Wants)
}

// Unwrap returns fault.ErrStorageMismatch.
func (e *MismatchError) Unwrap() error { return fault.ErrStorageMismatch }

// refuseOther returns an error for a directory with data of another format.
func refuseOther(files vfs.FS, dir string, format storage.Format) error {
	found, err := conversion.Formats(files, dir)
	switch {
	case err != nil:
		return err
	case len(found) > 1:
		return mixed(files, dir, found)
	case len(found) == 1 && found[0] != format.Name():
		return &MismatchError{Dir: dir, Has: found[0], Wants: format.Name()}
	}
	return nil
}

// mixed returns a *MixedError with a file of each format.
func mixed(files vfs.FS, dir string, formats []string) error {
	e := &MixedError{Dir: dir, Has: formats}
	for _, format := range formats {
		names, err := storage.FilesOf(files, dir, format)
		if err != nil {
			return err
		}
		e.Files = append(e.Files, names[:min(1, len(names))]...)
	}
	return e
}

// A MixedError says that a directory has files of several formats, which no conversion has put there. It matches
// fault.ErrStorageMismatch.
type MixedError struct {
	Dir   string
	Has   []string // the names of the formats
	Files []string // a file of each format
}

func (e *MixedError) Error() string {
	return fmt.Sprintf("%v: %s has files of the formats %s (%s), and no conversion is under way. Nothing was changed. "+
		"If the files of one format are not this node's, move them elsewhere. If they may be of two copies of the directory, "+
		"nothing says which copy is newer: replace the node",
		fault.ErrStorageMismatch, e.Dir, strings.Join(e.Has, " and "), strings.Join(e.Files, ", "))
}

// Unwrap returns fault.ErrStorageMismatch.
func (e *MixedError) Unwrap() error { return fault.ErrStorageMismatch }
