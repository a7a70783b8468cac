// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"os"
	"sync"
)

// A Syncer syncs files when a sync is likely to take long. While a goroutine waits in File.Sync, it holds a processor of
// the Go scheduler until the runtime notices, some 0.1 to 1 ms later: on a machine with two processors, two nodes that sync
// stop everything else. A goroutine that waits in Syncer.Sync holds none. It costs 15 to 20 µs more, so short syncs are
// better made by File.Sync.
//
// The zero Syncer is ready to use. At its first sync it opens a queue of the kernel and a descriptor, if the system offers
// them: Linux does. It makes one sync at a time. Another one that is called meanwhile is a File.Sync.
type Syncer struct {
	mu      sync.Mutex // guards the fields below, and is held during a sync
	queue   uintptr    // the kernel's context for asynchronous operations; 0 if there is none
	eventfd uint32     // the descriptor of ended
	ended   *os.File   // readable when a sync has ended
	refused bool       // the system does not offer such syncs
}

// Sync makes the written data of a file durable, or returns a *SyncError.
func (s *Syncer) Sync(f File) error {
	file, ok := f.(osFile)
	if !ok || !s.mu.TryLock() {
		return f.Sync()
	}
	defer s.mu.Unlock()
	if !s.open() {
		return f.Sync()
	}
	begun, err := s.sync(file.File)
	if !begun {
		s.refused = true
		return f.Sync()
	}
	return syncError(err)
}
