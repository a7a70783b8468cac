// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// memorySnapshots is a raft.SnapshotStore that keeps the newest.
type memorySnapshots struct {
	done   func(index, term uint64) // is told of each new snapshot
	vet    vet
	mu     sync.Mutex
	newest *memorySnapshot
}

// A memorySnapshot is a snapshot, and the sink it came from. Its content is bytes that were
// received, or an immutable state that is encoded whenever it is asked for, so that it need not be
// there twice.
type memorySnapshot struct {
	store   *memorySnapshots
	meta    raft.SnapshotMeta
	content bytes.Buffer
	writeTo func(io.Writer) (int64, error)
	sized   sync.Once
	size    int64
}

// Create is raft.SnapshotStore.
func (s *memorySnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &memorySnapshot{store: s, meta: raft.SnapshotMeta{
		Version: v, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term, Configuration: c, ConfigurationIndex: ci,
	}}, nil
}

// List is raft.SnapshotStore.
func (s *memorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		return nil, nil
	}
	meta := s.newest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open is raft.SnapshotStore.
func (s *memorySnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	sn := s.newest
	s.mu.Unlock()
	if sn == nil || sn.meta.ID != id {
		return nil, nil, errors.New("raftlog: no such snapshot")
	}
	if sn.writeTo == nil {
		meta := sn.meta
		meta.Size = int64(sn.content.Len())
		return &meta, io.NopCloser(bytes.NewReader(sn.content.Bytes())), nil
	}
	// Raft tells the size before the content.
	meta := sn.meta
	sn.sized.Do(func() { sn.size, _ = sn.writeTo(io.Discard) })
	meta.Size = sn.size
	r, w := io.Pipe()
	go func() {
		_, err := sn.writeTo(w)
		w.CloseWithError(err)
	}()
	return &meta, r, nil
}

// Keep makes what writeTo writes, the same at every call, the content of the snapshot.
func (sn *memorySnapshot) Keep(writeTo func(io.Writer) (int64, error)) { sn.writeTo = writeTo }

// Write is raft.SnapshotSink.
func (sn *memorySnapshot) Write(b []byte) (int, error) { return sn.content.Write(b) }

// ID is raft.SnapshotSink.
func (sn *memorySnapshot) ID() string { return sn.meta.ID }

// Cancel is raft.SnapshotSink.
func (sn *memorySnapshot) Cancel() error { return nil }

// Close is raft.SnapshotSink. The snapshot takes the place of the one before.
func (sn *memorySnapshot) Close() error {
	if sn.writeTo == nil {
		if err := sn.store.vet.read(sn.meta.Index, bytes.NewReader(sn.content.Bytes())); err != nil {
			return err
		}
	}
	sn.store.mu.Lock()
	sn.store.newest = sn
	sn.store.mu.Unlock()
	sn.store.done(sn.meta.Index, sn.meta.Term)
	return nil
}
