// SPDX-License-Identifier: Apache-2.0

package mvcc

import "fmt"

// A checker verifies the invariants of a view.
type checker struct {
	*View
	bytes, superseded int64
	kept              int // versions of the kept history
}

// Check verifies that trees, versions, history and counters agree.
func (v *View) Check() error {
	if err := v.live.check(); err != nil {
		return fmt.Errorf("mvcc: live versions: %w", err)
	}
	if err := v.past.check(); err != nil {
		return fmt.Errorf("mvcc: past versions: %w", err)
	}
	c := checker{View: v}
	if err := c.versions(); err != nil {
		return err
	}
	if c.bytes != v.bytes || c.superseded != v.superseded {
		return fmt.Errorf("mvcc: counters say %d bytes, %d superseded; there are %d, %d", v.bytes, v.superseded, c.bytes, c.superseded)
	}
	if v.history.last() != v.revision {
		return fmt.Errorf("mvcc: history ends at %d, the revision is %d", v.history.last(), v.revision)
	}
	if err := c.changes(); err != nil {
		return err
	}
	if c.kept != 0 {
		return fmt.Errorf("mvcc: history and trees differ by %d versions", c.kept)
	}
	return nil
}

// versions checks the versions of every key, in their order.
func (c *checker) versions() (err error) {
	var prev KeyValue // the previous version of the same key
	visit := func(v version, live bool) bool {
		kv := v.keyValue()
		if kv.Key != prev.Key {
			prev = KeyValue{}
		}
		err = c.version(kv, prev, live)
		prev = kv
		return err == nil
	}
	last := version{}
	c.live.ascend(fromKey, fromKey, func(v version) bool {
		if last.exists() && last.key() == v.key() {
			err = fmt.Errorf("mvcc: key %q has two live versions", v.key())
			return false
		}
		last = v
		prev = KeyValue{}
		if past := c.past.last(v.key(), v.modRevision()+1); past.exists() && past.key() == v.key() {
			prev = past.keyValue()
		}
		return visit(v, true)
	})
	if err != nil {
		return err
	}
	prev = KeyValue{}
	last = version{}
	deletedOrLive := func() bool {
		if last.exists() && !last.deleted() && !c.live.find(last.key()).exists() {
			err = fmt.Errorf("mvcc: key %q has no live version after revision %d", last.key(), last.modRevision())
		}
		return err == nil
	}
	c.past.ascend(fromKey, fromKey, func(v version) bool {
		if last.exists() && last.key() != v.key() && !deletedOrLive() {
			return false
		}
		last = v
		return visit(v, false)
	})
	if err == nil {
		deletedOrLive()
	}
	return err
}

// version checks a version that follows another version of the same key, or none.
func (c *checker) version(kv, prev KeyValue, live bool) error {
	switch {
	case kv.Key == "" || kv.ModRevision < prev.ModRevision || kv.ModRevision > c.revision || live && kv.Deleted():
		return fmt.Errorf("mvcc: key %q has version %+v after %+v", kv.Key, kv, prev)
	case !kv.Deleted() && !prev.Deleted() && (kv.Version != prev.Version+1 || kv.CreateRevision != prev.CreateRevision):
		return fmt.Errorf("mvcc: key %q: version %d follows %d", kv.Key, kv.Version, prev.Version)
	case kv.ModRevision >= c.history.first:
		c.kept++
	case prev.Key != "":
		return fmt.Errorf("mvcc: key %q: revision %d should be compacted", kv.Key, prev.ModRevision)
	case kv.Deleted():
		return fmt.Errorf("mvcc: key %q: the tombstone of revision %d should be compacted", kv.Key, kv.ModRevision)
	}
	c.bytes += kv.bytes()
	if !live {
		c.superseded += kv.bytes()
	}
	return nil
}

// changes checks that the history has the versions of the trees.
func (c *checker) changes() (err error) {
	for rev := c.history.first; rev <= c.history.last(); rev++ {
		changes := c.history.changes(rev)
		if rev > 1 && rev != c.compacted && len(changes) == 0 {
			return fmt.Errorf("mvcc: revision %d changed nothing", rev)
		}
		for _, v := range changes {
			c.kept--
			if v.modRevision() != rev {
				return fmt.Errorf("mvcc: history of revision %d has revision %d", rev, v.modRevision())
			}
			if !c.has(v) {
				return fmt.Errorf("mvcc: key %q has no version at %d", v.key(), rev)
			}
		}
	}
	return nil
}

// has reports whether one of the trees has a version.
func (c *checker) has(v version) (has bool) {
	var at cursor
	for c.past.seek(&at, v.key(), v.modRevision()); at.version().exists() && at.version().key() == v.key(); at.next() {
		if at.version() == v {
			return true
		}
		if at.version().modRevision() > v.modRevision() {
			break
		}
	}
	return c.live.find(v.key()) == v
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
