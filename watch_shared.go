// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"sync/atomic"
	"unsafe"

	"github.com/coterie-kv/coterie/internal/watchhub"
)

// A sharedWatches is the part that the watches of a node share.
type sharedWatches struct {
	*watchhub.Hub // the watches that wait
	findings      findings
}

// A finding is the result of a search of a watch in the history: the first revision from first on that has
// events for the watch. It is immutable.
type finding struct {
	scope
	first     int64
	compacted int64 // the compact revision of the searched view, on which PrevKV depends
	revision  int64
	events    []Event
}

// A scope is the part of a watch that decides which events it gets. Watches of one scope find the same.
type scope struct {
	key, end string
	prevKV   bool
	noPut    bool
	noDelete bool
}

// findings have recent results of searches, so that one of many watches of a scope reads the history and the others
// share its result. The methods may be called concurrently.
type findings struct {
	slots [64]atomic.Pointer[finding]
}

// maxFinding is the size of the largest finding that is kept. So all of them hold at most 1 MiB of history that
// may have been compacted.
const maxFinding = 16 << 10

func (s *findings) slot(c *scope, first int64) *atomic.Pointer[finding] {
	return &s.slots[(uint64(first)+31*uint64(len(c.key))+uint64(c.key[len(c.key)-1]))%uint64(len(s.slots))]
}

// get returns the result of a search that begins with a revision, or nil if it is not known.
func (s *findings) get(c *scope, first, compacted int64) *finding {
	f := s.slot(c, first).Load()
	if f == nil || f.first != first || f.compacted != compacted || f.scope != *c {
		return nil
	}
	return f
}

// put keeps a result, unless it is large.
func (s *findings) put(f *finding) {
	size := 0
	for i := range f.events {
		e := &f.events[i]
		size += int(unsafe.Sizeof(*e)) + len(e.KV.Key) + len(e.KV.Value)
		if e.PrevKV != nil {
			size += len(e.PrevKV.Value)
		}
	}
	if size <= maxFinding {
		s.slot(&f.scope, f.first).Store(f)
	}
}
