// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
	// eraseStep is how much of a snapshot is removed at a time, and eraseRest the pause after it.
	eraseStep = 8 << 20
	eraseRest = 5 * time.Millisecond
)

var snapshotFormat = wire.Format{What: "snapshot", Magic: "COTSNAP", Version: 1}

// snapshotFiles is a raft.SnapshotStore. A snapshot gets its name only when it is whole and durable.
type snapshotFiles struct {
	fs    vfs.FS
	dir   string
	done  func(*raft.SnapshotMeta)    // called for each new snapshot
	grown func() int64                // returns the bytes of the log since the newest snapshot
	retry func(fn func() error) error // retries while the system is short of a resource; nil: no retries
	vet   vet

	syncer vfs.Syncer // of snapshots of this node's own state, while they are written
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
	return s.create(&meta)
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

// prune removes all but the newest snapshotsKept snapshots, at the pace of p.
func (s *snapshotFiles) prune(p *pacer) error {
	ids, err := s.ids()
	if err != nil || len(ids) <= snapshotsKept {
		return err
	}
	for _, id := range ids[snapshotsKept:] {
		if err := s.erase(filepath.Join(s.dir, id+snapshotSuffix), p); err != nil {
			return err
		}
	}
	return nil
}

// erase removes a snapshot. With a pacer, erase truncates the file in steps before that: a file system that frees much
// space at once delays the syncs of all other files. A crash leaves an incomplete snapshot, which Open removes.
func (s *snapshotFiles) erase(name string, p *pacer) error {
	part := name + partSuffix
	if err := s.fs.Rename(name, part); err != nil {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	if p != nil {
		if err := s.empty(part, p); err != nil {
			return err
		}
	}
	return s.fs.Remove(part)
}

// empty truncates a file in steps.
func (s *snapshotFiles) empty(name string, p *pacer) error {
	file, err := s.fs.Open(name)
	if err != nil {
		return err
	}
	size, err := file.Size()
	for err == nil && size > eraseStep {
		size -= eraseStep
		err = file.Truncate(size)
		p.rest(eraseRest)
	}
	return errors.Join(err, file.Close())
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
