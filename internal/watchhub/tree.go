// SPDX-License-Identifier: Apache-2.0

package watchhub

// A tree holds the watched ranges. It finds those that contain a key in time proportional to the
// logarithm of their number plus the number found. It is a treap by (key, end), in which each node has
// the greatest end in its subtree.
type tree struct {
	root *node
	seed uint64
}

type node struct {
	group       // of the range
	priority    uint64
	left, right *node
	greatest    string // end in this subtree
}

// fromKey is the end of an unbounded range.
const fromKey = "\x00"

// after reports whether end a comes after end b.
func after(a, b string) bool { return b != fromKey && beyond(a, b) }

// beyond reports whether an end comes after a key. The key may be "\x00", which means unbounded only as
// an end.
func beyond(end, key string) bool { return end == fromKey || end > key }

func (n *node) before(key, end string) bool {
	return n.key < key || n.key == key && n.end < end
}

// update recomputes the greatest end of a node.
func (n *node) update() *node {
	n.greatest = n.end
	for _, child := range []*node{n.left, n.right} {
		if child != nil && after(child.greatest, n.greatest) {
			n.greatest = child.greatest
		}
	}
	return n
}

// find returns the group of a range, or nil.
func (t *tree) find(key, end string) *group {
	for n := t.root; n != nil; {
		switch {
		case n.key == key && n.end == end:
			return &n.group
		case n.before(key, end):
			n = n.right
		default:
			n = n.left
		}
	}
	return nil
}

// insert returns the group of a range, and makes it if needed.
func (t *tree) insert(key, end string) *group {
	if g := t.find(key, end); g != nil {
		return g
	}
	// A scrambled Weyl sequence is random enough to keep the tree balanced.
	t.seed += 0x9e3779b97f4a7c15
	priority := (t.seed ^ t.seed>>32) * 0xbf58476d1ce4e5b9
	n := &node{group: group{key: key, end: end}, priority: priority}
	left, right := split(t.root, key, end)
	t.root = join(join(left, n.update()), right)
	return &n.group
}

func (t *tree) delete(key, end string) {
	t.root = remove(t.root, key, end)
}

func remove(n *node, key, end string) *node {
	switch {
	case n == nil:
		return nil
	case n.key == key && n.end == end:
		return join(n.left, n.right)
	case n.before(key, end):
		n.right = remove(n.right, key, end)
	default:
		n.left = remove(n.left, key, end)
	}
	return n.update()
}

// split separates the nodes before a range from the others.
func split(n *node, key, end string) (left, right *node) {
	if n == nil {
		return nil, nil
	}
	if n.before(key, end) {
		n.right, right = split(n.right, key, end)
		return n.update(), right
	}
	left, n.left = split(n.left, key, end)
	return left, n.update()
}

// join is the inverse of split.
func join(left, right *node) *node {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	case left.priority > right.priority:
		left.right = join(left.right, right)
		return left.update()
	}
	right.left = join(left, right.left)
	return right.update()
}

// stab calls fn with the group of every range that contains k.
func (t *tree) stab(k string, fn func(*group)) { t.root.stab(k, fn) }

func (n *node) stab(k string, fn func(*group)) {
	if n == nil || !beyond(n.greatest, k) {
		return
	}
	n.left.stab(k, fn)
	if n.key > k {
		return
	}
	if beyond(n.end, k) {
		fn(&n.group)
	}
	n.right.stab(k, fn)
}

// all calls fn with every group.
func (t *tree) all(fn func(*group)) { t.root.all(fn) }

func (n *node) all(fn func(*group)) {
	if n != nil {
		n.left.all(fn)
		fn(&n.group)
		n.right.all(fn)
	}
}
