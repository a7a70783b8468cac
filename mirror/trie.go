// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// A trie is a persistent map from strings to values. It never changes: a map that differs in one key is a new
// trie that shares all but one path. Values are compared with ==.
//
// Each branch looks at six bits of a key's hash. A key that is alone below a branch is a leaf of it, so a path
// is only as long as needed to tell the keys apart: three branches among 100,000 keys. The cost of a lookup is
// the number of memory accesses that wait for each other. So branches are wide, and hold their leaves side by
// side instead of pointers to them.
type trie[V comparable] struct {
	seed maphash.Seed // the same in all tries that are compared
	edit *edit
	root *branch[V] // nil: empty
	len  int
}

// An edit is a series of changes of which only the last result is published. It may change the branches that it
// made itself. That makes a long series cheap, and does not affect its result.
type edit struct{ _ byte }

const step = 6 // the bits of a hash that a branch looks at

// A branch has 64 places. Each has a leaf, another branch, or nothing. leaves and below are in the order of the
// places; the bits of leafMap and belowMap say which places have one.
type branch[V comparable] struct {
	leafMap, belowMap uint64
	leaves            []leaf[V]
	below             []*branch[V]
	edit              *edit // the edit that made this branch
}

// A leaf is a key with its value.
type leaf[V comparable] struct {
	hash  uint64
	key   string
	value V
}

func (t trie[V]) get(key string) (v V, ok bool) {
	if t.root == nil {
		return v, false // the zero trie has no seed, so do not hash
	}
	if l := t.root.get(0, maphash.String(t.seed, key), key); l != nil {
		return l.value, true
	}
	return v, false
}

func (t trie[V]) with(key string, v V) trie[V] {
	root := t.root
	if root == nil {
		root = &branch[V]{edit: t.edit}
	}
	root, grew := root.with(t.edit, 0, leaf[V]{hash: maphash.String(t.seed, key), key: key, value: v})
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
func (t trie[V]) all(visit func(*leaf[V]) bool) { t.root.all(visit) }

// since visits the differences from an older trie until visit returns false. was is nil for a new key, and is is
// nil for a removed one.
func (t trie[V]) since(old trie[V], visit func(was, is *leaf[V]) bool) {
	diff(0, place[V]{below: old.root}, place[V]{below: t.root}, visit)
}

// at returns the bit of a key's place in a branch at a depth of shift bits. Below the last bit of the hash, all
// keys have the same hash. There the bits of the keys themselves count, four at a time, and their lengths.
func at(shift uint, hash uint64, key string) uint64 {
	if shift < 64 {
		return 1 << (hash >> shift & (1<<step - 1))
	}
	half := (shift - 64) / step // the index of a half byte of the key
	if i := int(half / 2); i < len(key) {
		return 1 << (key[i] >> (half % 2 * 4) & 15)
	}
	return 1 << 16
}

// index returns the number of places in a map before the place of a bit.
func index(places, bit uint64) int { return bits.OnesCount64(places & (bit - 1)) }

// get returns the leaf of a key, or nil.
func (b *branch[V]) get(shift uint, hash uint64, key string) *leaf[V] {
	for ; b != nil; shift += step {
		bit := at(shift, hash, key)
		if b.leafMap&bit != 0 {
			l := &b.leaves[index(b.leafMap, bit)]
			if l.hash == hash && l.key == key {
				return l
			}
			return nil
		}
		if b.belowMap&bit == 0 {
			return nil
		}
		b = b.below[index(b.belowMap, bit)]
	}
	return nil
}

// with returns a branch with a leaf added or replaced, and whether its key is new.
func (b *branch[V]) with(e *edit, shift uint, l leaf[V]) (*branch[V], bool) {
	bit := at(shift, l.hash, l.key)
	i, j := index(b.leafMap, bit), index(b.belowMap, bit)
	switch {
	case b.belowMap&bit != 0:
		below, grew := b.below[j].with(e, shift+step, l)
		b = b.own(e)
		b.below[j] = below
		return b, grew
	case b.leafMap&bit == 0:
		b = b.own(e)
		b.plant(bit, l)
		return b, true
	case b.leaves[i].hash == l.hash && b.leaves[i].key == l.key:
		b = b.own(e)
		b.leaves[i] = l
		return b, false
	default:
		below, _ := (&branch[V]{edit: e}).with(e, shift+step, b.leaves[i])
		below, _ = below.with(e, shift+step, l)
		b = b.own(e)
		b.leaves = slices.Delete(b.leaves, i, i+1)
		b.below = slices.Insert(b.below, j, below)
		b.leafMap, b.belowMap = b.leafMap&^bit, b.belowMap|bit
		return b, true
	}
}

// plant puts a leaf into an empty place. The edit must own the branch.
func (b *branch[V]) plant(bit uint64, l leaf[V]) {
	b.leaves = slices.Insert(b.leaves, index(b.leafMap, bit), l)
	b.leafMap |= bit
}

// without returns a branch without a key, and whether b had the key.
func (b *branch[V]) without(e *edit, shift uint, hash uint64, key string) (*branch[V], bool) {
	bit := at(shift, hash, key)
	i, j := index(b.leafMap, bit), index(b.belowMap, bit)
	switch {
	case b.leafMap&bit != 0 && b.leaves[i].key == key:
		b = b.own(e)
		b.leaves = slices.Delete(b.leaves, i, i+1)
		b.leafMap &^= bit
		return b, true
	case b.belowMap&bit == 0:
		return b, false
	}
	below, shrank := b.below[j].without(e, shift+step, hash, key)
	if !shrank {
		return b, false
	}
	b = b.own(e)
	if len(below.leaves) == 1 && len(below.below) == 0 { // a single leaf needs no branch
		b.below = slices.Delete(b.below, j, j+1)
		b.belowMap &^= bit
		b.plant(bit, below.leaves[0])
	} else {
		b.below[j] = below
	}
	return b, true
}

// own returns b if the edit e made it, and otherwise a copy that e owns.
func (b *branch[V]) own(e *edit) *branch[V] {
	if b.edit == e && e != nil {
		return b
	}
	return &branch[V]{b.leafMap, b.belowMap, slices.Clone(b.leaves), slices.Clone(b.below), e}
}

func (b *branch[V]) all(visit func(*leaf[V]) bool) bool {
	if b == nil {
		return true
	}
	for i := range b.leaves {
		if !visit(&b.leaves[i]) {
			return false
		}
	}
	for _, below := range b.below {
		if !below.all(visit) {
			return false
		}
	}
	return true
}

// A place is the content of one place of a branch: a leaf, another branch, or neither.
type place[V comparable] struct {
	leaf  *leaf[V]
	below *branch[V]
}

// place returns the content of the place of a bit.
func (b *branch[V]) place(bit uint64) (p place[V]) {
	if b.leafMap&bit != 0 {
		p.leaf = &b.leaves[index(b.leafMap, bit)]
	}
	if b.belowMap&bit != 0 {
		p.below = b.below[index(b.belowMap, bit)]
	}
	return p
}

func (p place[V]) all(visit func(*leaf[V]) bool) bool {
	return (p.leaf == nil || visit(p.leaf)) && p.below.all(visit)
}

// get returns the leaf of a key in a place at a depth of shift bits, or nil.
func (p place[V]) get(shift uint, hash uint64, key string) *leaf[V] {
	if p.leaf != nil && p.leaf.key == key {
		return p.leaf
	}
	return p.below.get(shift, hash, key)
}

// diff visits the differences between the same place of two branches. It does not enter the parts that they
// share.
func diff[V comparable](shift uint, old, now place[V], visit func(was, is *leaf[V]) bool) bool {
	if old == now {
		return true
	}
	if old.below != nil && now.below != nil {
		for left := old.below.taken() | now.below.taken(); left != 0; left &= left - 1 {
			bit := left & -left
			if !diff(shift+step, old.below.place(bit), now.below.place(bit), visit) {
				return false
			}
		}
		return true
	}
	return old.all(func(was *leaf[V]) bool {
		is := now.get(shift, was.hash, was.key)
		return is != nil && is.value == was.value || visit(was, is)
	}) && now.all(func(is *leaf[V]) bool {
		return old.get(shift, is.hash, is.key) != nil || visit(nil, is)
	})
}

// taken returns the bits of the places that are not empty.
func (b *branch[V]) taken() uint64 { return b.leafMap | b.belowMap }
