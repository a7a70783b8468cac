// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Formats returns the names of the formats that a directory has: none in a new directory, and otherwise one. If there
// are two, the files were not put there by a conversion.
//
// Errors: *storage.CorruptError for a damaged note, or an error of the file system.
func Formats(files vfs.FS, dir string) ([]string, error) {
	n, err := ReadNote(files, dir)
	switch {
	case err != nil:
		return nil, err
	case n == nil:
		return storage.Detect(files, dir)
	case n.Done:
		return []string{n.To}, nil
	}
	return []string{n.From}, nil
}

// Settle undoes a conversion that was interrupted, or completes it if it is done. The caller has locked the directory.
//
// Errors: *storage.CorruptError for a damaged note, or an error of the file system. Settle can be called again.
func Settle(files vfs.FS, dir string) error {
	n, err := ReadNote(files, dir)
	if err != nil {
		return err
	}
	_ = files.Remove(filepath.Join(dir, noteFile+storage.PartSuffix)) // the remains of a note that was not completed
	if n == nil {
		return nil
	}
	// The previous process may have been killed before it synced the note.
	if err := files.SyncDir(dir); err != nil {
		return err
	}
	if n.Done {
		err = remove(files, dir, n.From)
	} else {
		err = remove(files, dir, n.To)
		if err == nil {
			kept := filepath.Join(dir, n.Kept)
			if err = remove(files, kept, n.From); err == nil {
				_ = files.Remove(kept) // it may have files of the user's
			}
		}
	}
	if err != nil {
		return err
	}
	if err := files.Remove(filepath.Join(dir, noteFile)); err != nil {
		return err
	}
	return files.SyncDir(dir)
}

// remove durably removes the files of a format from a directory.
func remove(files vfs.FS, dir, format string) error {
	found, err := storage.FilesOf(files, dir, format)
	if err != nil {
		return err
	}
	for _, name := range found {
		if err := files.Remove(name); err != nil {
			return err
		}
	}
	for _, below := range storage.DirsOf(dir, format) {
		// An earlier call may have removed files, and not have come so far as to sync their directory.
		if err := files.SyncDir(below); err != nil && !missing(err) {
			return err
		}
		if below != dir {
			_ = files.Remove(below) // if it is empty; not every file system can
		}
	}
	return nil
}
