// SPDX-License-Identifier: Apache-2.0

package mvcc

import "math"

// WarmAtOnce is the number of keys that a call of Warm searches at most.
const WarmAtOnce = 16

// warmFrom is the number of versions of a tree that is too large for the processor's caches.
const warmFrom = 100_000

// Warm reads the memory that the puts of some keys are going to read, and changes nothing. In a large store, a put waits for
// one miss of the processor's caches after another. Warm searches all keys together, one level of the tree at a time, so
// that their misses overlap. The result is 0 if a search would not help. Any other result only keeps the compiler from
// removing the reads.
func (s *Store) Warm(keys []string) (sum int) {
	keys = keys[:min(len(keys), WarmAtOnce)]
	return s.live.warm(keys)
}

func (t *tree) warm(keys []string) (sum int) {
	if t.len < warmFrom || t.near(keys) {
		return 0
	}
	var nodes [WarmAtOnce]*node
	for i := range keys {
		nodes[i] = t.root
	}
	for nodes[0].kids != nil {
		for i, key := range keys {
			n := nodes[i]
			n = n.kids.nodes[n.child(key, math.MaxInt64)]
			nodes[i] = n
			// The search of the next level needs these. Nothing here depends on them, so the processor goes on with the
			// next key.
			sum += n.n + int(n.heads[fan/2])
		}
	}
	for i, key := range keys {
		n := nodes[i]
		if from, to := n.candidates(0, key); from < to {
			sum += int(n.items[to-1].byte(0))
		}
	}
	return sum
}

// near reports whether the first and the last of some keys belong to leaves with the same parent or grandparent. Puts in
// ascending order have such keys, even if many callers put them at once. The nodes that they read are in the caches, because
// the puts before them have read these nodes.
func (t *tree) near(keys []string) bool {
	if len(keys) < 2 {
		return true
	}
	n := t.root
	for n.kids != nil {
		first, last := n.child(keys[0], math.MaxInt64), n.child(keys[len(keys)-1], math.MaxInt64)
		n = n.kids.nodes[first]
		if first != last {
			return n.kids == nil || n.kids.nodes[0].kids == nil
		}
	}
	return true
}
