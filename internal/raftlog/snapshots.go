// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A snapshot file has a head, which describes the snapshot, and a body: a stream of blocks that carries
// its own checksums and its end.
const (
	snapshotSuffix = ".snap"
	partSuffix     = ".part" // of a snapshot that is being written
	// snapshotsKept includes one older snapshot as a fallback.
	snapshotsKept = 2
)

var snapshotFormat = wire.Format{What: "snapshot", Magic: "COTSNAP", Version: 1}

// snapshotFiles is a raft.SnapshotStore. A snapshot gets its name only when it is whole and durable.
type snapshotFiles struct {
	fs    vfs.FS
	dir   string
	done  func(index, term uint64)    // called for each new snapshot
	retry func(fn func() error) error // retries while the system is short of a resource; nil: no retries
	vet   vet
}

// A vet checks the body of a snapshot from another node. It returns an error that wraps ErrSnapshot if
// the snapshot must not be kept, or another error if the body cannot be read. A nil vet accepts every
// undamaged body.
type vet func(index uint64, body io.Reader) error

// ErrSnapshot: a snapshot from another node was rejected and removed.
var ErrSnapshot = errors.New("raftlog: snapshot refused")

// read reads the body of a snapshot to its end and checks it.
func (v vet) read(index uint64, body io.Reader) error {
	if v != nil {
		return v(index, body)
	}
	err := command.ReadBlocks(body, func([]byte) error { return nil })
	if corrupt := new(command.CorruptError); errors.As(err, &corrupt) || errors.Is(err, wire.ErrFormat) {
		err = fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	return err
}

// persist calls fn through retry. Reads by raft, and the last step of a whole snapshot, wait for
// descriptors, since raft cannot continue without them. A snapshot that is being written does not wait
// but is removed: it would occupy the space that others lack.
func (s *snapshotFiles) persist(fn func() error) error {
	if s.retry == nil {
		return fn()
	}
	return s.retry(fn)
}

// clean removes incomplete snapshots after a crash.
func (s *snapshotFiles) clean() error {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if strings.HasSuffix(name, partSuffix) {
			errs = append(errs, s.fs.Remove(filepath.Join(s.dir, name)))
		}
	}
	return errors.Join(errs...)
}

// Create implements raft.SnapshotStore.
func (s *snapshotFiles) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	meta := raft.SnapshotMeta{Version: v, Index: index, Term: term, Configuration: c, ConfigurationIndex: ci}
	meta.ID = snapshotID(term, index)
	k := &snapshotFile{store: s, meta: meta, name: filepath.Join(s.dir, meta.ID+snapshotSuffix)}
	var err error
	if k.file, err = s.fs.Create(k.name + partSuffix); err != nil {
		return nil, err
	}
	k.out = bufio.NewWriterSize(&offsetWriter{k.file, 0}, 256<<10)
	_, err = k.out.Write(encodeSnapshotMeta(&meta))
	return k, err
}

// snapshotID returns a name. Names sort by age.
func snapshotID(term, index uint64) string { return fmt.Sprintf("%016x-%016x", term, index) }

func encodeSnapshotMeta(m *raft.SnapshotMeta) []byte {
	return command.AppendHead(nil, snapshotFormat, func(b []byte) []byte {
		b = wire.Uint(b, 1, m.Index)
		b = wire.Uint(b, 2, m.Term)
		b = wire.Text(b, 3, raft.EncodeConfiguration(m.Configuration))
		b = wire.Uint(b, 4, m.ConfigurationIndex)
		return wire.Int(b, 5, int64(m.Version))
	})
}

// open opens a snapshot file and reads its head. The returned reader is at the body.
func (s *snapshotFiles) open(id string) (*raft.SnapshotMeta, *snapshotReader, error) {
	name := filepath.Join(s.dir, id+snapshotSuffix)
	file, err := s.fs.Open(name)
	if err != nil {
		return nil, nil, err
	}
	size, err := file.Size()
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	r := &snapshotReader{SectionReader: io.NewSectionReader(patientReader{file, s.persist}, 0, size), file: file}
	meta, err := readSnapshotMeta(r)
	if err != nil {
		file.Close()
		return nil, nil, storage.Damaged(name, err)
	}
	meta.ID = id
	at, _ := r.Seek(0, io.SeekCurrent) // a SectionReader cannot fail here
	meta.Size = size - at
	return meta, r, nil
}

func readSnapshotMeta(r io.Reader) (meta *raft.SnapshotMeta, err error) {
	b, err := command.ReadHead(r, snapshotFormat)
	if err != nil {
		return nil, err
	}
	meta = &raft.SnapshotMeta{}
	fields := wire.NewReader(b)
	for fields.Next() {
		switch fields.Field() {
		case 1:
			meta.Index = fields.Uint()
		case 2:
			meta.Term = fields.Uint()
		case 3:
			if meta.Configuration, err = decodeConfiguration(fields.Bytes()); err != nil {
				return nil, err
			}
		case 4:
			meta.ConfigurationIndex = fields.Uint()
		case 5:
			meta.Version = raft.SnapshotVersion(fields.Int())
		}
	}
	return meta, fields.Err()
}

// decodeConfiguration is raft.DecodeConfiguration, but returns an error instead of panicking.
func decodeConfiguration(b []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its members: %v", p)
		}
	}()
	return raft.DecodeConfiguration(b), nil
}

// ids returns the IDs of the snapshots, newest first.
func (s *snapshotFiles) ids() ([]string, error) {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		var term, index uint64
		id, ok := strings.CutSuffix(name, snapshotSuffix)
		if _, err := fmt.Sscanf(id, "%x-%x", &term, &index); ok && err == nil && id == snapshotID(term, index) { // else it is not a snapshot
			ids = append(ids, id)
		}
	}
	slices.Reverse(ids)
	return ids, nil
}

// List implements raft.SnapshotStore.
func (s *snapshotFiles) List() (metas []*raft.SnapshotMeta, err error) {
	err = s.persist(func() error {
		metas, err = s.list()
		return err
	})
	return metas, err
}

func (s *snapshotFiles) list() (metas []*raft.SnapshotMeta, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		meta, r, err := s.open(id)
		if err != nil {
			return nil, err
		}
		r.Close()
		metas = append(metas, meta)
	}
	return metas, nil
}

// Open implements raft.SnapshotStore.
func (s *snapshotFiles) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	var meta *raft.SnapshotMeta
	var r *snapshotReader
	err := s.persist(func() (err error) {
		meta, r, err = s.open(id)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return meta, r, nil
}

// prune removes all but the newest snapshotsKept snapshots.
func (s *snapshotFiles) prune() error {
	ids, err := s.ids()
	if err != nil || len(ids) <= snapshotsKept {
		return err
	}
	for _, id := range ids[snapshotsKept:] {
		if err := s.fs.Remove(filepath.Join(s.dir, id+snapshotSuffix)); err != nil {
			return err
		}
	}
	return s.fs.SyncDir(s.dir)
}

type snapshotReader struct {
	*io.SectionReader
	file vfs.File
}

// Close closes the file.
func (r *snapshotReader) Close() error { return r.file.Close() }

// A patientReader retries reads that fail because the system is short of a resource.
type patientReader struct {
	io.ReaderAt
	persist func(fn func() error) error
}

func (r patientReader) ReadAt(b []byte, at int64) (n int, err error) {
	err = r.persist(func() error {
		n, err = r.ReaderAt.ReadAt(b, at)
		return err
	})
	return n, err
}

// An offsetWriter writes a file from its beginning.
type offsetWriter struct {
	file vfs.File
	at   int64
}

func (w *offsetWriter) Write(b []byte) (int, error) {
	n, err := w.file.WriteAt(b, w.at)
	w.at += int64(n)
	return n, err
}

// A snapshotFile is a raft.SnapshotSink.
type snapshotFile struct {
	store *snapshotFiles
	meta  raft.SnapshotMeta
	name  string
	file  vfs.File
	out   *bufio.Writer
	own   bool
	ended bool
}

// ID implements raft.SnapshotSink.
func (k *snapshotFile) ID() string { return k.meta.ID }

// Own marks the snapshot as one of this node's own state: Close verifies that its body is intact, but not
// that a state can be restored from it.
func (k *snapshotFile) Own() { k.own = true }

// Write implements raft.SnapshotSink.
func (k *snapshotFile) Write(b []byte) (int, error) { return k.out.Write(b) }

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
	k.store.done(k.meta.Index, k.meta.Term)
	_, _ = k.file.Close(), k.store.prune()
	return nil
}

func (k *snapshotFile) finish() error {
	if err := k.out.Flush(); err != nil {
		return err
	}
	if err := k.file.Sync(); err != nil {
		return err
	}
	size, err := k.file.Size()
	if err != nil {
		return err
	}
	r := io.NewSectionReader(k.file, 0, size)
	if _, err := readSnapshotMeta(r); err != nil {
		return err
	}
	v := k.store.vet
	if k.own {
		v = nil
	}
	if err := v.read(k.meta.Index, r); err != nil {
		return err
	}
	if err := k.store.fs.Rename(k.name+partSuffix, k.name); err != nil {
		return err
	}
	return k.store.persist(func() error { return k.store.fs.SyncDir(k.store.dir) })
}
