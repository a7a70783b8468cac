// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

// An image is the content of all files of a directory, by their paths in it.
type image map[string][]byte

// names returns the paths of the files, sorted.
func (i image) names() []string { return slices.Sorted(maps.Keys(i)) }

// with returns a copy of an image in which a file has another content, or is missing if the content is nil.
func (i image) with(name string, content []byte) image {
	changed := maps.Clone(i)
	changed[name] = content
	if content == nil {
		delete(changed, name)
	}
	return changed
}

// image returns the content of the directory.
func (s site) image(t testing.TB) image {
	t.Helper()
	found := image{}
	s.walk(t, "", func(name string) { found[name] = vfstest.Load(t, s.files, s.path(name)) })
	return found
}

// walk calls fn with each file below a directory of the site.
func (s site) walk(t testing.TB, dir string, fn func(name string)) {
	t.Helper()
	names, err := s.files.ReadDir(s.path(dir))
	require.NoError(t, err)
	for _, base := range names {
		name := filepath.Join(dir, base)
		switch _, err := s.files.ReadDir(s.path(name)); {
		case err == nil:
			s.walk(t, name, fn)
		default: // it is a file
			fn(name)
		}
	}
}

// place replaces the files of the directory by those of an image.
func (s site) place(t testing.TB, i image) {
	t.Helper()
	require.NoError(t, s.files.MkdirAll(s.dir))
	s.walk(t, "", func(name string) {
		if i[name] == nil {
			require.NoError(t, s.files.Remove(s.path(name)))
		}
	})
	for _, name := range i.names() {
		vfstest.Save(t, s.files, s.path(name), i[name])
	}
}

// exists reports whether a file exists.
func exists(t testing.TB, files vfs.FS, name string) bool {
	t.Helper()
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return true
}
