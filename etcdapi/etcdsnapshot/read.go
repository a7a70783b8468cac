// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/coterie-kv/coterie"
)

// An Option is an option of [Read] and [Restore].
type Option interface{ apply(*options) }

type options struct {
	skipHashCheck bool
	bump          uint64
	walDir        string
}

type option func(*options)

func (fn option) apply(o *options) { fn(o) }

// WithSkipHashCheck reads a file without the checksum of a snapshot, for instance the file member/snap/db of an etcd that is
// stopped, or a copy of that. Read still finds damage to the structure, but not to a value. Such a file may lack
// changes that are only in etcd's log: pass the data directory instead if it exists.
func WithSkipHashCheck() Option { return option(func(o *options) { o.skipHashCheck = true }) }

// WithBumpRevision raises the revision by n, and compacts the history before it, as "etcdutl snapshot restore" does with
// --bump-revision and --mark-compacted. It is for clients that may know later revisions than that of the snapshot: a
// watch from such a revision then ends with an error instead of missing changes.
func WithBumpRevision(n uint64) Option {
	return option(func(o *options) { o.bump = n })
}

// WithWALDir names the directory of the write-ahead log of an etcd that has the flag --wal-dir. It is for data directories.
func WithWALDir(dir string) Option { return option(func(o *options) { o.walDir = dir }) }

// Read reads the contents of an etcd snapshot. It holds them in memory, and changes nothing.
//
// The path may also be the data directory of an etcd that is stopped. If a signal has stopped it, its database has
// everything that it has applied. After a crash, some changes may be in its log only: Read refuses such a directory
// with [ErrUnapplied]. A member of a cluster may lack changes that the other members have applied, and its files do not
// show this. So stop the clients before the members, or save a snapshot.
//
// Like etcd, Read leaves out the changes that an unfinished compaction would remove. If the lease of a key does not
// exist in the snapshot, which etcd reports as an error and ignores, the key has none.
//
// Errors: [coterie.ErrCorrupt] if the file is not a snapshot, is damaged, or has no checksum; ErrUnapplied;
// [coterie.ErrDirInUse] for the directory of an etcd that runs; [coterie.ErrInvalidOption] for a revision that is
// raised too far; ctx's cause; those of the operating system about the file.
func Read(ctx context.Context, path string, opts ...Option) (c *coterie.Contents, err error) {
	err = withImporter(ctx, path, opts, func(im *importer, o options) error {
		if c, err = im.run(); err == nil && o.bump > 0 {
			c, err = bump(c, o.bump)
		}
		return err
	})
	return c, err
}

// withImporter verifies a snapshot or a data directory, and calls fn with its database.
func withImporter(ctx context.Context, path string, opts []Option, fn func(*importer, options) error) error {
	var o options
	for _, opt := range opts {
		opt.apply(&o)
	}
	if o.bump > maxBump {
		return fmt.Errorf("%w: the revision is raised by %d, and the bound is %d", coterie.ErrInvalidOption, o.bump, uint64(maxBump))
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	kind, open := "etcd snapshot", openSnapshot
	if info.IsDir() {
		kind, open = "data directory of etcd", openDirectory
	}
	im, err := open(ctx, path, o)
	if err == nil {
		err = errors.Join(fn(im, o), im.close())
	}
	var system *os.PathError
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case errors.As(err, &system), errors.Is(err, ErrUnapplied), errors.Is(err, coterie.ErrDirInUse):
		return fmt.Errorf("%s %s: %w", kind, path, err)
	}
	return fmt.Errorf("%w: %s %s: %w", coterie.ErrCorrupt, kind, path, err)
}

// openFile opens a file to read it, and returns its size.
func openFile(name string) (*os.File, int64, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

// openSnapshot opens a snapshot. It must end with a checksum, unless the options say otherwise.
func openSnapshot(ctx context.Context, name string, o options) (*importer, error) {
	file, size, err := openFile(name)
	if err != nil {
		return nil, err
	}
	checked := size%512 == sha256.Size
	if checked {
		size -= sha256.Size
	}
	switch {
	case checked && !o.skipHashCheck:
		err = verify(ctx, file, size)
	case !o.skipHashCheck:
		err = errors.New("it has no checksum: it is cut off, or not the output of a snapshot")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return newImporter(ctx, file, size)
}

// verify compares the checksum behind the first size bytes of a file.
func verify(ctx context.Context, file *os.File, size int64) error {
	h := sha256.New()
	for left := size; left > 0; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := io.CopyN(h, file, min(left, 1<<20))
		if err != nil {
			return err
		}
		left -= n
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(file, want); err != nil {
		return err
	}
	if string(h.Sum(nil)) != string(want) {
		return errors.New("its checksum is wrong")
	}
	return nil
}
