// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"github.com/coterie-kv/coterie/boltlog"
	"github.com/coterie-kv/coterie/internal/conversion"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// formatNamed returns the format with a name.
func formatNamed(name string) storage.Format {
	if name == storage.Bolt {
		return boltlog.New(boltlog.Options{}).Format()
	}
	return segments.Format{}
}

// formatOf returns the format of a directory. If the directory has files of two formats, the format is one of them,
// and package raftlog rejects the directory.
func formatOf(fs vfs.FS, dir string) (storage.Format, error) {
	names, err := conversion.Formats(vfs.ReadOnly(fs), dir)
	if err != nil || len(names) == 0 {
		return segments.Format{}, err
	}
	return formatNamed(names[0]), nil
}
