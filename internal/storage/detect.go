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

// formatFiles has patterns for the names of the files of each format, so that a format can be recognized
// without its package, which the program may not have.
var formatFiles = []struct {
	format   string
	patterns []string
}{
	{Segments, []string{"vote", "identity", "log/" + strings.Repeat("[0-9a-f]", 16) + ".log"}},
	{Bolt, []string{"log.db", "log.extent"}},
}

// Detect returns the names of the formats of which a directory has files. There are two at most while a
// directory is converted.
//
// Errors: those of the file system, except that a directory may be missing.
func Detect(files vfs.FS, dir string) (formats []string, err error) {
	for _, f := range formatFiles {
		has := false
		for _, pattern := range f.patterns {
			names, err := files.ReadDir(filepath.Join(dir, filepath.Dir(pattern)))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			has = has || slices.ContainsFunc(names, func(name string) bool {
				ok, _ := filepath.Match(filepath.Base(pattern), name) // the patterns are valid
				return ok
			})
		}
		if has {
			formats = append(formats, f.format)
		}
	}
	return formats, nil
}
