// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A Conversion is the result of [Convert].
type Conversion struct {
	Dir  string `json:"directory"` // absolute
	From string `json:"from"`      // the storage that the directory had, as in Inspection.Storage
	To   string `json:"to"`        // the storage that it has now
	// Kept is the subdirectory with the old files of the log, the vote and the identity.
	Kept string `json:"kept"`
	// FirstIndex and LastIndex are the bounds of the log that was copied, or 0 if it has no entries.
	FirstIndex uint64 `json:"firstIndex"`
	LastIndex  uint64 `json:"lastIndex"`
	// AppliedIndex is the index up to which the node had applied the log, as far as the node has recorded it.
	AppliedIndex uint64 `json:"appliedIndex"`
}

// String describes the conversion for an operator, with the place of the old files.
func (c Conversion) String() string {
	log := "the log has no entries"
	if c.LastIndex > 0 {
		log = fmt.Sprintf("the log has the entries %d to %d", c.FirstIndex, c.LastIndex)
	}
	return fmt.Sprintf("converted: %s from %s to %s; %s\nkept: the old files, in %s", c.Dir, c.From, c.To, log, c.Kept)
}

// Convert changes the storage of the directory of a node that is not running: it copies the log, the vote and the
// identity into the files of another [coterie.Storage]. nil means segments, as for [coterie.Config]. The snapshots and
// the other files of the directory are the same with each storage, and stay as they are. Afterwards open the node with
// that Config.Storage. It continues where it was, and its cluster does not notice. Members of a cluster may have
// different storages, so nodes can be converted one at a time.
//
// Convert verifies the directory as [Inspect] does, and does not convert a damaged one. It then reads the new files
// back, and compares every entry and every record with the old ones. The old files are kept in a subdirectory, with
// the name of the old storage and the time, such as segments-20260131T120000Z. Remove it when the node runs. Never put
// the old files back after the node has run with the new ones, because they lack the promises that the node has made
// since: call Convert again to return to the old storage.
//
// The conversion is done completely or not at all. If the process ends in the meantime, the directory has its old
// storage or the new one: coterie.Open removes the files of the other one, and Convert can be called again. It needs
// disk space for two more copies of the log. The new files belong to the user of the process, so call it as the user
// that runs the node. Links in place of old files are removed, and the new files are in the directory itself. Convert
// blocks on the disk. When ctx ends, it returns after the current disk operation.
//
// Errors: coterie.ErrCorrupt with all the damage; coterie.ErrFormat; coterie.ErrDirInUse; coterie.ErrRestoreUnfinished;
// coterie.ErrNoSpace; coterie.ErrStorageMismatch for a directory with files of both storages; ErrSameStorage if the
// directory has that storage already; fs.ErrNotExist if there is no node's directory; fs.ErrExist if the subdirectory
// has the files of another conversion of the same second; ctx's cause; any other error of the operating system about
// the directory. After each of them the directory has its old storage, except that after the last one it may have the
// new one.
func Convert(ctx context.Context, dir string, to coterie.Storage) (Conversion, error) {
	if err := context.Cause(ctx); err != nil {
		return Conversion{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Conversion{}, err
	}
	format := formatNamed(storage.Segments)
	if to != nil {
		format = to.Format()
	}
	var rejected error
	done, err := raftlog.Convert(vfs.For(ctx), dir, raftlog.Conversion{
		To:      format,
		Formats: formatNamed,
		Kept:    func(from string) string { return from + time.Now().UTC().Format("-20060102T150405Z") },
		Broken:  func() error { return context.Cause(ctx) },
		Check: func(r *raftlog.Reader) error {
			rejected = convertible(newInspector(ctx, dir, r))
			return rejected
		},
	})
	switch {
	case rejected != nil:
		return Conversion{}, rejected
	case err != nil && context.Cause(ctx) != nil:
		return Conversion{}, context.Cause(ctx)
	case errors.Is(err, raftlog.ErrSameFormat):
		return Conversion{}, fmt.Errorf("%w: %s has %s", ErrSameStorage, dir, format.Name())
	case err != nil:
		return Conversion{}, logError(err)
	}
	return Conversion{
		Dir: dir, From: done.From, To: format.Name(), Kept: done.Kept,
		FirstIndex: done.First, LastIndex: done.Last, AppliedIndex: done.Applied,
	}, nil
}

// convertible returns an error for a directory that is damaged, or that a backup was not restored to completely.
func convertible(in *inspector) error {
	in.replay(in.snapshots(), in.log.Recorded)
	if err := in.verdict(); err != nil {
		return err
	}
	if in.found.RestoreUnfinished {
		return fmt.Errorf("%w: %s", coterie.ErrRestoreUnfinished, in.found.Dir)
	}
	return nil
}
