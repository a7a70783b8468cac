// SPDX-License-Identifier: Apache-2.0

package mvcc

import "math"

// fan is the capacity of a node. With 24 items a leaf fills an allocation of 320 bytes. Larger nodes save little memory, and
// a put copies more bytes when it changes a node that a view shares.
const fan = 24

// A tree is a B+ tree of versions, ordered by key, then by revision. Versions of one key and revision are in the
// order in which they were inserted. One goroutine changes a tree. A shared copy never changes: after share, a change
// copies the nodes from the root to the leaf.
//
// Leaves are filled completely when keys arrive in ascending order, as many keys of a coordination service do.
type tree struct {
	root *node
	len  int
	// generation counts the copies. A node of an earlier generation is shared.
	generation uint64
}

// A node is a leaf with n versions, or an inner node with n children.
type node struct {
	generation uint64
	n          int
	kids       *kids // nil for a leaf
	// heads are parts of the keys of items, after the skipped bytes that all of these keys have in common. See heads.go.
	skip  int32
	heads [fan]uint32
	// items are the versions of a leaf. In an inner node, items[i] separates child i-1 from child i: no version before it
	// is greater, and no version after it is less. A separator is a tombstone of its own, so that it keeps no
	// version in memory. items[0] is not used there.
	items [fan]version
}

type kids struct {
	nodes [fan]*node
	sizes [fan]uint32 // numbers of versions below, so that counting reads no siblings
}

// newInner returns an inner node without children. It is one allocation.
func newInner(generation uint64) *node {
	n := new(inner)
	n.node.generation, n.node.kids = generation, &n.kids
	return &n.node
}

// An inner is an inner node with its children.
type inner struct {
	node node
	kids kids
}

// share returns a copy that never changes. Its cost does not depend on the size of the tree.
func (t *tree) share() tree {
	shared := *t
	t.generation++
	return shared
}

// size returns the number of versions below a node.
func (n *node) size() (size uint32) {
	if n.kids == nil {
		return uint32(n.n)
	}
	for _, s := range n.kids.sizes[:n.n] {
		size += s
	}
	return size
}

// lower returns the index of the first item, from low on, that is not before a key and revision. The key is in the range of
// the node.
func (n *node) lower(low int, key string, rev int64) int {
	low, high := n.candidates(low, key)
	// A new tombstone belongs after all other past versions of its key. So the last one often decides.
	if low < high && n.items[high-1].before(key, rev) {
		return high
	}
	for low < high {
		mid := int(uint(low+high) >> 1)
		if n.items[mid].before(key, rev) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// child returns the index of the child that may have the first version that is not before a key and revision. If that
// child has none, it is the first version of the next child.
func (n *node) child(key string, rev int64) int { return n.lower(1, key, rev) - 1 }

// leaf returns the leaf that may have the first version that is not before a key and revision. If that leaf has none, it is
// the first version of the next subtree, which is nil at the end of a tree.
func (t *tree) leaf(key string, rev int64) (n, next *node) {
	n = t.root
	for n.kids != nil {
		i := n.child(key, rev)
		if i+1 < n.n {
			next = n.kids.nodes[i+1]
		}
		n = n.kids.nodes[i]
	}
	return n, next
}

// first returns the first version that is not before a key and revision.
func (t *tree) first(key string, rev int64) version {
	if t.root == nil {
		return version{}
	}
	n, next := t.leaf(key, rev)
	if i := n.lower(0, key, rev); i < n.n {
		return n.items[i]
	}
	return next.first()
}

// first returns the first version below a node, which may be nil.
func (n *node) first() version {
	if n == nil {
		return version{}
	}
	for n.kids != nil {
		n = n.kids.nodes[0]
	}
	return n.items[0]
}

// lowest is the lowest revision of a version. Most separators have none, so they are before the versions of their key.
const lowest = 1

// find returns the first version of a key.
func (t *tree) find(key string) version {
	if t.root == nil {
		return version{}
	}
	n, next := t.leaf(key, lowest)
	from, to := n.candidates(0, key)
	for _, v := range n.items[from:to] {
		if v.key() == key {
			return v
		}
	}
	if to == n.n {
		if v := next.first(); v.exists() && v.key() == key {
			return v
		}
	}
	return version{}
}

// rank returns the number of versions of lower keys.
func (t *tree) rank(key string) (rank int) {
	n := t.root
	if n == nil {
		return 0
	}
	for n.kids != nil {
		i := n.child(key, lowest)
		for _, size := range n.kids.sizes[:i] {
			rank += int(size)
		}
		n = n.kids.nodes[i]
	}
	return rank + n.lower(0, key, lowest)
}

// insert inserts a version at a cursor of the tree, which then is invalid.
func (t *tree) insert(c *cursor, v version) {
	t.len++
	if t.root == nil {
		t.root = &node{generation: t.generation, n: 1}
		t.root.set(0, v)
		return
	}
	t.own(c)
	right, separator := c.nodes[c.depth].insert(c.at[c.depth], v, nil)
	for d := c.depth - 1; d >= 0; d-- {
		n, i := c.nodes[d], c.at[d]
		if right == nil {
			n.kids.sizes[i]++
			continue
		}
		low, high := c.bounds(d + 1)
		c.nodes[d+1].narrow(low, separator)
		right.narrow(separator, high)
		n.kids.sizes[i] = n.kids.nodes[i].size()
		right, separator = n.insert(i+1, separator, right)
	}
	if right != nil {
		left := t.root
		t.root = newInner(t.generation)
		t.root.n = 2
		t.root.set(1, separator)
		t.root.kids.nodes = [fan]*node{left, right}
		t.root.kids.sizes = [fan]uint32{left.size(), right.size()}
	}
}

// insert inserts an item, with a child for an inner node. If the node is full, it moves items to a new node on its
// right, which the caller inserts into the parent after the separator.
func (n *node) insert(i int, item version, kid *node) (right *node, separator version) {
	if n.n < fan {
		n.open(i, item, kid)
		return nil, version{}
	}
	half := fan / 2
	if i == fan && n.kids == nil {
		half = fan // keys in ascending order leave full leaves
	}
	if n.kids == nil {
		right = &node{generation: n.generation}
	} else {
		right = newInner(n.generation)
	}
	right.skip = n.skip
	n.move(half, right)
	if i <= half && half < fan {
		n.open(i, item, kid)
	} else {
		right.open(i-half, item, kid)
	}
	if n.kids != nil {
		separator, right.items[0] = right.items[0], version{}
		return right, separator
	}
	return right, separate(n.items[n.n-1], right.items[0])
}

// open makes space for an item, with a child for an inner node, and stores it.
func (n *node) open(i int, item version, kid *node) {
	copy(n.items[i+1:n.n+1], n.items[i:n.n])
	copy(n.heads[i+1:n.n+1], n.heads[i:n.n])
	n.set(i, item)
	if k := n.kids; k != nil {
		copy(k.nodes[i+1:n.n+1], k.nodes[i:n.n])
		copy(k.sizes[i+1:n.n+1], k.sizes[i:n.n])
		k.nodes[i], k.sizes[i] = kid, kid.size()
	}
	n.n++
}

// move appends the items from i on to another node, which skips as many bytes.
func (n *node) move(i int, to *node) {
	copy(to.items[to.n:], n.items[i:n.n])
	copy(to.heads[to.n:], n.heads[i:n.n])
	clear(n.items[i:n.n])
	if k := n.kids; k != nil {
		copy(to.kids.nodes[to.n:], k.nodes[i:n.n])
		copy(to.kids.sizes[to.n:], k.sizes[i:n.n])
		clear(k.nodes[i:n.n])
	}
	to.n, n.n = to.n+n.n-i, i
}

// separate returns a short separator between two adjacent versions.
func separate(left, right version) version {
	a, b := left.key(), right.key()
	shared := common(a, b)
	if shared == len(b) { // the same key: left is not greater
		return newVersion(&KeyValue{Key: b, ModRevision: right.modRevision()}, links{})
	}
	return newVersion(&KeyValue{Key: b[:shared+1]}, links{})
}

// own copies the shared nodes of a cursor's path.
func (t *tree) own(c *cursor) {
	for d := range c.depth + 1 {
		n := t.owned(c.nodes[d])
		if n == c.nodes[d] {
			continue
		}
		c.nodes[d] = n
		if d == 0 {
			t.root = n
		} else {
			c.nodes[d-1].kids.nodes[c.at[d-1]] = n
		}
	}
}

// owned returns a node, or a copy of it if a copy of the tree shares it.
func (t *tree) owned(n *node) *node {
	switch {
	case n.generation == t.generation:
		return n
	case n.kids == nil:
		own := *n
		own.generation = t.generation
		return &own
	}
	own := &inner{*n, *n.kids}
	own.node.generation, own.node.kids = t.generation, &own.kids
	return &own.node
}

// replace replaces the version at a cursor.
func (t *tree) replace(c *cursor, v version) {
	t.own(c)
	c.nodes[c.depth].items[c.at[c.depth]] = v
}

// remove removes the version at a cursor, which then is invalid.
func (t *tree) remove(c *cursor) {
	t.len--
	t.own(c)
	c.nodes[c.depth].close(c.at[c.depth])
	for d := c.depth - 1; d >= 0; d-- {
		n, i := c.nodes[d], c.at[d]
		n.kids.sizes[i]--
		switch {
		case n.kids.nodes[i].n == 0:
			t.closeEmpty(n, i)
		case i+1 < n.n && n.fits(i):
			t.merge(n, i)
		case i > 0 && n.fits(i-1):
			t.merge(n, i-1)
		}
	}
	for t.root.kids != nil && t.root.n == 1 {
		t.root = t.root.kids.nodes[0]
	}
	if t.root.n == 0 {
		t.root = nil
	}
}

// close removes an item, with the child of an inner node.
func (n *node) close(i int) {
	copy(n.items[i:], n.items[i+1:n.n])
	copy(n.heads[i:], n.heads[i+1:n.n])
	n.items[n.n-1] = version{}
	if k := n.kids; k != nil {
		copy(k.nodes[i:], k.nodes[i+1:n.n])
		copy(k.sizes[i:], k.sizes[i+1:n.n])
		k.nodes[n.n-1] = nil
		n.items[0] = version{} // the separator of a child that is the first now
	}
	n.n--
}

// fits reports whether child i and the next one leave half of one node free.
func (n *node) fits(i int) bool { return n.kids.nodes[i].n+n.kids.nodes[i+1].n <= fan/2 }

// merge moves the contents of child i+1 to child i.
func (t *tree) merge(n *node, i int) {
	left, right := t.owned(n.kids.nodes[i]), t.owned(n.kids.nodes[i+1])
	n.kids.nodes[i] = left
	left.limit(right.skip)
	right.limit(left.skip)
	if right.kids != nil {
		right.set(0, n.items[i+1])
	}
	right.move(0, left)
	n.kids.sizes[i] += n.kids.sizes[i+1]
	n.close(i + 1)
}

// A cursor is a place before a version of a tree, or at the end of a leaf. A change of the tree makes it invalid.
type cursor struct {
	depth int // of the leaf
	nodes [maxDepth]*node
	at    [maxDepth]int
}

// maxDepth is out of reach: two inner nodes that are neighbors have more than fan/2 children together, so 12 levels of inner
// nodes have about 6^12 leaves. Leaves can have a single version each, if keys arrive in an unfortunate order.
const maxDepth = 13

// seek moves a cursor before the first version that is not before a key and revision, or to the end of the leaf where
// such a version belongs.
func (t *tree) seek(c *cursor, key string, rev int64) {
	c.depth = 0
	n := t.root
	if n == nil {
		c.nodes[0] = nil
		return
	}
	for ; n.kids != nil; c.depth++ {
		i := n.child(key, rev)
		c.nodes[c.depth], c.at[c.depth] = n, i
		n = n.kids.nodes[i]
	}
	c.nodes[c.depth], c.at[c.depth] = n, n.lower(0, key, rev)
}

// version returns the version after the cursor, in this leaf or the next. It does not exist at the end of the tree.
func (c *cursor) version() version {
	leaf := c.nodes[c.depth]
	if leaf == nil {
		return version{}
	}
	if i := c.at[c.depth]; i < leaf.n || c.nextLeaf() {
		return c.nodes[c.depth].items[c.at[c.depth]]
	}
	return version{}
}

// next moves the cursor beyond a version.
func (c *cursor) next() { c.at[c.depth]++ }

// nextLeaf moves the cursor to the next leaf. It returns false, and does not move, if there is none.
func (c *cursor) nextLeaf() bool {
	d := c.depth - 1
	for d >= 0 && c.at[d]+1 == c.nodes[d].n {
		d--
	}
	if d < 0 {
		return false
	}
	c.at[d]++
	for ; d < c.depth; d++ {
		c.nodes[d+1], c.at[d+1] = c.nodes[d].kids.nodes[c.at[d]], 0
	}
	return true
}

// findAt moves a cursor to the version of a key, or to the place where it belongs, in a tree with one version of each
// key. It returns the version.
func (t *tree) findAt(c *cursor, key string) version {
	t.seek(c, key, lowest)
	// No separator in such a tree has a revision. So the next leaf, if there is one, begins with a higher key.
	if leaf, i := c.nodes[c.depth], c.at[c.depth]; leaf != nil && leaf.has(i, key) {
		return leaf.items[i]
	}
	return version{}
}

// add inserts a version after those of the same key and of revisions up to its own.
func (t *tree) add(v version) {
	var c cursor
	t.seek(&c, v.key(), v.modRevision()+1)
	t.insert(&c, v)
}

// append inserts a version that is greater than all others.
func (t *tree) append(v version) {
	var c cursor
	n := t.root
	for ; n != nil && n.kids != nil; c.depth++ {
		c.nodes[c.depth], c.at[c.depth] = n, n.n-1
		n = n.kids.nodes[n.n-1]
	}
	if n != nil {
		c.nodes[c.depth], c.at[c.depth] = n, n.n
	}
	t.insert(&c, v)
}

// skip moves a cursor from a version to the next key. It returns the first version of the key at or after a revision.
func (t *tree) skip(c *cursor, rev int64) (first version) {
	v := c.version()
	key := v.key()
	for steps := 0; v.exists() && v.key() == key; v = c.version() {
		if !first.exists() && v.modRevision() >= rev {
			first = v
		}
		// A key with many versions is skipped by a look-up.
		if steps++; steps == 8 {
			if !first.exists() {
				first = t.since(key, rev)
			}
			t.seek(c, key, math.MaxInt64)
			return first
		}
		c.next()
	}
	return first
}

// since returns the first version of a key at or after a revision.
func (t *tree) since(key string, rev int64) version {
	if v := t.first(key, rev); v.exists() && v.key() == key {
		return v
	}
	return version{}
}

// removeAt removes the first version of a key at a revision. It does nothing if there is none.
func (t *tree) removeAt(key string, rev int64) {
	var c cursor
	t.seek(&c, key, rev)
	if v := c.version(); v.exists() && v.modRevision() == rev && v.key() == key {
		t.remove(&c)
	}
}

// ascend visits the versions of a range.
func (t *tree) ascend(key, end string, fn func(version) bool) {
	var c cursor
	t.seek(&c, key, lowest)
	for v := c.version(); v.exists() && Contains(key, end, v.key()) && fn(v); v = c.version() {
		c.next()
	}
}
