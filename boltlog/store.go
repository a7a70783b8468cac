// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// removalStep bounds the number of entries that one transaction removes, so that a vote does not wait long and the
// transaction needs little memory.
const removalStep = 4096

// A store is the data of one directory. The writer's goroutine owns the fields without a lock, and alone changes the
// fields that mu guards.
type store struct {
	db     *database
	note   *note
	loaded storage.Loaded

	state   state  // as it is durable
	applied uint64 // the newest durable applied index
	done    int    // the changes of a Write that are durable, after an error that can be repeated

	mu    sync.Mutex // guards first and sizes
	first uint64     // the index of sizes[0]
	sizes []int32    // of the entries
}

// Vote implements storage.Store.
func (s *store) Vote() storage.Record { return &record{s: s, key: keyVote, noted: true} }

// Identity implements storage.Store.
func (s *store) Identity() storage.Record { return &record{s: s, key: keyIdentity} }

// Close implements storage.Store.
func (s *store) Close() error { return errors.Join(s.db.close(), s.note.file.Close()) }

// Load implements storage.Log. Open has verified the log.
func (s *store) Load() (storage.Loaded, error) { return s.loaded, nil }

// Write implements storage.Log. Consecutive changes that only append are one transaction.
func (s *store) Write(changes []storage.Change, applied uint64) (bytes int, err error) {
	before, transactions := s.db.written(), s.db.transaction.Load()
	err = s.write(changes, applied)
	if vfs.Short(err) {
		return 0, err // the next call continues
	}
	s.done = 0
	metas := int64(s.db.transaction.Load()-transactions) * s.db.pageSize.Load()
	return int(s.db.written() - before + metas), err
}

func (s *store) write(changes []storage.Change, applied uint64) error {
	if err := s.sweep(); err != nil {
		return err
	}
	for s.done < len(changes) {
		if err := s.change(changes[s.done:], applied); err != nil {
			return err
		}
	}
	if s.applied == applied {
		return nil
	}
	if err := s.save(state{applied: applied}); err != nil {
		return err
	}
	s.applied = applied
	return nil
}

// change makes the first changes durable: one that removes entries, or all that append before one that removes.
func (s *store) change(changes []storage.Change, applied uint64) error {
	first, last := s.bounds()
	switch c := changes[0]; c.Kind {
	case storage.Truncate:
		if err := s.remove(max(c.Index, first), last, s.applied); err != nil {
			return err
		}
	case storage.Reset:
		if err := s.remove(first, last, 0); err != nil {
			return err
		}
	default:
		return s.appendAll(changes, applied)
	}
	s.done++
	return nil
}

// appendAll appends the entries of the first changes, up to the first one that removes entries. If that is all, the
// last entry carries the applied index.
func (s *store) appendAll(changes []storage.Change, applied uint64) error {
	var entries []*raft.Log
	n := 0
	for ; n < len(changes) && changes[n].Kind == storage.Append; n++ {
		entries = append(entries, changes[n].Entries...)
	}
	if len(entries) == 0 {
		s.done += n
		return nil
	}
	first, last := s.bounds()
	next := last + 1
	if last == 0 {
		first, next = entries[0].Index, entries[0].Index
	}
	carried := uint64(0)
	if n == len(changes) && s.applied != applied {
		carried = applied
	}
	stored := make([]*raft.Log, len(entries))
	for i, l := range entries {
		if l.Index != next+uint64(i) {
			return fmt.Errorf("boltlog: entry %d cannot follow entry %d", l.Index, next+uint64(i)-1)
		}
		header := uint64(0)
		if i == len(entries)-1 {
			header = carried
		}
		stored[i] = sealEntry(l, header)
	}
	if err := s.db.write(func(b *raftboltdb.BoltStore) error { return b.StoreLogs(stored) }); err != nil {
		return err
	}
	if carried > 0 {
		s.applied = carried
	}
	s.done += n
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = first
	for _, l := range entries {
		s.sizes = append(s.sizes, int32(len(l.Data)+len(l.Extensions)+entryOverhead))
	}
	return nil
}

// remove removes the entries from low to high, at one end of the log. When the first transaction is durable, they do
// not count any more, even if a crash keeps the others from being made. The caller has completed any earlier removal.
func (s *store) remove(low, high, applied uint64) error {
	if high == 0 || low > high {
		low, high = 0, 0
	}
	if next := (state{applied, low, high}); next != s.state {
		if err := s.save(next); err != nil {
			return err
		}
	}
	s.applied = applied
	s.forget(low, high)
	return s.sweep()
}

// sweep completes a removal.
func (s *store) sweep() error {
	if s.state.high == 0 {
		return nil
	}
	for s.state.low <= s.state.high {
		end := min(s.state.high, s.state.low+removalStep-1)
		if err := s.db.write(func(b *raftboltdb.BoltStore) error { return b.DeleteRange(s.state.low, end) }); err != nil {
			return err
		}
		s.state.low = end + 1
	}
	return s.save(state{applied: s.state.applied})
}

// save makes a state durable.
func (s *store) save(next state) error {
	err := s.db.write(func(b *raftboltdb.BoltStore) error {
		return b.Set([]byte(keyState), sealRecord(keyState, next.encode()))
	})
	if err == nil {
		s.state = next
	}
	return err
}

// forget removes entries at one end of the log from memory.
func (s *store) forget(low, high uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if high == 0 || len(s.sizes) == 0 {
		return
	}
	if low <= s.first {
		n := min(high+1-s.first, uint64(len(s.sizes)))
		s.sizes = append([]int32(nil), s.sizes[n:]...)
		s.first += n
		return
	}
	s.sizes = s.sizes[:low-s.first]
}

// Compact implements storage.Log.
func (s *store) Compact(below uint64) error {
	if err := s.sweep(); err != nil {
		return err
	}
	first, last := s.bounds()
	if last == 0 || below <= first {
		return nil
	}
	return s.remove(first, min(below-1, last), s.applied)
}

// bounds returns the first and the last entry, or 0.
func (s *store) bounds() (first, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sizes) == 0 {
		return 0, 0
	}
	return s.first, s.first + uint64(len(s.sizes)) - 1
}

// Entry implements storage.Log.
func (s *store) Entry(index uint64) (*raft.Log, error) {
	if s.Size(index) == 0 {
		return nil, raft.ErrLogNotFound
	}
	l := &raft.Log{}
	err := s.db.read(func(b *raftboltdb.BoltStore) error { return b.GetLog(index, l) })
	if err == nil {
		_, err = openEntry(index, l)
	}
	if err != nil && err != raft.ErrLogNotFound { // it may have been removed in the meantime
		return nil, damaged(s.db.name, err)
	}
	return l, err
}

// Size implements storage.Log.
func (s *store) Size(index uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index < s.first || index-s.first >= uint64(len(s.sizes)) {
		return 0
	}
	return int64(s.sizes[index-s.first])
}

// Extend implements storage.Log.
func (s *store) Extend(e storage.Extent) {
	s.note.extend(reached{s.db.transaction.Load(), e})
}

// Sync implements storage.Log.
func (s *store) Sync() { s.note.advance(0) }

// A record is one record in bucket "conf".
type record struct {
	s     *store
	key   string
	noted bool // Save makes the note durable, too
}

// Load implements storage.Record.
func (r *record) Load() (b []byte, err error) {
	err = r.s.db.read(func(store *raftboltdb.BoltStore) error {
		b, err = store.Get([]byte(r.key))
		return err
	})
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, nil
	}
	if err == nil {
		b, err = openRecord(r.key, b)
	}
	return b, damaged(r.s.db.name, err)
}

// Save implements storage.Record.
func (r *record) Save(b []byte) error {
	err := r.s.db.write(func(store *raftboltdb.BoltStore) error { return store.Set([]byte(r.key), sealRecord(r.key, b)) })
	if err == nil && r.noted {
		r.s.note.advance(r.s.db.transaction.Load())
	}
	return err
}
