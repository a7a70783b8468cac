// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/coterie-kv/coterie"
)

// ErrUnapplied: the database of an etcd lacks changes that its log has. They may have been acknowledged.
var ErrUnapplied = errors.New("etcdsnapshot: the database of etcd lacks changes that are in its log")

// lockTimeout is how long an etcd that is stopping may still hold the lock of its database.
const lockTimeout = time.Second

// openDirectory opens the database of an etcd that is stopped.
//
// The database of an etcd may be up to 100 ms behind its log: before etcd acknowledges a write, it makes only the log
// durable. So openDirectory reads the log, too. An etcd that is stopped by a signal writes everything that it has
// applied to the database.
func openDirectory(ctx context.Context, dir string, o options) (*importer, error) {
	name := filepath.Join(dir, "member", "snap", "db")
	unlock, err := lock(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it is not the data directory of an etcd: %w", err)
	}
	if err != nil {
		return nil, err
	}
	file, size, err := openFile(name)
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	im, err := newImporter(ctx, file, size)
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	im.unlock = unlock
	if err := checkWAL(ctx, cmp.Or(o.walDir, filepath.Join(dir, "member", "wal")), im); err != nil {
		return nil, errors.Join(err, im.close())
	}
	return im, nil
}

// lock keeps etcd from starting on a database, and fails if etcd runs on it.
func lock(name string) (unlock func() error, err error) {
	db, err := bolt.Open(name, 0o600, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: stop the etcd that runs on it, or save a snapshot of that with etcdctl", coterie.ErrDirInUse)
	}
	if err != nil {
		return nil, err
	}
	return db.Close, nil
}

// checkWAL returns an error if the log has changes that a database lacks.
func checkWAL(ctx context.Context, walDir string, im *importer) error {
	applied, err := im.consistentIndex()
	if err != nil {
		return err
	}
	w, err := readWAL(ctx, walDir, applied)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the write-ahead log of etcd is not in %s: %w", walDir, err)
	case err != nil:
		return fmt.Errorf("write-ahead log of etcd: %w", err)
	case w.last < applied:
		return fmt.Errorf("the write-ahead log in %s ends at index %d, and the database at %d: it is of another directory, or has lost its end",
			walDir, w.last, applied)
	case w.snapshot > applied || len(w.changes) > 0:
		return fmt.Errorf("%w: the database ends at index %d, the log at %d. Start this etcd and stop it with SIGTERM, or save a "+
			"snapshot of a running member of its cluster with etcdctl", ErrUnapplied, applied, w.last)
	case w.commit > w.last:
		return fmt.Errorf("the write-ahead log in %s ends at index %d, and etcd has committed %d: it has lost its end", walDir, w.last, w.commit)
	}
	return nil
}

// consistentIndex returns the index of the last entry that a database has.
func (im *importer) consistentIndex() (index uint64, err error) {
	err = im.bucket(bucketMeta, func(key, value []byte) (err error) {
		if string(key) == keyConsistentIndex {
			index, err = parseNumber(value)
		}
		return err
	})
	return index, err
}
