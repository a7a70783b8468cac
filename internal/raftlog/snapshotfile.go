// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bufio"
	"errors"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/vfs"
)

const (
	// pieceBytes is how much of a snapshot is written at a time.
	pieceBytes = 64 << 10
	// syncBytes is how much of a snapshot of this node's own state is made durable at a time. A sync of the whole file
	// would delay those of the log for as long as it takes: file systems write the data of all files before they commit the
	// changes of their metadata.
	syncBytes = 256 << 10
	// hurryBytes of log that come while a snapshot of this node's own state is written end its pauses, so that the log
	// does not outgrow the snapshot.
	hurryBytes = 64 << 20
)

// A snapshotFile is a raft.SnapshotSink. It belongs to the goroutine that writes it.
type snapshotFile struct {
	store    *snapshotFiles
	meta     raft.SnapshotMeta
	name     string
	file     vfs.File
	size     int64            // of the written pieces
	unsynced int              // bytes of them
	out      *bufio.Writer    // gathers pieces
	own      *pacer           // paces a snapshot of this node's own state; nil for another one
	broken   breakable.Broken // ends the writing of a snapshot of this node's own state
	ended    bool
}

// create begins a snapshot with its head.
func (s *snapshotFiles) create(meta *raft.SnapshotMeta) (*snapshotFile, error) {
	k := &snapshotFile{store: s, meta: *meta, name: filepath.Join(s.dir, meta.ID+snapshotSuffix)}
	var err error
	if k.file, err = s.fs.Create(k.name + partSuffix); err != nil {
		return nil, err
	}
	k.out = bufio.NewWriterSize(pieces{k}, pieceBytes)
	_, err = k.out.Write(encodeSnapshotMeta(meta))
	return k, err
}

// ID implements raft.SnapshotSink.
func (k *snapshotFile) ID() string { return k.meta.ID }

// Own marks the snapshot as one of this node's own state, which no goroutine waits for. It is written and verified with
// pauses, and fails as soon as broken returns an error. There are no pauses then, since the node waits for Close, which
// removes an older snapshot. Close verifies that its body is intact, but not that a state can be restored from it.
func (k *snapshotFile) Own(broken breakable.Broken) {
	begin := k.store.grown()
	k.own, k.broken = newPacer(func() bool { return broken() != nil || k.store.grown()-begin >= hurryBytes }), broken
}

// Write implements raft.SnapshotSink.
func (k *snapshotFile) Write(b []byte) (int, error) { return k.out.Write(b) }

// pieces is the writer below the buffer of a snapshotFile.
type pieces struct{ k *snapshotFile }

func (p pieces) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var written int
		written, err = p.k.writePiece(b[n:min(len(b), n+pieceBytes)])
		n += written
	}
	return n, err
}

// writePiece appends to the file.
func (k *snapshotFile) writePiece(b []byte) (int, error) {
	n, err := k.file.WriteAt(b, k.size)
	k.size += int64(n)
	if err != nil || k.own == nil {
		return n, err
	}
	if k.unsynced += n; k.unsynced >= syncBytes {
		k.unsynced = 0
		if err := k.store.syncer.Sync(k.file); err != nil {
			return n, err
		}
	}
	k.own.pause()
	return n, k.broken()
}

// Cancel implements raft.SnapshotSink.
func (k *snapshotFile) Cancel() error {
	if k.ended {
		return nil
	}
	k.ended = true
	return errors.Join(k.file.Close(), k.store.fs.Remove(k.name+partSuffix))
}

// Close implements raft.SnapshotSink. It removes a snapshot that arrived damaged from another node, or
// that cannot be made durable. A snapshot that has its name is kept even if older ones cannot be removed:
// the next Close removes them.
func (k *snapshotFile) Close() error {
	if k.ended {
		return nil
	}
	err := k.finish()
	if err != nil {
		return errors.Join(err, k.Cancel())
	}
	k.ended = true
	k.store.done(&k.meta)
	_, _ = k.file.Close(), k.store.prune(k.own)
	return nil
}

// finish makes the snapshot durable, verifies it and gives it its name.
func (k *snapshotFile) finish() error {
	if err := k.out.Flush(); err != nil {
		return err
	}
	if err := k.file.Sync(); err != nil {
		return err
	}
	if err := k.verify(); err != nil {
		return err
	}
	if err := k.store.fs.Rename(k.name+partSuffix, k.name); err != nil {
		return err
	}
	return k.store.persist(func() error { return k.store.fs.SyncDir(k.store.dir) })
}

// verify reads the snapshot back.
func (k *snapshotFile) verify() error {
	size, err := k.file.Size()
	if err != nil {
		return err
	}
	r := io.NewSectionReader(k.file, 0, size)
	if _, err := readSnapshotMeta(r); err != nil {
		return err
	}
	at, _ := r.Seek(0, io.SeekCurrent) // a SectionReader cannot fail here
	k.meta.Size = size - at
	if k.own == nil {
		return k.store.vet.read(k.meta.Index, r)
	}
	return vet(nil).read(k.meta.Index, &breakable.Reader{Reader: pacedReader{r, k.own}, Broken: k.broken})
}
