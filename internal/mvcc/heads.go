// SPDX-License-Identifier: Apache-2.0

package mvcc

// A node keeps the heads of its keys in its own memory, so that a search reads the node and almost no versions. In a large
// store, each version that a search reads is a miss of the processor's caches.
//
// A head is four bytes of a key. Keys often begin with the same bytes, so the heads of a node skip the bytes that the
// separators around the node have in common. All keys between two separators begin with those bytes, and so does the key of a
// search that reaches the node. So the search need not compare them.
//
// A split makes the range of a node smaller, and the node skips more bytes. The removal of a neighbor makes the range
// larger, and the node skips fewer bytes. A node at an end of the tree skips none, because it has at most one separator.

// headBytes is the length of a head.
const headBytes = 4

// head returns the head of a key in the range of the node, padded with zeros. Of two keys in this range, the key with the
// lower head is lower. Different keys can have the same head.
func (n *node) head(key string) (head uint32) {
	rest := key[n.skip:]
	if len(rest) >= headBytes { // the loop costs more
		return uint32(rest[0])<<24 | uint32(rest[1])<<16 | uint32(rest[2])<<8 | uint32(rest[3])
	}
	for i := range headBytes {
		head <<= 8
		if i < len(rest) {
			head |= uint32(rest[i])
		}
	}
	return head
}

// set stores an item and its head.
func (n *node) set(i int, item version) { n.items[i], n.heads[i] = item, n.head(item.key()) }

// has reports whether an item has a key in the range of the node.
func (n *node) has(i int, key string) bool {
	return i < n.n && n.heads[i] == n.head(key) && n.items[i].key() == key
}

// candidates returns the part of the items, from low on, that have the head of a key in the range of the node. Items before
// it have lower keys, and items after it have higher keys.
func (n *node) candidates(low int, key string) (from, to int) {
	head := n.head(key)
	high := n.n
	for low < high {
		mid := int(uint(low+high) >> 1)
		if n.heads[mid] < head {
			low = mid + 1
		} else {
			high = mid
		}
	}
	for high < n.n && n.heads[high] == head {
		high++
	}
	return low, high
}

// setSkip changes the number of bytes that the heads skip.
func (n *node) setSkip(skip int32) {
	if n.skip == skip {
		return
	}
	n.skip = skip
	for i, item := range n.items[:n.n] {
		if item.exists() { // an inner node has no item before its first child
			n.set(i, item)
		}
	}
}

// narrow makes the heads skip all bytes that the separators around the node have in common. At an end of the tree, one of
// the separators does not exist.
func (n *node) narrow(low, high version) {
	if low.exists() && high.exists() {
		n.setSkip(int32(common(low.key(), high.key())))
	}
}

// limit makes the heads skip at most a number of bytes.
func (n *node) limit(skip int32) { n.setSkip(min(n.skip, skip)) }

// bounds returns the separators around the node of a cursor at a depth. At an end of the tree, one of them does not exist.
func (c *cursor) bounds(depth int) (low, high version) {
	for d := depth - 1; d >= 0; d-- {
		n, i := c.nodes[d], c.at[d]
		if i > 0 && !low.exists() {
			low = n.items[i]
		}
		if i+1 < n.n && !high.exists() {
			high = n.items[i+1]
		}
	}
	return low, high
}

// closeEmpty removes child i of a node, which has no items. The previous child, or else the next one, takes over its range.
// So the nodes at that edge of the neighbor's subtree can skip no more bytes than the removed child did.
func (t *tree) closeEmpty(n *node, i int) {
	skip := n.kids.nodes[i].skip
	n.close(i)
	for at := max(i-1, 0); n.n > 0 && n.kids != nil; {
		kid := t.owned(n.kids.nodes[at])
		kid.limit(skip)
		n.kids.nodes[at] = kid
		n, at = kid, 0
		if i > 0 {
			at = kid.n - 1
		}
	}
}

// common returns the number of bytes that two strings have in common at their beginning.
func common(a, b string) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
