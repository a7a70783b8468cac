// SPDX-License-Identifier: Apache-2.0

// Package lease implements the leases: the replicated table of granted leases and the keys attached to
// them, and the deadlines that a leader keeps. It reads no clock; callers pass the time.
package lease

import (
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/tidwall/btree"
)

// A Lease is an ID with a time to live.
type Lease struct {
	ID  int64
	TTL time.Duration
}

// Nanoseconds returns a lease with a TTL in nanoseconds, for callers that do not use package
// time.
func Nanoseconds(id, ttl int64) Lease { return Lease{id, time.Duration(ttl)} }

// An attachment is a key that is deleted when its lease ends.
type attachment struct {
	id  int64
	key string
}

// A Table is the replicated state of all leases. One goroutine changes it. A View of it never changes.
type Table struct{ View }

// A View is an immutable copy of a Table. Any number of goroutines may read it.
type View struct {
	leases *btree.BTreeG[Lease]
	keys   *btree.BTreeG[attachment] // by lease, then key
}

// NewTable returns an empty table.
func NewTable() *Table {
	options := btree.Options{NoLocks: true}
	return &Table{View{
		leases: btree.NewBTreeGOptions(func(a, b Lease) bool { return a.ID < b.ID }, options),
		keys: btree.NewBTreeGOptions(func(a, b attachment) bool {
			return a.id < b.id || a.id == b.id && a.key < b.key
		}, options),
	}}
}

// Freeze returns a view of the table. Its cost does not depend on the size of the table.
func (t *Table) Freeze() *View { return &View{leases: t.leases.Copy(), keys: t.keys.Copy()} }

// Grant adds a lease. It returns false if the ID is in use.
func (t *Table) Grant(l Lease) bool {
	if t.Has(l.ID) {
		return false
	}
	t.leases.Set(l)
	return true
}

// Remove removes a lease. The caller has detached its keys.
func (t *Table) Remove(id int64) { t.leases.Delete(Lease{ID: id}) }

// Attach attaches a key to a lease. It copies the key, which may share the memory of a value that is replaced before the
// lease ends.
func (t *Table) Attach(id int64, key string) { t.keys.Set(attachment{id, strings.Clone(key)}) }

// Detach detaches a key from a lease.
func (t *Table) Detach(id int64, key string) { t.keys.Delete(attachment{id, key}) }

// Has reports whether a lease exists.
func (v *View) Has(id int64) bool {
	_, ok := v.leases.Get(Lease{ID: id})
	return ok
}

// Len returns the number of leases.
func (v *View) Len() int { return v.leases.Len() }

// All yields the leases in the order of their IDs.
func (v *View) All() iter.Seq[Lease] {
	return func(yield func(Lease) bool) { v.leases.Scan(yield) }
}

// Keys yields the keys attached to a lease, in order.
func (v *View) Keys(id int64) iter.Seq[string] {
	return func(yield func(string) bool) {
		v.keys.Ascend(attachment{id: id}, func(a attachment) bool { return a.id == id && yield(a.key) })
	}
}

// Check verifies that keys are attached to existing leases, and calls attached with each attachment.
func (v *View) Check(attached func(id int64, key string) error) (err error) {
	v.keys.Scan(func(a attachment) bool {
		if !v.Has(a.id) {
			err = fmt.Errorf("lease: key %q is attached to lease %x, which does not exist", a.key, a.id)
		} else {
			err = attached(a.id, a.key)
		}
		return err == nil
	})
	return err
}

// Attached returns the number of attached keys.
func (v *View) Attached() int { return v.keys.Len() }
