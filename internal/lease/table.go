// SPDX-License-Identifier: Apache-2.0

// Package lease has the leases: the replicated table of who was granted what and which keys are
// attached, and the deadlines that a leader keeps for them. It reads no clock: whoever asks says
// what time it is.
package lease

import (
	"fmt"
	"iter"
	"time"

	"github.com/tidwall/btree"
)

// A Lease is a time to live under an ID.
type Lease struct {
	ID  int64
	TTL time.Duration
}

// Nanoseconds returns a lease whose TTL is a number of nanoseconds, for those who do not deal in
// time.
func Nanoseconds(id, ttl int64) Lease { return Lease{id, time.Duration(ttl)} }

// An attachment is a key that ends with a lease.
type attachment struct {
	id  int64
	key string
}

// A Table is the replicated state of all leases. One goroutine changes it; a View of it never
// changes.
type Table struct{ View }

// A View is a Table as it was. Any number of goroutines may read it.
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

// Freeze returns the table as it is, at the same cost whatever it holds.
func (t *Table) Freeze() *View { return &View{leases: t.leases.Copy(), keys: t.keys.Copy()} }

// Grant adds a lease; false if its ID is in use.
func (t *Table) Grant(l Lease) bool {
	if t.Has(l.ID) {
		return false
	}
	t.leases.Set(l)
	return true
}

// Remove removes a lease, whose keys the caller has detached.
func (t *Table) Remove(id int64) { t.leases.Delete(Lease{ID: id}) }

// Attach ties a key to a lease.
func (t *Table) Attach(id int64, key string) { t.keys.Set(attachment{id, key}) }

// Detach unties it.
func (t *Table) Detach(id int64, key string) { t.keys.Delete(attachment{id, key}) }

// Has reports whether a lease exists.
func (v *View) Has(id int64) bool {
	_, ok := v.leases.Get(Lease{ID: id})
	return ok
}

// Len returns how many leases there are.
func (v *View) Len() int { return v.leases.Len() }

// All yields the leases in the order of their IDs.
func (v *View) All() iter.Seq[Lease] {
	return func(yield func(Lease) bool) { v.leases.Scan(yield) }
}

// Keys yields the keys attached to a lease, in their order.
func (v *View) Keys(id int64) iter.Seq[string] {
	return func(yield func(string) bool) {
		v.keys.Ascend(attachment{id: id}, func(a attachment) bool { return a.id == id && yield(a.key) })
	}
}

// Check verifies that keys are attached to leases that exist, and calls attached with each of them.
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

// Attached returns how many keys are attached to leases.
func (v *View) Attached() int { return v.keys.Len() }
