// SPDX-License-Identifier: Apache-2.0

package stm

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie"
)

// A Tx gives the function of [Run] access to the store. It must be used by one goroutine only, and ends when the
// function returns.
type Tx struct { // the goroutine of the function owns all fields
	ctx    context.Context
	n      *coterie.Node
	ended  bool
	failed error // first error of a read

	rev      int64             // revision of all reads; 0 before the first read
	reads    map[string]int64  // mod revision of each key that was read; 0 if it was missing
	prefixes map[string]bool   // prefixes that were scanned
	writes   map[string]*write // the last write of each key
	guards   []coterie.Comparison
}

// A write is the new state of a key.
type write struct {
	op   coterie.Op
	kv   coterie.KeyValue
	gone bool
}

func newTx(ctx context.Context, n *coterie.Node) *Tx {
	return &Tx{ctx: ctx, n: n, reads: map[string]int64{}, prefixes: map[string]bool{}, writes: map[string]*write{}}
}

// Context returns the context of Run. The function should return when it ends. A nested Run with this context returns
// ErrNested.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Get returns the value of a key, and whether the key exists. If the transaction has written the key, that is its
// last write. Otherwise it is the state at the revision of the first read. The first read contacts the cluster;
// later reads use this node's copy.
//
// Errors: those of Node.Get, which end the transaction; ErrTxDone.
func (tx *Tx) Get(key string) (val string, exists bool, err error) {
	if tx.ended {
		return "", false, ErrTxDone
	}
	if w := tx.writes[key]; w != nil {
		return w.kv.Value, !w.gone, nil
	}
	kvs, err := tx.read(key)
	if err != nil {
		return "", false, err
	}
	tx.reads[key] = 0
	for _, kv := range kvs {
		tx.reads[key], val, exists = kv.ModRevision, kv.Value, true
	}
	return val, exists, nil
}

// Scan returns the keys that begin with a prefix, in order; an empty prefix returns all keys. Keys that the transaction
// wrote have only Key, Value and Lease set. The transaction conflicts with every creation, change and deletion of a key
// with this prefix. Each key that Scan finds counts towards Config.MaxTxnOps.
//
// Errors: those of Get.
func (tx *Tx) Scan(prefix string) ([]coterie.KeyValue, error) {
	if tx.ended {
		return nil, ErrTxDone
	}
	kvs, err := tx.read(prefix, coterie.WithPrefix())
	if err != nil {
		return nil, err
	}
	tx.prefixes[prefix] = true
	found := map[string]coterie.KeyValue{}
	for _, kv := range kvs {
		tx.reads[kv.Key] = kv.ModRevision
		found[kv.Key] = kv
	}
	for key, w := range tx.writes {
		switch {
		case !strings.HasPrefix(key, prefix):
		case w.gone:
			delete(found, key)
		default:
			found[key] = w.kv
		}
	}
	byKey := func(a, b coterie.KeyValue) int { return strings.Compare(a.Key, b.Key) }
	return slices.SortedFunc(maps.Values(found), byKey), nil
}

// read reads at the revision of the transaction. The first read sets it.
func (tx *Tx) read(key string, opts ...coterie.GetOption) ([]coterie.KeyValue, error) {
	if tx.rev != 0 {
		opts = append(opts, coterie.WithRevision(tx.rev), coterie.WithSerializable())
	}
	r, err := tx.n.Get(tx.ctx, key, opts...)
	if err != nil {
		if tx.failed == nil {
			tx.failed = err
		}
		return nil, err
	}
	if tx.rev == 0 {
		tx.rev = r.Revision
	}
	return r.KVs, nil
}

// Put writes a key without a lease.
//
// Errors: coterie.ErrEmptyKey, ErrTxDone.
func (tx *Tx) Put(key, val string) error { return tx.PutWithLease(key, val, 0) }

// PutWithLease writes a key and attaches it to a lease. [Run] returns coterie.ErrLeaseNotFound if the lease does not
// exist.
//
// Errors: those of Put.
func (tx *Tx) PutWithLease(key, val string, lease coterie.LeaseID) error {
	return tx.write(&write{
		op: coterie.OpPut(key, val, coterie.WithLease(lease)),
		kv: coterie.KeyValue{Key: key, Value: val, Lease: lease},
	})
}

// Delete deletes a key, whether it exists or not.
//
// Errors: those of Put.
func (tx *Tx) Delete(key string) error {
	return tx.write(&write{op: coterie.OpDelete(key), kv: coterie.KeyValue{Key: key}, gone: true})
}

func (tx *Tx) write(w *write) error {
	switch {
	case tx.ended:
		return ErrTxDone
	case w.kv.Key == "":
		return coterie.ErrEmptyKey
	}
	tx.writes[w.kv.Key] = w
	return nil
}

// If adds conditions that must hold when the transaction is committed, for example the guard of a lock. If one does not
// hold, nothing is changed and Run returns coterie.ErrNotOwner.
//
// Errors: ErrTxDone.
func (tx *Tx) If(guards ...coterie.Comparison) error {
	if tx.ended {
		return ErrTxDone
	}
	tx.guards = append(tx.guards, guards...)
	return nil
}

// commit executes the writes, if no key that was read has changed. A transaction that only read needs no commit.
func (tx *Tx) commit() (int64, error) {
	if len(tx.writes) == 0 && len(tx.guards) == 0 {
		return tx.rev, nil
	}
	cond := slices.Clone(tx.guards)
	for key, rev := range tx.reads {
		cond = append(cond, coterie.Compare(coterie.ModRevision(key), "=", rev))
	}
	for prefix := range tx.prefixes {
		cond = append(cond, coterie.Compare(coterie.ModRevision(prefix), "<", tx.rev+1).WithPrefix())
	}
	var ops, guarded []coterie.Op
	for _, key := range slices.Sorted(maps.Keys(tx.writes)) {
		ops = append(ops, tx.writes[key].op)
	}
	if len(tx.guards) > 0 { // to tell a failed guard from a conflict
		guarded = []coterie.Op{coterie.OpTxn(tx.guards, nil, nil)}
	}
	r, err := tx.n.Txn(tx.ctx).If(cond...).Then(ops...).Else(guarded...).Commit()
	switch {
	case err != nil:
		return 0, err
	case r.Succeeded:
		return r.Revision, nil
	case len(guarded) > 0 && !r.Responses[0].Txn.Succeeded:
		return 0, coterie.ErrNotOwner
	}
	return 0, errConflict
}
