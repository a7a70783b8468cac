// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// A trie is a persistent map from strings to values that are compared by identity: it is never
// changed, and a map that differs in one key shares all but a path of it. It branches by five bits
// of a key's hash at a time; what is alone below a branch is a leaf there, so a path is as long as
// it takes to tell the keys apart: four branches of 32 among 100,000 keys.
type trie[V comparable] struct {
	seed maphash.Seed // the same in all tries that are compared
	edit *edit
	root *branch[V] // nil: empty
	len  int
}

// An edit is a series of changes of which nobody sees but the last: branches that were made for it
// are its own to change. It makes no difference to what a trie has, but to what a long series
// costs.
type edit struct{ _ byte }

const step = 5 // bits of a hash that a branch looks at

// A branch has a slot for each bit of present, in their order.
type branch[V comparable] struct {
	edit    *edit // that made it
	present uint32
	slots   []slot[V]
}

// A slot has either a branch or a leaf.
type slot[V comparable] struct {
	below *branch[V]
	leaf  *leaf[V]
}

// A leaf is a key with its value, and a chain of those that have the very same hash.
type leaf[V comparable] struct {
	hash  uint64
	key   string
	value V
	next  *leaf[V]
}

func (t trie[V]) get(key string) (v V, ok bool) {
	if t.root == nil {
		return v, false // also of the zero trie, which has no seed
	}
	return t.root.get(maphash.String(t.seed, key), key)
}

func (t trie[V]) with(key string, v V) trie[V] {
	root := t.root
	if root == nil {
		root = &branch[V]{edit: t.edit}
	}
	root, grew := root.with(t.edit, 0, &leaf[V]{hash: maphash.String(t.seed, key), key: key, value: v})
	t.root = root
	if grew {
		t.len++
	}
	return t
}

func (t trie[V]) without(key string) trie[V] {
	if t.root == nil {
		return t
	}
	root, shrank := t.root.without(t.edit, 0, maphash.String(t.seed, key), key)
	t.root = root
	if shrank {
		t.len--
	}
	return t
}

// all visits every leaf until visit returns false.
func (t trie[V]) all(visit func(*leaf[V]) bool) {
	slot[V]{below: t.root}.all(visit)
}

// since visits what differs from another trie, until visit returns false: the leaf there was, nil
// for a new key, and the leaf there is, nil for a key that has gone.
func (t trie[V]) since(old trie[V], visit func(was, is *leaf[V]) bool) {
	diff(0, slot[V]{below: old.root}, slot[V]{below: t.root}, visit)
}

// find returns the place of a hash in the slots of a branch at a depth of shift bits, and the bit
// for it.
func (b *branch[V]) find(shift uint, hash uint64) (int, uint32) {
	bit := uint32(1) << (hash >> shift & (1<<step - 1))
	return bits.OnesCount32(b.present & (bit - 1)), bit
}

func (b *branch[V]) get(hash uint64, key string) (v V, ok bool) {
	for shift := uint(0); b != nil; shift += step {
		i, bit := b.find(shift, hash)
		if b.present&bit == 0 {
			return v, false
		}
		s := b.slots[i]
		if s.below == nil {
			return s.leaf.get(key)
		}
		b = s.below
	}
	return v, false
}

// with returns a branch that has a leaf too, and whether its key is new.
func (b *branch[V]) with(e *edit, shift uint, l *leaf[V]) (*branch[V], bool) {
	i, bit := b.find(shift, l.hash)
	if b.present&bit == 0 {
		b = b.own(e)
		b.slots = slices.Insert(b.slots, i, slot[V]{leaf: l})
		b.present |= bit
		return b, true
	}
	switch s := b.slots[i]; {
	case s.below != nil:
		below, grew := s.below.with(e, shift+step, l)
		return b.replace(e, i, slot[V]{below: below}), grew
	case s.leaf.hash == l.hash:
		rest := s.leaf.without(l.key)
		_, had := s.leaf.get(l.key)
		return b.replace(e, i, slot[V]{leaf: &leaf[V]{l.hash, l.key, l.value, rest}}), !had
	default:
		below, _ := (&branch[V]{edit: e}).with(e, shift+step, s.leaf)
		below, _ = below.with(e, shift+step, l)
		return b.replace(e, i, slot[V]{below: below}), true
	}
}

// without returns a branch that lacks a key, and whether it had it.
func (b *branch[V]) without(e *edit, shift uint, hash uint64, key string) (*branch[V], bool) {
	i, bit := b.find(shift, hash)
	if b.present&bit == 0 {
		return b, false
	}
	s := b.slots[i]
	if s.below == nil {
		if _, had := s.leaf.get(key); !had {
			return b, false
		}
		if rest := s.leaf.without(key); rest != nil {
			return b.replace(e, i, slot[V]{leaf: rest}), true
		}
		b = b.own(e)
		b.slots = slices.Delete(b.slots, i, i+1)
		b.present &^= bit
		return b, true
	}
	below, shrank := s.below.without(e, shift+step, hash, key)
	switch {
	case !shrank:
		return b, false
	case len(below.slots) == 1 && below.slots[0].below == nil:
		return b.replace(e, i, below.slots[0]), true // alone, it needs no branch
	default:
		return b.replace(e, i, slot[V]{below: below}), true
	}
}

// own returns the branch if it is the edit's own, and else a copy that is.
func (b *branch[V]) own(e *edit) *branch[V] {
	if b.edit == e && e != nil {
		return b
	}
	return &branch[V]{e, b.present, slices.Clone(b.slots)}
}

func (b *branch[V]) replace(e *edit, i int, s slot[V]) *branch[V] {
	b = b.own(e)
	b.slots[i] = s
	return b
}

func (l *leaf[V]) get(key string) (v V, ok bool) {
	for ; l != nil; l = l.next {
		if l.key == key {
			return l.value, true
		}
	}
	return v, false
}

// without returns the chain without a key: nil if there is no other.
func (l *leaf[V]) without(key string) *leaf[V] {
	switch {
	case l == nil:
		return nil
	case l.key == key:
		return l.next
	default:
		return &leaf[V]{l.hash, l.key, l.value, l.next.without(key)}
	}
}

func (s slot[V]) all(visit func(*leaf[V]) bool) bool {
	for l := s.leaf; l != nil; l = l.next {
		if !visit(l) {
			return false
		}
	}
	if s.below != nil {
		for _, s := range s.below.slots {
			if !s.all(visit) {
				return false
			}
		}
	}
	return true
}

// at returns the slot of a bit: an empty one if there is none.
func (b *branch[V]) at(bit uint32) slot[V] {
	if b.present&bit == 0 {
		return slot[V]{}
	}
	return b.slots[bits.OnesCount32(b.present&(bit-1))]
}

// lookup finds a leaf in a slot at a depth of shift bits.
func (s slot[V]) lookup(shift uint, hash uint64, key string) *leaf[V] {
	for s.below != nil {
		_, bit := s.below.find(shift, hash)
		s = s.below.at(bit)
		shift += step
	}
	for l := s.leaf; l != nil; l = l.next {
		if l.key == key {
			return l
		}
	}
	return nil
}

// diff visits what differs between two slots in the same place. What they share it does not enter.
func diff[V comparable](shift uint, old, now slot[V], visit func(was, is *leaf[V]) bool) bool {
	if old == now {
		return true
	}
	if old.below != nil && now.below != nil {
		for left := old.below.present | now.below.present; left != 0; left &= left - 1 {
			bit := left & -left
			if !diff(shift+step, old.below.at(bit), now.below.at(bit), visit) {
				return false
			}
		}
		return true
	}
	return old.all(func(was *leaf[V]) bool {
		is := now.lookup(shift, was.hash, was.key)
		return is != nil && is.value == was.value || visit(was, is)
	}) && now.all(func(is *leaf[V]) bool {
		return old.lookup(shift, is.hash, is.key) != nil || visit(nil, is)
	})
}
