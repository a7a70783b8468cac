// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/state"
)

// read evaluates op, a Get or a Txn of Gets, linearizably. A node that cannot write its log applies
// nothing, so its view may stay behind the read point: then the leader evaluates op. A leader of an
// earlier version does not know that call; then, and if it fails otherwise, the read waits for the view.
func (n *Node) read(ctx context.Context, op *command.Op, quick bool) (OpResponse, error) {
	if err := n.alive(ctx); err != nil {
		return OpResponse{}, err
	}
	p, err := n.reads.point(ctx)
	if err != nil {
		return OpResponse{}, err
	}
	for {
		if !p.reached(n.views.Load()) && n.room() != nil {
			if r, err := n.callRead(ctx, op); err == nil {
				if err := resultError(r); err != nil {
					return OpResponse{}, err
				}
				return n.opResponse(op, r), nil
			}
		}
		attempt, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
		v, err := n.views.Await(attempt, p.reached)
		cancel()
		if err == nil {
			return n.executeRead(ctx, v, op, quick)
		}
		if err := n.alive(ctx); err != nil {
			return OpResponse{}, err
		}
	}
}

// callRead has the leader evaluate a read.
func (n *Node) callRead(ctx context.Context, op *command.Op) (*command.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
	defer cancel()
	lead := n.lead.Now()
	if lead.Self || lead.Leader == 0 {
		return nil, errNotLeader
	}
	request := command.Proposal{Command: command.Command{Op: *op}}
	resp, err := n.call(ctx, lead.Leader, methodRead, request.Append(nil))
	if err != nil {
		return nil, err
	}
	return command.DecodeResult(resp)
}

// answerRead evaluates a read of another node.
func (n *Node) answerRead(ctx context.Context, req []byte) ([]byte, error) {
	if !n.lead.Now().Self {
		return nil, errNotLeader
	}
	var p command.Proposal
	if err := p.Decode(req); err != nil {
		return nil, err
	}
	op := &p.Command.Op
	if op.Get == nil && (op.Txn == nil || !readOnly(op.Txn)) {
		return nil, fmt.Errorf("%w: a read that writes", ErrInvalidOption)
	}
	if err := command.Validate(op, n.cfg.MaxTxnOps); err != nil {
		return nil, commandError(err)
	}
	v, err := n.linearizableView(ctx)
	if err != nil {
		return nil, err
	}
	r := state.Execute(v.KV, op, func() bool { return ctx.Err() != nil })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return r.Append(nil), nil
}
