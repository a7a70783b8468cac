// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// The names of the formats that coterie has.
const (
	Segments = "segments"
	Bolt     = "bolt"
)

// PartSuffix ends the name of a file that is not complete yet.
const PartSuffix = ".part"

// formatFiles has patterns for the names of the files of each format, so that a format can be recognized
// without its package, which the program may not have.
var formatFiles = []struct {
	format   string
	patterns []string
}{
	{Segments, []string{"vote", "identity", "log/" + strings.Repeat("[0-9a-f]", 16) + ".log"}},
	{Bolt, []string{"log.db", "log.extent"}},
}

// Known reports whether a format of this name exists.
func Known(format string) bool { return patternsOf(format) != nil }

func patternsOf(format string) []string {
	for _, f := range formatFiles {
		if f.format == format {
			return f.patterns
		}
	}
	return nil
}

// Detect returns the names of the formats of which a directory has files. There are two at most while a
// directory is converted.
//
// Errors: those of the file system, except that a directory may be missing.
func Detect(files vfs.FS, dir string) (formats []string, err error) {
	for _, f := range formatFiles {
		names, err := FilesOf(files, dir, f.format)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(names, complete) {
			formats = append(formats, f.format)
		}
	}
	return formats, nil
}

func complete(name string) bool { return filepath.Ext(name) != PartSuffix }

// FilesOf returns the files in a directory that belong to a format, which is given by its name. Incomplete files
// are among them.
//
// Errors: those of the file system, except that a directory may be missing.
func FilesOf(files vfs.FS, dir, format string) (found []string, err error) {
	for _, pattern := range patternsOf(format) {
		below := filepath.Join(dir, filepath.Dir(pattern))
		names, err := files.ReadDir(below)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, name := range names {
			if ok, _ := filepath.Match(filepath.Base(pattern), strings.TrimSuffix(name, PartSuffix)); ok { // the patterns are valid
				found = append(found, filepath.Join(below, name))
			}
		}
	}
	return found, nil
}

// DirsOf returns the directories that have the files of a format, which is given by its name: dir, or subdirectories
// of it.
func DirsOf(dir, format string) (dirs []string) {
	for _, pattern := range patternsOf(format) {
		if below := filepath.Join(dir, filepath.Dir(pattern)); !slices.Contains(dirs, below) {
			dirs = append(dirs, below)
		}
	}
	return dirs
}
