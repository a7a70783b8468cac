// SPDX-License-Identifier: Apache-2.0

package mvcc

import "fmt"

// A checker verifies the invariants of a view.
type checker struct {
	*View
	bytes, superseded int64
	deletions         int // the tombstones of the tree, less those of the history
}

// Check verifies that trees, versions, links, history and counters agree.
func (v *View) Check() error {
	if err := v.live.check(); err != nil {
		return fmt.Errorf("mvcc: live versions: %w", err)
	}
	if err := v.tombstones.check(); err != nil {
		return fmt.Errorf("mvcc: tombstones: %w", err)
	}
	if v.history.last() != v.revision {
		return fmt.Errorf("mvcc: history ends at %d, the revision is %d", v.history.last(), v.revision)
	}
	c := checker{View: v}
	for _, check := range []func() error{c.lives, c.deleted, c.changes} {
		if err := check(); err != nil {
			return err
		}
	}
	if c.deletions != 0 {
		return fmt.Errorf("mvcc: tree and history differ by %d tombstones", c.deletions)
	}
	if c.bytes != v.bytes || c.superseded != v.superseded {
		return fmt.Errorf("mvcc: counters say %d bytes, %d superseded; there are %d, %d", v.bytes, v.superseded, c.bytes, c.superseded)
	}
	return nil
}

// lives checks the live versions.
func (c *checker) lives() (err error) {
	last := version{}
	c.live.ascend("", fromKey, func(v version) bool {
		switch rev := v.modRevision(); {
		case v.key() == "" || v.deleted() || rev > c.revision || last.exists() && last.key() == v.key():
			err = fmt.Errorf("mvcc: live version %+v", v.keyValue())
		case rev < c.history.first:
			c.bytes += v.bytes()
		case c.at(v.place()) != v:
			err = fmt.Errorf("mvcc: history has not the live version of %q of revision %d", v.key(), rev)
		}
		last = v
		return err == nil
	})
	return err
}

// deleted checks the tombstones.
func (c *checker) deleted() (err error) {
	c.tombstones.ascend("", fromKey, func(v version) bool {
		c.deletions++
		if !v.deleted() || v.modRevision() < c.history.first || c.at(v.place()) != v {
			err = fmt.Errorf("mvcc: %+v is among the tombstones of a history from %d on", v.keyValue(), c.history.first)
		}
		return err == nil
	})
	return err
}

// changes checks the history, and that it has the superseded versions.
func (c *checker) changes() error {
	replacements := 0 // of versions that the history has
	for rev := c.history.first; rev <= c.history.last(); rev++ {
		changes := c.history.changes(rev)
		if rev > 1 && rev != c.compacted && len(changes) == 0 {
			return fmt.Errorf("mvcc: revision %d changed nothing", rev)
		}
		for i, v := range changes {
			if l := v.links(); v.modRevision() != rev || l.index != i {
				return fmt.Errorf("mvcc: history of revision %d has revision %d, and at index %d a change with index %d", rev, v.modRevision(), i, l.index)
			} else if l.pred.rev >= c.history.first {
				replacements++
			}
			if err := c.change(v); err != nil {
				return err
			}
		}
	}
	for i, replaced := range c.history.superseded() {
		for j, v := range c.history.changes(c.history.first + int64(i)) {
			live := c.live.find(v.key()) == v
			c.bytes += v.bytes()
			if !live {
				c.superseded += v.bytes()
			}
			if v.deleted() {
				c.deletions--
			}
			if replaced[j] {
				replacements--
			}
			if replaced[j] == (live || v.deleted()) {
				return fmt.Errorf("mvcc: %+v is live: %t, and was replaced: %t", v.keyValue(), live, replaced[j])
			}
		}
	}
	if replacements != 0 {
		return fmt.Errorf("mvcc: %d versions were replaced twice", replacements)
	}
	return nil
}

// change checks a change and its links.
func (c *checker) change(v version) error {
	kv, l := v.keyValue(), v.links()
	if l.pred.rev == 0 {
		if l.far.rev != 0 || c.history.before(v).exists() {
			return fmt.Errorf("mvcc: %+v has a far predecessor or replaced a version, and has no predecessor", kv)
		}
		return nil
	}
	old := c.history.before(v)
	switch {
	case !old.exists() && kv.ModRevision <= c.compacted && l.pred.rev < c.history.first:
		return nil // no revision that can be read has the predecessor
	case old.exists() && l.pred.rev < c.history.first:
		c.bytes += old.bytes()
		c.superseded += old.bytes()
	case old != c.at(l.pred):
		return fmt.Errorf("mvcc: %+v replaced another version than its predecessor", kv)
	}
	prev, found := old.found()
	if !found || prev.Key != kv.Key || prev.Deleted() || prev.ModRevision != l.pred.rev || prev.ModRevision == kv.ModRevision && l.pred.index >= l.index ||
		!kv.Deleted() && (kv.Version != prev.Version+1 || kv.CreateRevision != prev.CreateRevision) {
		return fmt.Errorf("mvcc: %+v follows %+v", kv, prev)
	}
	if kv.Deleted() {
		return nil
	}
	far := c.history.links(old, &prev).far
	if l.far != far && max(l.far.rev, far.rev) >= c.history.first {
		return fmt.Errorf("mvcc: %+v has %+v instead of %+v as its far predecessor", kv, l.far, far)
	}
	if far := c.at(l.far); far.exists() && far.keyValue().Version != kv.Version-int64(farLength(uint64(prev.Version))) {
		return fmt.Errorf("mvcc: %+v has %+v as its far predecessor", kv, far.keyValue())
	}
	return nil
}

// at returns the version at a place, which the history may not have.
func (c *checker) at(p place) version {
	if p.rev > c.revision || p.rev >= c.history.first && p.index >= len(c.history.changes(p.rev)) {
		return version{}
	}
	return c.history.at(p)
}

// superseded reports which changes a later change replaced or deleted, for each revision, by the index of a change.
func (h *history) superseded() [][]bool {
	var replaced [][]bool
	var memory []bool // for many revisions
	for r := h.first; r <= h.last(); r++ {
		changes := h.changes(r)
		if len(changes) > len(memory) {
			memory = make([]bool, max(len(changes), 4096))
		}
		replaced, memory = append(replaced, memory[:len(changes):len(changes)]), memory[len(changes):]
		for _, v := range changes {
			if pred := v.links().pred; pred.rev >= h.first {
				replaced[pred.rev-h.first][pred.index] = true
			}
		}
	}
	return replaced
}

// check verifies the order, the separators and the sizes of a tree.
func (t *tree) check() error {
	if t.root == nil {
		if t.len != 0 {
			return fmt.Errorf("%d versions, but no node", t.len)
		}
		return nil
	}
	if t.root.kids != nil && t.root.n == 1 {
		return fmt.Errorf("the root has one child")
	}
	if size := t.root.size(); int(size) != t.len {
		return fmt.Errorf("%d versions below the root, not %d", size, t.len)
	}
	if _, err := t.root.check(version{}); err != nil {
		return err
	}
	return t.root.checkHeads(version{}, version{})
}

// checkHeads verifies the heads of the nodes of a subtree, and that they skip the bytes that the separators around a node
// have in common: with more, the order of heads would be wrong, and with fewer, searches would be slower. At an end of the
// tree, one of the separators does not exist.
func (n *node) checkHeads(low, high version) error {
	skip := 0
	if low.exists() && high.exists() {
		skip = common(low.key(), high.key())
	}
	if int(n.skip) != skip {
		return fmt.Errorf("a node skips %d bytes, and the separators around it have %d in common", n.skip, skip)
	}
	for i := range n.n {
		if v := n.items[i]; v.exists() && n.heads[i] != n.head(v.key()) {
			return fmt.Errorf("%q has head %#x", v.key(), n.heads[i])
		}
		if n.kids == nil {
			continue
		}
		from, to := low, high
		if i > 0 {
			from = n.items[i]
		}
		if i+1 < n.n {
			to = n.items[i+1]
		}
		if err := n.kids.nodes[i].checkHeads(from, to); err != nil {
			return err
		}
	}
	return nil
}

// check verifies that the versions below a node are in order and not before another one. It returns the last.
func (n *node) check(last version) (version, error) {
	after := func(v version) error {
		if last.exists() && v.before(last.key(), last.modRevision()) {
			return fmt.Errorf("%q at revision %d comes after %q at %d", v.key(), v.modRevision(), last.key(), last.modRevision())
		}
		last = v
		return nil
	}
	if n.n == 0 {
		return last, fmt.Errorf("an empty node")
	}
	for i := range n.n {
		if n.kids == nil || i > 0 {
			if err := after(n.items[i]); err != nil {
				return last, err
			}
		}
		if n.kids == nil {
			continue
		}
		var err error
		if n.kids.nodes[i].kids != nil && i+1 < n.n && n.fits(i) {
			return last, fmt.Errorf("two inner nodes that fit into one") // see maxDepth
		}
		if size := n.kids.nodes[i].size(); size != n.kids.sizes[i] {
			return last, fmt.Errorf("%d versions below a child, not %d", size, n.kids.sizes[i])
		}
		if last, err = n.kids.nodes[i].check(last); err != nil {
			return last, err
		}
	}
	for _, v := range n.items[n.n:] {
		if v.exists() {
			return last, fmt.Errorf("a node keeps a version that was removed")
		}
	}
	if n.kids == nil {
		return last, nil
	}
	for _, kid := range n.kids.nodes[n.n:] {
		if kid != nil {
			return last, fmt.Errorf("a node keeps a child that was removed")
		}
	}
	if n.items[0].exists() {
		return last, fmt.Errorf("a node keeps the separator of its first child")
	}
	return last, nil
}
