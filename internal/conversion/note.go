// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// noteFile is the name of the note.
const noteFile = "conversion"

// A Note says how far the conversion of a directory has come.
type Note struct {
	From, To string // the names of the formats
	Kept     string // the subdirectory with the files of the old format
	Done     bool   // the directory has the new format
}

// ReadNote returns the note in a directory, or nil if no conversion is under way.
//
// Errors: *storage.CorruptError, or an error of the file system.
func ReadNote(files vfs.FS, dir string) (*Note, error) {
	name := filepath.Join(dir, noteFile)
	file, err := files.Open(name)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b := make([]byte, 1<<10)
	size, err := file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	n, err := parseNote(string(b[:size]))
	if err != nil {
		return nil, &storage.CorruptError{File: name, Err: err}
	}
	return n, nil
}

// noteText is the text of a note, for people as well.
const noteText = "from %s to %s, the old files are in %s, %s\n"

// The last words of a note.
const (
	begun = "begun"
	done  = "done"
)

func (n *Note) text() string {
	state := begun
	if n.Done {
		state = done
	}
	return fmt.Sprintf(noteText, n.From, n.To, n.Kept, state)
}

func parseNote(text string) (*Note, error) {
	n := &Note{}
	var state string
	_, err := fmt.Sscanf(strings.ReplaceAll(text, ",", " ,"), strings.ReplaceAll(noteText, ",", " ,"), &n.From, &n.To, &n.Kept, &state)
	n.Done = state == done
	switch {
	case err != nil, n.text() != text:
		return nil, errors.New("it is not whole")
	case !storage.Known(n.From), !storage.Known(n.To), n.From == n.To:
		return nil, fmt.Errorf("it names the formats %q and %q", n.From, n.To)
	case !strings.HasPrefix(n.Kept, n.From+"-"), filepath.Base(n.Kept) != n.Kept:
		return nil, fmt.Errorf("it names the subdirectory %q", n.Kept)
	}
	return n, nil
}

// write durably replaces the note.
func (n *Note) write(files vfs.FS, dir string) error {
	name := filepath.Join(dir, noteFile)
	file, err := files.Create(name + storage.PartSuffix)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte(n.text()), 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := files.Rename(name+storage.PartSuffix, name); err != nil {
		return err
	}
	return files.SyncDir(dir)
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
