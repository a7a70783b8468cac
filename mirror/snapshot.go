// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"iter"
	"slices"

	"github.com/coterie-kv/coterie"
)

// An Entry is a key with its decoded value. It is shared by all who look it up: neither it nor what
// its value refers to may be changed.
type Entry[T any] struct {
	Key   string
	Value T
	// Revision is the one that made this value, its ModRevision: the condition for a transaction
	// that is based on it. When a newer value could not be decoded, it is older than the key's.
	Revision int64

	groups [][]string // the names that each Grouping returned for the value
}

// A DecodeError says that what is stored under a key could not be decoded. It wraps the decoder's
// error, or names the value of a panic of the decoder or of a Grouping.
type DecodeError struct {
	Key      string
	Revision int64 // that stored it
	Err      error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("mirror: %s of revision %d: %v", e.Key, e.Revision, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// A Grouping is a secondary index: it sorts values into named groups. See [GroupBy].
type Grouping[T any] struct{ of func(T) []string }

// GroupBy makes a Grouping for [New] and [Snapshot.Group]. A value belongs to each group that of
// returns a name for; there may be none. The index calls of once for each value that it decodes.
func GroupBy[T any](of func(T) []string) *Grouping[T] { return &Grouping[T]{of} }

// A group holds the entries of one group of a Grouping.
type group[T any] = trie[*Entry[T]]

// A Snapshot is what an index had at a revision, all at once. It is immutable, may be used by any
// number of goroutines and kept for as long as one likes; it keeps in memory what it has. None of
// its methods blocks.
type Snapshot[T any] struct {
	rev     int64
	keys    int // under the prefix, those included that never had a value which could be decoded
	entries trie[*Entry[T]]
	faults  trie[*DecodeError]
	by      []*Grouping[T]
	groups  []trie[*group[T]] // of each of by
}

// Revision is the store's revision up to which everything is included. Revisions that do not touch
// the prefix make no snapshot, so the store may be further: see [Index.WaitRevision].
func (s Snapshot[T]) Revision() int64 { return s.rev }

// Len is the number of keys that have a value.
func (s Snapshot[T]) Len() int { return s.entries.len }

// Get looks up a key, with its prefix.
func (s Snapshot[T]) Get(key string) (value T, ok bool) {
	if e, ok := s.entries.get(key); ok {
		return e.Value, true
	}
	return value, false
}

// Entry is Get with the revision of the value; nil for a missing key.
func (s Snapshot[T]) Entry(key string) *Entry[T] {
	e, _ := s.entries.get(key)
	return e
}

// All yields every key with its value, in no order.
func (s Snapshot[T]) All() iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		s.entries.all(func(l *leaf[*Entry[T]]) bool { return yield(l.key, l.value.Value) })
	}
}

// Group yields the keys and values of one group, in no particular order. Its cost is in proportion to
// the group, not to the prefix. A Grouping that [New] did not get has no groups.
func (s Snapshot[T]) Group(by *Grouping[T], name string) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		i := slices.Index(s.by, by)
		if i < 0 {
			return
		}
		if g, ok := s.groups[i].get(name); ok {
			g.all(func(l *leaf[*Entry[T]]) bool { return yield(l.key, l.value.Value) })
		}
	}
}

// DecodeErrors yields, for every key whose latest value could not be decoded, why. Such a key keeps the
// value it had, in this and all later snapshots of this index, until a good one is stored or the
// key is deleted. An index that is made after the bad value has none for it: it misses what the
// older one keeps.
func (s Snapshot[T]) DecodeErrors() iter.Seq[*DecodeError] {
	return func(yield func(*DecodeError) bool) {
		s.faults.all(func(l *leaf[*DecodeError]) bool { return yield(l.value) })
	}
}

// A Change is how a key differs between two snapshots.
type Change[T any] struct {
	Key      string
	Old, New *Entry[T] // nil for a key that there was, or is, not
}

// ChangesSince yields what differs from an older snapshot of the same index, in no order, at a cost in
// proportion to the differences. Changes between the two that were undone do not show. Since the
// zero Snapshot, everything is new.
func (s Snapshot[T]) ChangesSince(old Snapshot[T]) iter.Seq[Change[T]] {
	return func(yield func(Change[T]) bool) {
		s.entries.since(old.entries, func(was, is *leaf[*Entry[T]]) bool {
			c := Change[T]{}
			if was != nil {
				c.Key, c.Old = was.key, was.value
			}
			if is != nil {
				c.Key, c.New = is.key, is.value
			}
			return yield(c)
		})
	}
}

// draft returns a copy that put and remove may change: what the two share they do not touch.
func (s Snapshot[T]) draft() Snapshot[T] {
	e := &edit{}
	s.entries.edit, s.faults.edit = e, e
	s.groups = slices.Clone(s.groups)
	for i := range s.groups {
		s.groups[i].edit = e
	}
	return s
}

// revision returns the one that stored what is known of a key, good or bad; 0 for an unknown key.
func (s *Snapshot[T]) revision(key string) int64 {
	if f, ok := s.faults.get(key); ok {
		return f.Revision
	}
	if e, ok := s.entries.get(key); ok {
		return e.Revision
	}
	return 0
}

func (s *Snapshot[T]) put(kv coterie.KeyValue, decode func(coterie.KeyValue) (T, error)) {
	if s.revision(kv.Key) == 0 {
		s.keys++
	}
	e, err := s.entry(kv, decode)
	if err != nil {
		s.faults = s.faults.with(kv.Key, &DecodeError{kv.Key, kv.ModRevision, err})
		return
	}
	s.faults = s.faults.without(kv.Key)
	s.ungroup(kv.Key)
	s.entries = s.entries.with(kv.Key, e)
	for i, values := range e.groups {
		for _, value := range values {
			g := group[T]{seed: s.entries.seed}
			if known, ok := s.groups[i].get(value); ok {
				g = *known
			}
			g.edit = s.entries.edit
			g = g.with(kv.Key, e)
			s.groups[i] = s.groups[i].with(value, &g)
		}
	}
}

// entry makes the entry of a key with the decoder and the Groupings. If one of them panics, the value
// is bad, as if the decoder had refused it: it must not end every program that has a mirror of it.
func (s *Snapshot[T]) entry(kv coterie.KeyValue, decode func(coterie.KeyValue) (T, error)) (e *Entry[T], err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	v, err := decode(kv)
	if err != nil {
		return nil, err
	}
	e = &Entry[T]{Key: kv.Key, Value: v, Revision: kv.ModRevision}
	for _, by := range s.by {
		e.groups = append(e.groups, by.of(v))
	}
	return e, nil
}

func (s *Snapshot[T]) remove(key string) {
	if s.revision(key) == 0 {
		return
	}
	s.keys--
	s.ungroup(key)
	s.entries = s.entries.without(key)
	s.faults = s.faults.without(key)
}

// ungroup takes a key out of its groups.
func (s *Snapshot[T]) ungroup(key string) {
	e, ok := s.entries.get(key)
	if !ok {
		return
	}
	for i, values := range e.groups {
		for _, value := range values {
			g, ok := s.groups[i].get(value)
			if !ok {
				continue // the value came twice
			}
			rest := *g
			rest.edit = s.entries.edit
			if rest = rest.without(key); rest.len > 0 {
				s.groups[i] = s.groups[i].with(value, &rest)
			} else {
				s.groups[i] = s.groups[i].without(value)
			}
		}
	}
}
