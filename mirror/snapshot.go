// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"iter"
	"slices"

	"github.com/coterie-kv/coterie"
)

// An Entry is a key with its decoded value. All lookups share it: it must not be changed, and neither must
// the data that Value refers to.
type Entry[T any] struct {
	Key   string
	Value T
	// Revision is the ModRevision of this value: the condition for a transaction that depends on it. If a
	// newer value of the key could not be decoded, the store has a higher one.
	Revision int64

	groups [][]string // the names that each Grouping returned for the value
}

// A DecodeError means that the value of a key could not be decoded. It wraps the error of the decoder, or
// has the value with which the decoder or a Grouping panicked.
type DecodeError struct {
	Key      string
	Revision int64 // the ModRevision of the value
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

// A Snapshot is the state of an index at one revision. It is immutable and safe for concurrent use. A
// program may keep it as long as it likes; until then, its entries stay in memory. No method blocks.
type Snapshot[T any] struct {
	rev     int64
	entries trie[*Entry[T]]
	faults  trie[*DecodeError]
	by      []*Grouping[T]
	groups  []trie[*group[T]] // the groups of each Grouping in by, by name
}

// Revision returns the revision of the store up to which the snapshot has every change. A revision that does
// not touch the prefix makes no snapshot, so the store may have a higher one; see [Index.WaitRevision].
func (s Snapshot[T]) Revision() int64 { return s.rev }

// Len returns the number of keys that have a value.
func (s Snapshot[T]) Len() int { return s.entries.len }

// Get looks up a key. The key includes the prefix.
func (s Snapshot[T]) Get(key string) (value T, ok bool) {
	if e, ok := s.entries.get(key); ok {
		return e.Value, true
	}
	return value, false
}

// Entry looks up a key and returns its value with its revision. It returns nil for a missing key.
func (s Snapshot[T]) Entry(key string) *Entry[T] {
	e, _ := s.entries.get(key)
	return e
}

// All yields every key with its value, in no particular order.
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

// DecodeErrors yields an error for every key with a newest value that could not be decoded. Such a key keeps its
// last good value, in this and all later snapshots of the index, until a good one is stored or the key is
// deleted. An index that was made after the bad value has no value for the key.
func (s Snapshot[T]) DecodeErrors() iter.Seq[*DecodeError] {
	return func(yield func(*DecodeError) bool) {
		s.faults.all(func(l *leaf[*DecodeError]) bool { return yield(l.value) })
	}
}

// A Change is the difference of a key between two snapshots.
type Change[T any] struct {
	Key      string
	Old, New *Entry[T] // nil if the key was or is missing
}

// ChangesSince yields the differences from an older snapshot of the same index, in no particular order. Its
// cost is in proportion to the number of differences. It does not yield a change that was undone before this
// snapshot. Since the zero Snapshot, every key is new.
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

// draft returns a copy for put and remove. They do not change the parts that the two share.
func (s Snapshot[T]) draft() Snapshot[T] {
	e := &edit{}
	s.entries.edit, s.faults.edit = e, e
	s.groups = slices.Clone(s.groups)
	for i := range s.groups {
		s.groups[i].edit = e
	}
	return s
}

// revision returns the ModRevision of the newest value of a key, good or bad, and 0 for an unknown key.
func (s *Snapshot[T]) revision(key string) int64 {
	if f, ok := s.faults.get(key); ok {
		return f.Revision
	}
	if e, ok := s.entries.get(key); ok {
		return e.Revision
	}
	return 0
}

// put sets a key to a value of the store.
func (s *Snapshot[T]) put(kv coterie.KeyValue, decode func(coterie.KeyValue) (T, error)) {
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

// entry makes the entry of a key with the decoder and the Groupings. If one of them panics, the value is bad, as
// after an error of the decoder: one value must not end every program that mirrors it.
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

// remove removes a key. It does nothing if the key is missing.
func (s *Snapshot[T]) remove(key string) {
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
				continue // the Grouping returned the name twice
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
