// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"slices"

	"github.com/hashicorp/raft"
)

// Replay bounds the batches of entries.
const (
	replayEntries = 1000
	replayBytes   = 4 << 20
)

// Replay calls apply with all entries from an index to another one, in batches. It reads the next batches from the disk
// meanwhile, and keeps the newest entries of the log in memory: raft reads them again when it starts. Raft must not be
// running. The caller must not change the entries.
func (l *Log) Replay(from, to uint64, apply func([]*raft.Log)) error {
	batches := make(chan []*raft.Log, 2)
	failed := make(chan error, 1)
	go func() {
		defer close(batches)
		failed <- l.store.load(from, to, func(batch []*raft.Log) { batches <- batch })
	}()
	for batch := range batches {
		apply(batch)
	}
	return <-failed
}

// load calls fn with batches of the entries between two indexes, and reads the entries after them. It keeps the newest
// entries in the tail.
func (s *store) load(from, to uint64, fn func([]*raft.Log)) error {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	var newest, batch []*raft.Log
	var held, size int64 // of newest and of batch
	for i := from; i <= max(to, last); i++ {
		l, err := s.entry(i)
		if err != nil {
			return err
		}
		newest, held = append(newest, l), held+sizeOf(l)
		for held > cacheBytes {
			held -= sizeOf(newest[0])
			newest = newest[1:]
		}
		if i > to {
			continue
		}
		batch, size = append(batch, l), size+sizeOf(l)
		if i == to || len(batch) == replayEntries || size >= replayBytes {
			fn(batch)
			batch, size = nil, 0
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tail) < len(newest) && len(newest) > 0 && newest[len(newest)-1].Index == s.last {
		s.tail, s.held = slices.Clone(newest), held // without the older ones
	}
	return nil
}
