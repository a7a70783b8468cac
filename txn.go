// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/command"
)

// A Txn builds a transaction: comparisons, the operations to run if all of them hold, and those to run
// otherwise. One goroutine uses it, and commits it once.
//
//	n.Txn(ctx).If(coterie.Compare(coterie.ModRevision(k), coterie.Equal, 0)).Then(coterie.OpPut(k, v)).Commit()
//
// Unlike in clientv3, misuse is reported by Commit and does not panic.
type Txn struct {
	doer  Doer
	ctx   context.Context
	txn   transaction
	step  int // the last of if, then, else and commit that was called
	ops   int // number of operations in both branches
	local int // number of those that are serializable reads
	err   error
}

// A Doer executes operations: a [Node], a [Namespace], or a fake in a test.
type Doer interface {
	Do(ctx context.Context, op Op) (OpResponse, error)
}

const (
	stepIf = iota + 1
	stepThen
	stepElse
	stepCommit
)

// Txn begins a transaction. ctx bounds its Commit.
func (n *Node) Txn(ctx context.Context) *Txn { return NewTxn(ctx, n) }

// NewTxn begins a transaction. Its Commit calls d.Do with an [OpTxn]. It is for types that implement
// [KV], such as fakes; call [Node.Txn] otherwise.
func NewTxn(ctx context.Context, d Doer) *Txn { return &Txn{doer: d, ctx: ctx} }

func (t *Txn) next(step int, name string) {
	switch {
	case t.step == stepCommit:
		t.err = errors.Join(t.err, fmt.Errorf("%w: Txn.%s after Commit: begin another transaction with Node.Txn", ErrInvalidOption, name))
	case t.step == step:
		t.err = errors.Join(t.err, fmt.Errorf("%w: Txn.%s called twice: pass everything in one call", ErrInvalidOption, name))
	case t.step > step:
		t.err = errors.Join(t.err, fmt.Errorf("%w: Txn.%s called too late: the order is If, Then, Else, Commit", ErrInvalidOption, name))
	}
	t.step = step
}

// If sets the comparisons. All of them must hold; if there are none, that is so.
func (t *Txn) If(cmps ...Comparison) *Txn {
	t.next(stepIf, "If")
	t.err = errors.Join(t.err, t.txn.compare(cmps))
	return t
}

// Then sets the operations to run if the comparisons hold.
func (t *Txn) Then(ops ...Op) *Txn {
	t.next(stepThen, "Then")
	t.err = errors.Join(t.err, t.txn.then(ops))
	t.count(ops)
	return t
}

// Else sets the operations to run if a comparison does not hold.
func (t *Txn) Else(ops ...Op) *Txn {
	t.next(stepElse, "Else")
	t.err = errors.Join(t.err, t.txn.otherwise(ops))
	t.count(ops)
	return t
}

// count counts the operations of a branch.
func (t *Txn) count(ops []Op) {
	t.ops += len(ops)
	for i := range ops {
		if ops[i].local {
			t.local++
		}
	}
}

// Commit runs the transaction: atomically, in one revision, on any node. Operations run in their order,
// and see the results of those before them. A transaction that only reads is not written to the log; it
// is linearizable, unless every operation is a Get [WithSerializable].
//
// Errors: those of the operations; ErrTooManyOps, ErrDuplicateKey, ErrTooLarge, ErrInvalidOption,
// ErrNoSpace, ErrOverloaded: nothing was changed. ErrMaybeApplied when ctx ended or the node closed while
// the outcome was open; ErrClosed. After every error but ErrMaybeApplied nothing was changed.
func (t *Txn) Commit() (*TxnResponse, error) { return t.commit(t.ctx) }

// commit is Commit bounded by ctx, which is not the Txn's own for [Session.CommitOrUndo].
func (t *Txn) commit(ctx context.Context) (*TxnResponse, error) {
	t.next(stepCommit, "Commit")
	op, err := t.op()
	if err != nil {
		return nil, err
	}
	r, err := t.doer.Do(ctx, op)
	if err == nil && r.Txn == nil {
		err = fmt.Errorf("%w: %T has answered a transaction with another response", ErrInvalidOption, t.doer)
	}
	return r.Txn, err
}

// op returns the transaction as an operation, or an error if it was built wrongly.
func (t *Txn) op() (Op, error) {
	if t.doer == nil {
		return Op{}, fmt.Errorf("%w: a Txn that no Node made", ErrInvalidOption)
	}
	return Op{op: command.Op{Txn: &t.txn.Txn}, local: t.ops > 0 && t.local == t.ops}, t.err
}

// A TxnResponse answers [Txn.Commit]. The headers in Responses have a revision only: the one that the
// operation saw or made.
type TxnResponse struct {
	Header
	// Succeeded reports whether the comparisons held, so that Then was run and not Else.
	Succeeded bool `json:"succeeded"`
	// Responses answer the operations that were run, in their order.
	Responses []OpResponse `json:"responses"`
}
