// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
)

// A Namespace is a view of a node's keys that begin with a prefix. Its keys lack the prefix: calls add it
// to the keys, ranges and comparisons that they are given, and remove it from the keys that they return.
// No call reads or writes a key outside the prefix. A range that has no end in the namespace ends where
// the prefix does.
//
// Everything else is the cluster's: revisions, leases, and compaction. So is the limit on the size of a
// request, which counts the prefix. The key that is the prefix itself is not in the namespace, since it
// would be the empty key.
//
// A Namespace corresponds to clientv3/namespace. It has no state but the node, and is not closed. Its
// methods may be called concurrently.
type Namespace struct {
	view   *UserView // without a user, if the namespace is one of a Node
	prefix string
}

// NewNamespace returns the view of the keys of n that begin with prefix, for example "service/". Without
// a separator at its end, the prefix "a" has the keys of "ab", too. An empty prefix is the view of all
// keys.
func NewNamespace(n *Node, prefix string) *Namespace { return n.own().Namespace(prefix) }

// Put is [Node.Put] of a key in the namespace.
//
// Errors: those of Node.Put.
func (ns *Namespace) Put(ctx context.Context, key, val string, opts ...PutOption) (*PutResponse, error) {
	r, err := ns.Do(ctx, OpPut(key, val, opts...))
	return r.Put, err
}

// Get is [Node.Get] of keys in the namespace.
//
// Errors: those of Node.Get.
func (ns *Namespace) Get(ctx context.Context, key string, opts ...GetOption) (*GetResponse, error) {
	r, err := ns.Do(ctx, OpGet(key, opts...))
	return r.Get, err
}

// Delete is [Node.Delete] of keys in the namespace.
//
// Errors: those of Node.Delete.
func (ns *Namespace) Delete(ctx context.Context, key string, opts ...DeleteOption) (*DeleteResponse, error) {
	r, err := ns.Do(ctx, OpDelete(key, opts...))
	return r.Delete, err
}

// Txn begins a transaction. Its comparisons and operations, nested ones included, concern keys in the
// namespace. See [Node.Txn].
func (ns *Namespace) Txn(ctx context.Context) *Txn { return NewTxn(ctx, ns) }

// Do is [Node.Do] of an operation on keys in the namespace.
//
// Errors: those of Node.Do.
func (ns *Namespace) Do(ctx context.Context, op Op) (OpResponse, error) {
	if op.err != nil {
		return OpResponse{}, op.err
	}
	inside, err := ns.command(&op.op)
	if err != nil {
		return OpResponse{}, err
	}
	op.op = inside
	if op.get != nil {
		get := *op.get
		get.Get = *inside.Get
		op.get = &get
	}
	r, err := ns.view.Do(ctx, op)
	if err == nil {
		ns.strip(&r)
	}
	return r, err
}

// Range is [Node.Range] of keys in the namespace.
//
// Errors: those of Node.Range.
func (ns *Namespace) Range(ctx context.Context, key string, opts ...ScanOption) iter.Seq2[KeyValue, error] {
	return func(yield func(KeyValue, error) bool) {
		var o getOptions
		err := readOptions(&o, key, opts)
		if err == nil {
			o.Key, o.End = ns.bounds(o.Key, o.End)
			err = ns.view.n.scan(ctx, ns.view.as, &o, func(kv KeyValue) bool {
				kv.Key = ns.name(kv.Key)
				return yield(kv, nil)
			})
		}
		if err != nil {
			yield(KeyValue{}, err)
		}
	}
}

// Compact is [Node.Compact]: it compacts the history of the whole store.
//
// Errors: those of Node.Compact.
func (ns *Namespace) Compact(ctx context.Context, rev int64) (*CompactResponse, error) {
	return ns.view.Compact(ctx, rev)
}

// Watch is [Node.Watch] of keys in the namespace.
//
// Errors: those of Node.Watch.
func (ns *Namespace) Watch(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[WatchResponse, error] {
	w, err := ns.view.newCursor(ctx, key, opts, ns.bounds)
	events := w.sequence(err)
	return func(yield func(WatchResponse, error) bool) {
		for r, err := range events {
			r.Events = ns.stripEvents(r.Events)
			if !yield(r, err) {
				return
			}
		}
	}
}

// stripEvents returns events with the names that their keys have in the namespace. It does not change the events that it
// gets, which other watches share.
func (ns *Namespace) stripEvents(events []Event) []Event {
	events = slices.Clone(events)
	for i := range events {
		e := &events[i]
		e.KV.Key = ns.name(e.KV.Key)
		if e.PrevKV != nil {
			prev := *e.PrevKV
			prev.Key = e.KV.Key
			e.PrevKV = &prev
		}
	}
	return events
}

// WatchChan is [Node.WatchChan] of keys in the namespace.
func (ns *Namespace) WatchChan(ctx context.Context, key string, opts ...WatchOption) <-chan WatchResult {
	return sendResults(ctx, ns.view.n, ns.Watch(ctx, key, opts...))
}

// Grant is [Node.Grant]. Leases are the cluster's: keys in and outside the namespace can be attached to
// one.
//
// Errors: those of Node.Grant.
func (ns *Namespace) Grant(ctx context.Context, ttl time.Duration, opts ...GrantOption) (*GrantResponse, error) {
	return ns.view.Grant(ctx, ttl, opts...)
}

// Revoke is [Node.Revoke]: it deletes the keys outside the namespace, too.
//
// Errors: those of Node.Revoke.
func (ns *Namespace) Revoke(ctx context.Context, id LeaseID) (*RevokeResponse, error) {
	return ns.view.Revoke(ctx, id)
}

// KeepAliveOnce is [Node.KeepAliveOnce].
//
// Errors: those of Node.KeepAliveOnce.
func (ns *Namespace) KeepAliveOnce(ctx context.Context, id LeaseID) (*KeepAliveResponse, error) {
	return ns.view.KeepAliveOnce(ctx, id)
}

// KeepAlive is [Node.KeepAlive].
//
// Errors: those of Node.KeepAlive.
func (ns *Namespace) KeepAlive(ctx context.Context, id LeaseID) error {
	return ns.view.KeepAlive(ctx, id)
}

// TimeToLive is [Node.TimeToLive]. It returns the keys in the namespace only, unlike clientv3/namespace,
// which cuts the others off as well.
//
// Errors: those of Node.TimeToLive.
func (ns *Namespace) TimeToLive(ctx context.Context, id LeaseID) (*TimeToLiveResponse, error) {
	r, err := ns.view.TimeToLive(ctx, id)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, key := range r.Keys {
		if key, ok := strings.CutPrefix(key, ns.prefix); ok && key != "" {
			keys = append(keys, key)
		}
	}
	r.Keys = keys
	return r, nil
}

// Leases is [Node.Leases]: it returns all leases of the cluster.
//
// Errors: those of Node.Leases.
func (ns *Namespace) Leases(ctx context.Context) (*LeasesResponse, error) { return ns.view.Leases(ctx) }

// bounds returns a range of the namespace as a range of the store.
func (ns *Namespace) bounds(key, end string) (string, string) {
	switch end {
	case "":
	case allKeys:
		end = prefixEnd(ns.prefix)
	default:
		end = ns.prefix + end
	}
	return ns.prefix + key, end
}

// name returns a key of the store as a key of the namespace.
func (ns *Namespace) name(key string) string { return key[len(ns.prefix):] }

// command returns an operation on the namespace as one on the store. It changes nothing of op, which may
// be in use elsewhere.
func (ns *Namespace) command(op *command.Op) (out command.Op, err error) {
	switch {
	case op.Put != nil:
		put := *op.Put
		if put.Key == "" {
			return out, ErrEmptyKey
		}
		put.Key = ns.prefix + put.Key
		out.Put = &put
	case op.Get != nil:
		get := *op.Get
		get.Key, get.End = ns.bounds(get.Key, get.End)
		out.Get = &get
	case op.Delete != nil:
		del := *op.Delete
		del.Key, del.End = ns.bounds(del.Key, del.End)
		out.Delete = &del
	case op.Txn != nil:
		out.Txn, err = ns.txn(op.Txn)
	}
	return out, err
}

func (ns *Namespace) txn(t *command.Txn) (out *command.Txn, err error) {
	out = &command.Txn{Compares: make([]command.Compare, len(t.Compares))}
	for i, c := range t.Compares {
		c.Key, c.End = ns.bounds(c.Key, c.End)
		out.Compares[i] = c
	}
	if out.Then, err = ns.commands(t.Then); err != nil {
		return nil, err
	}
	if out.Else, err = ns.commands(t.Else); err != nil {
		return nil, err
	}
	return out, nil
}

func (ns *Namespace) commands(ops []command.Op) ([]command.Op, error) {
	out := make([]command.Op, len(ops))
	for i := range ops {
		var err error
		if out[i], err = ns.command(&ops[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// strip removes the prefix from the keys of a response.
func (ns *Namespace) strip(r *OpResponse) {
	switch {
	case r.Put != nil:
		ns.stripOne(r.Put.PrevKV)
	case r.Get != nil:
		ns.stripAll(r.Get.KVs)
	case r.Delete != nil:
		ns.stripAll(r.Delete.PrevKVs)
	case r.Txn != nil:
		for i := range r.Txn.Responses {
			ns.strip(&r.Txn.Responses[i])
		}
	}
}

func (ns *Namespace) stripOne(kv *KeyValue) {
	if kv != nil {
		kv.Key = ns.name(kv.Key)
	}
}

func (ns *Namespace) stripAll(kvs []KeyValue) {
	for i := range kvs {
		kvs[i].Key = ns.name(kvs[i].Key)
	}
}
