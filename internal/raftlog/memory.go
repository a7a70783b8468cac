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

// memorySnapshots is a raft.SnapshotStore that keeps the newest snapshot.
type memorySnapshots struct {
	done   func(*raft.SnapshotMeta) // called for each new snapshot
	vet    vet
	mu     sync.Mutex
	newest *memorySnapshot
}

// A memorySnapshot is a snapshot and the sink that received it. Its content is either bytes from another
// node, or an immutable state that is encoded whenever it is read, so that it is not in memory twice.
type memorySnapshot struct {
	store   *memorySnapshots
	meta    raft.SnapshotMeta
	content bytes.Buffer
	writeTo func(io.Writer) (int64, error)
	sized   sync.Once
	size    int64
}

// Create implements raft.SnapshotStore.
func (s *memorySnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &memorySnapshot{store: s, meta: raft.SnapshotMeta{
		Version: v, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term, Configuration: c, ConfigurationIndex: ci,
	}}, nil
}

// List implements raft.SnapshotStore.
func (s *memorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		return nil, nil
	}
	meta := s.newest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore.
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
	// Raft sends the size before the content.
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

// Keep makes the output of writeTo the content of the snapshot. Every call of writeTo must write the same
// bytes.
func (sn *memorySnapshot) Keep(writeTo func(io.Writer) (int64, error)) { sn.writeTo = writeTo }

// Write implements raft.SnapshotSink.
func (sn *memorySnapshot) Write(b []byte) (int, error) { return sn.content.Write(b) }

// ID implements raft.SnapshotSink.
func (sn *memorySnapshot) ID() string { return sn.meta.ID }

// Cancel implements raft.SnapshotSink.
func (sn *memorySnapshot) Cancel() error { return nil }

// Close implements raft.SnapshotSink. The snapshot replaces the previous one.
func (sn *memorySnapshot) Close() error {
	if sn.writeTo == nil {
		if err := sn.store.vet.read(sn.meta.Index, bytes.NewReader(sn.content.Bytes())); err != nil {
			return err
		}
	}
	sn.store.mu.Lock()
	sn.store.newest = sn
	sn.store.mu.Unlock()
	sn.store.done(&sn.meta)
	return nil
}
