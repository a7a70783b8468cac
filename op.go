// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie/internal/command"
)

// An Op is an operation for [Node.Do], and for the branches of a [Txn]. It is immutable and may be used
// many times.
type Op struct {
	op    command.Op
	get   *getOptions // of OpGet
	local bool        // every operation in it is a Get WithSerializable
	err   error
}

// An OpResponse answers one operation: the field of its kind is set.
type OpResponse struct {
	Put    *PutResponse    `json:"put,omitempty"`
	Get    *GetResponse    `json:"get,omitempty"`
	Delete *DeleteResponse `json:"delete,omitempty"`
	Txn    *TxnResponse    `json:"txn,omitempty"`
}

// OpPut is [Node.Put] as an operation.
func OpPut(key, val string, opts ...PutOption) Op {
	p := command.Put{Key: key, Value: val}
	for _, opt := range opts {
		opt.put(&p)
	}
	return Op{op: command.Op{Put: &p}}
}

// OpGet is [Node.Get] as an operation. In a transaction it sees the results of the operations before it.
// There WithSerializable has an effect only if every operation has it, and WithWaitRevision is refused.
func OpGet(key string, opts ...GetOption) Op {
	o := new(getOptions)
	err := readOptions(o, key, opts)
	return Op{op: command.Op{Get: &o.Get}, get: o, local: o.serializable, err: err}
}

// OpDelete is [Node.Delete] as an operation.
func OpDelete(key string, opts ...DeleteOption) Op {
	var o deleteOptions
	for _, opt := range opts {
		opt.del(&o)
	}
	var err error
	o.Key, o.End, err = o.keys.bounds(key)
	return Op{op: command.Op{Delete: &o.Delete}, err: err}
}

// OpTxn is a transaction as an operation. Inside another one, its comparisons are evaluated with all
// others, before anything is changed.
func OpTxn(cmps []Comparison, then, els []Op) Op {
	var t transaction
	err := errors.Join(t.compare(cmps), t.then(then), t.otherwise(els))
	return Op{op: command.Op{Txn: &t.Txn}, local: allLocal(then, els), err: err}
}

// A transaction is a command.Txn with memory for a few comparisons and operations, so that most are one object.
type transaction struct {
	command.Txn
	compares [1]command.Compare
	branches [2][2]command.Op
}

func (t *transaction) compare(cmps []Comparison) (err error) {
	t.Compares, err = compares(t.compares[:0], cmps)
	return err
}

func (t *transaction) then(ops []Op) (err error) {
	t.Then, err = operations(t.branches[0][:0], ops)
	return err
}

func (t *transaction) otherwise(ops []Op) (err error) {
	t.Else, err = operations(t.branches[1][:0], ops)
	return err
}

// operations appends operations to out, which is empty.
func operations(out []command.Op, ops []Op) (_ []command.Op, err error) {
	out = slices.Grow(out, len(ops))
	for i := range ops {
		op := &ops[i]
		out = append(out, op.op)
		if op.err != nil {
			err = errors.Join(err, op.err)
		}
		if op.get != nil && op.get.waits {
			err = errors.Join(err, fmt.Errorf("%w: WithWaitRevision in a transaction", ErrInvalidOption))
		}
	}
	return out, err
}

// allLocal reports whether a transaction of these branches needs nothing but this node's state.
func allLocal(then, els []Op) bool {
	local := func(op Op) bool { return op.local }
	return len(then)+len(els) > 0 && all(then, local) && all(els, local)
}

// Do executes an operation as the method of its kind does: [Node.Put], [Node.Get], [Node.Delete], or
// [Txn.Commit] for [OpTxn]. So a program can build operations in one place and execute them in another.
//
// Unlike clientv3, it takes no compaction: call [Node.Compact].
//
// Errors: those of that method; ErrInvalidOption for an Op that none of the functions made.
func (n *Node) Do(ctx context.Context, op Op) (OpResponse, error) { return n.do(ctx, nil, op) }

func (n *Node) do(ctx context.Context, as *command.As, op Op) (OpResponse, error) {
	switch {
	case op.err != nil:
		return OpResponse{}, op.err
	case op.get != nil:
		r, err := n.get(ctx, as, op.get)
		return OpResponse{Get: r}, err
	case op.op.Txn != nil:
		return n.txn(ctx, as, op)
	case op.op.Put != nil, op.op.Delete != nil:
		return n.execute(ctx, as, op)
	}
	return OpResponse{}, fmt.Errorf("%w: an Op that no function made", ErrInvalidOption)
}

// txn executes a transaction. One that only reads is not written to the log.
func (n *Node) txn(ctx context.Context, as *command.As, op Op) (OpResponse, error) {
	t := op.op.Txn
	if !readOnly(t) {
		return n.execute(ctx, as, op)
	}
	read := command.Op{Txn: t}
	if err := n.cfg.checkOp(&read); err != nil {
		return OpResponse{}, err
	}
	v, p, err := n.reads.begin(ctx, &getOptions{serializable: op.local})
	if err != nil {
		return OpResponse{}, err
	}
	return n.read(ctx, v, p, as, &read, quick(t))
}

// quick reports whether a transaction of Gets looks at single keys only.
func quick(t *command.Txn) bool {
	one := func(op command.Op) bool { return op.Get.End == "" }
	return all(t.Then, one) && all(t.Else, one) && all(t.Compares, func(c command.Compare) bool { return c.End == "" })
}

// readOnly reports whether every operation is a Get. A nested transaction counts as a write, as in
// etcd.
func readOnly(t *command.Txn) bool {
	get := func(op command.Op) bool { return op.Get != nil }
	return all(t.Then, get) && all(t.Else, get)
}

func all[T any](items []T, holds func(T) bool) bool {
	return !slices.ContainsFunc(items, func(item T) bool { return !holds(item) })
}

// opResponse returns the result of an operation in the public form. Nested headers have the revision
// alone.
func (n *Node) opResponse(op *command.Op, r *command.Result) OpResponse {
	resp := opResponse(op, r)
	header := n.header(r.Revision)
	switch {
	case resp.Put != nil:
		resp.Put.Header = header
	case resp.Get != nil:
		resp.Get.Header = header
	case resp.Delete != nil:
		resp.Delete.Header = header
	case resp.Txn != nil:
		resp.Txn.Header = header
	}
	return resp
}

func opResponse(op *command.Op, r *command.Result) OpResponse {
	header := Header{Revision: r.Revision}
	switch {
	case op.Put != nil:
		put := putResponse(r)
		return OpResponse{Put: &put}
	case op.Get != nil:
		return OpResponse{Get: &GetResponse{Header: header, KVs: keyValues(r.KVs), Count: r.Count, More: r.More}}
	case op.Delete != nil:
		return OpResponse{Delete: &DeleteResponse{Header: header, Deleted: r.Count, PrevKVs: keyValues(r.KVs)}}
	}
	return OpResponse{Txn: txnResponse(op.Txn, r)}
}

// txnResponse returns the result of a transaction in the public form. The response to a small transaction is one object, and
// the responses to the puts of a larger one are another.
func txnResponse(t *command.Txn, r *command.Result) *TxnResponse {
	small := &struct {
		TxnResponse
		responses [2]OpResponse
		puts      [1]PutResponse
	}{TxnResponse: TxnResponse{Header: Header{Revision: r.Revision}, Succeeded: r.Succeeded}}
	if len(r.Ops) == 0 {
		return &small.TxnResponse
	}
	ops := t.Else
	if r.Succeeded {
		ops = t.Then
	}
	puts := small.puts[:0]
	small.Responses = slices.Grow(small.responses[:0], len(r.Ops))
	for i := range r.Ops {
		if ops[i].Put == nil {
			small.Responses = append(small.Responses, opResponse(&ops[i], &r.Ops[i]))
			continue
		}
		if len(puts) == cap(puts) {
			puts = make([]PutResponse, 0, len(r.Ops)-i)
		}
		puts = append(puts, putResponse(&r.Ops[i]))
		small.Responses = append(small.Responses, OpResponse{Put: &puts[len(puts)-1]})
	}
	return &small.TxnResponse
}

func putResponse(r *command.Result) PutResponse {
	return PutResponse{Header: Header{Revision: r.Revision}, PrevKV: firstKeyValue(r.KVs)}
}
