// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie/internal/command"
)

// A Txn builds a transaction: compares, and the operations to run when all of them hold, or else.
// It is one goroutine's, and is committed once.
//
//	n.Txn(ctx).If(coterie.Compare(coterie.ModRevision(k), "=", 0)).Then(coterie.OpPut(k, v)).Commit()
//
// Unlike clientv3, misuse is reported by Commit, not by panic.
type Txn struct {
	n     *Node
	ctx   context.Context
	txn   command.Txn
	step  int // the last of if, then, else and commit that was called
	ops   int // of both branches
	local int // of them, serializable reads
	err   error
}

const (
	stepIf = iota + 1
	stepThen
	stepElse
	stepCommit
)

// Txn begins a transaction. ctx bounds its Commit.
func (n *Node) Txn(ctx context.Context) *Txn { return &Txn{n: n, ctx: ctx} }

func (t *Txn) next(step int, name string) {
	switch {
	case t.step == stepCommit:
		t.err = errors.Join(t.err, fmt.Errorf("%w: Txn.%s after Commit: begin another transaction with Node.Txn", ErrInvalidOption, name))
	case t.step == step:
		t.err = errors.Join(t.err, fmt.Errorf("%w: Txn.%s called twice: pass all that belongs to it in one call", ErrInvalidOption, name))
	case t.step > step:
		t.err = errors.Join(t.err, fmt.Errorf("%w: Txn.%s called too late: the order is If, Then, Else, Commit", ErrInvalidOption, name))
	}
	t.step = step
}

// If sets the compares, all of which must hold. None hold always.
func (t *Txn) If(cmps ...Comparison) *Txn {
	t.next(stepIf, "If")
	var err error
	t.txn.Compares, err = compares(cmps)
	t.err = errors.Join(t.err, err)
	return t
}

// Then sets the operations that run when the compares hold.
func (t *Txn) Then(ops ...Op) *Txn {
	t.next(stepThen, "Then")
	t.txn.Then = t.branch(ops)
	return t
}

// Else sets the operations that run when a compare does not hold.
func (t *Txn) Else(ops ...Op) *Txn {
	t.next(stepElse, "Else")
	t.txn.Else = t.branch(ops)
	return t
}

func (t *Txn) branch(ops []Op) []command.Op {
	out, err := operations(ops)
	t.err = errors.Join(t.err, err)
	for _, op := range ops {
		t.ops++
		if op.local {
			t.local++
		}
	}
	return out
}

// Commit runs the transaction: atomically, in one revision, on any node. Operations run in their
// order and see what those before them did. A transaction that only reads is not written anywhere;
// it is linearizable, unless every operation of it is a Get [WithSerializable].
//
// Errors: those of the operations; ErrTooManyOps, ErrDuplicateKey, ErrTooLarge, ErrInvalidOption;
// ErrNoSpace, ErrOverloaded; ErrMaybeApplied when ctx ended or the node closed while the outcome was open; ErrClosed. After
// every other error than ErrMaybeApplied nothing was changed.
func (t *Txn) Commit() (*TxnResponse, error) { return t.commit(t.ctx) }

// commit is Commit bounded by ctx, which is not the Txn's own for [Session.CommitOrUndo].
func (t *Txn) commit(ctx context.Context) (*TxnResponse, error) {
	t.next(stepCommit, "Commit")
	if err := t.check(); err != nil {
		return nil, err
	}
	op := command.Op{Txn: &t.txn}
	var resp OpResponse
	var err error
	if readOnly(&t.txn) {
		resp, err = t.read(ctx, &op)
	} else {
		resp, err = t.n.execute(ctx, Op{op: op})
	}
	return resp.Txn, err
}

// check returns why the transaction is refused before anything is asked of the cluster.
func (t *Txn) check() error {
	if t.n == nil {
		return fmt.Errorf("%w: a Txn that no Node made", ErrInvalidOption)
	}
	if t.err != nil {
		return t.err
	}
	return commandError(command.Validate(&command.Op{Txn: &t.txn}, t.n.cfg.MaxTxnOps))
}

func (t *Txn) read(ctx context.Context, op *command.Op) (OpResponse, error) {
	if t.ops == 0 || t.local < t.ops {
		return t.n.read(ctx, op, quick(&t.txn))
	}
	v, err := t.n.readView(ctx, &getOptions{serializable: true})
	if err != nil {
		return OpResponse{}, err
	}
	return t.n.executeRead(ctx, v, op, quick(&t.txn))
}

// quick reports whether a transaction of Gets looks at single keys only.
func quick(t *command.Txn) bool {
	one := func(op command.Op) bool { return op.Get.End == "" }
	return all(t.Then, one) && all(t.Else, one) && all(t.Compares, func(c command.Compare) bool { return c.End == "" })
}

func all[T any](items []T, holds func(T) bool) bool {
	return !slices.ContainsFunc(items, func(item T) bool { return !holds(item) })
}

// readOnly reports whether every operation is a Get. A nested transaction counts as a write, as in
// etcd.
func readOnly(t *command.Txn) bool {
	get := func(op command.Op) bool { return op.Get != nil }
	return all(t.Then, get) && all(t.Else, get)
}

// A TxnResponse answers [Txn.Commit].
type TxnResponse struct {
	Header
	// Succeeded reports whether the compares held, so that Then was run rather than Else.
	Succeeded bool
	// Responses answer the operations that were run, in their order.
	Responses []OpResponse
}

// An OpResponse answers one operation: the field of its kind is set. Of a nested header only
// Revision tells: the revision the operation saw or made.
type OpResponse struct {
	Put    *PutResponse
	Get    *GetResponse
	Delete *DeleteResponse
	Txn    *TxnResponse
}

// An Op is an operation of a transaction. It is immutable and may be used in many.
type Op struct {
	op    command.Op
	local bool // a Get WithSerializable
	err   error
}

// OpPut is [Node.Put] as an operation.
func OpPut(key, val string, opts ...PutOption) Op {
	p := command.Put{Key: key, Value: val}
	for _, opt := range opts {
		opt.put(&p)
	}
	return Op{op: command.Op{Put: &p}}
}

// OpGet is [Node.Get] as an operation. It sees what the operations before it did. WithSerializable
// has a meaning only where every operation has it; WithWaitRevision has none, and Commit refuses it.
func OpGet(key string, opts ...GetOption) Op {
	o, err := newGet(key, opts)
	if err == nil && o.waits {
		err = fmt.Errorf("%w: WithWaitRevision in a transaction", ErrInvalidOption)
	}
	return Op{op: command.Op{Get: &o.Get}, local: o.serializable, err: err}
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

// OpTxn nests a transaction. Its compares are evaluated, with all others, before anything is
// changed.
func OpTxn(cmps []Comparison, then, els []Op) Op {
	var t command.Txn
	var errs [3]error
	t.Compares, errs[0] = compares(cmps)
	t.Then, errs[1] = operations(then)
	t.Else, errs[2] = operations(els)
	return Op{op: command.Op{Txn: &t}, err: errors.Join(errs[:]...)}
}

func operations(ops []Op) ([]command.Op, error) {
	out := make([]command.Op, len(ops))
	var errs []error
	for i, op := range ops {
		out[i] = op.op
		errs = append(errs, op.err)
	}
	return out, errors.Join(errs...)
}
