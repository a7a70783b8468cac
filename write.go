// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
)

// propose makes the cluster execute cmd once, and returns the result that it had on this node.
func (n *Node) propose(ctx context.Context, cmd *command.Command) (result *command.Result, err error) {
	if cmd.Op != (command.Op{}) {
		if err := n.cfg.checkOp(&cmd.Op); err != nil {
			return nil, err
		}
	}
	size, err := command.CheckSize(cmd, n.cfg.MaxRequestBytes)
	if err != nil {
		return nil, commandError(err)
	}
	if err := n.denied(ctx, cmd); err != nil {
		return nil, err
	}
	if n.cfg.Metrics != nil {
		begin := time.Now()
		defer func() { measureProposal(n.meter, begin, err) }()
	}
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	grows := grows(cmd)
	if err := n.space(grows); err != nil {
		return nil, limitError(err)
	}
	if result, err = n.proposer.Do(ctx, cmd, size, !grows); err != nil {
		return nil, limitError(err)
	}
	return result, nil
}

// denied returns the error of a command that its user may not execute, or nil. Every node checks it again when it applies
// the command. The check here keeps such commands out of the log, where callers without permission could otherwise fill the
// disks of all nodes. This node may lag, so it catches up before it denies a command.
func (n *Node) denied(ctx context.Context, cmd *command.Command) error {
	if cmd.As == nil {
		return nil
	}
	if v := n.views.Load(); v.Auth.Permit(cmd, v.Leases) == command.OK {
		return nil
	}
	if err := n.room(); err != nil {
		return limitError(err) // it applies nothing, and so never catches up
	}
	v, err := n.latest(ctx)
	if err != nil {
		return err
	}
	return codeError(v.Auth.Permit(cmd, v.Leases))
}

// checkOp returns why a node refuses an operation before it asks the cluster, if so.
func (c *Config) checkOp(op *command.Op) error {
	return commandError(command.Validate(op, c.MaxTxnOps))
}

// space returns why there is no space for a write, if so: in this node's log, or, for a write that may make
// the store grow, in its quota.
func (n *Node) space(grows bool) error {
	if err := n.room(); err != nil {
		return err
	}
	if held := n.views.Summary().Bytes; grows && n.cfg.QuotaBytes > 0 && held >= n.cfg.QuotaBytes {
		return &fault.LimitError{Limit: n.cfg.QuotaBytes, Actual: held, Kind: ErrNoSpace, Unit: "bytes held", Field: "QuotaBytes"}
	}
	return nil
}

// grows reports whether a command may make the store larger: if it puts or grants. Which branch of a
// transaction runs is known only when it runs.
func grows(cmd *command.Command) bool { return cmd.Grant != nil || puts(cmd.Op) }

func puts(op command.Op) bool {
	return op.Put != nil ||
		op.Txn != nil && (slices.ContainsFunc(op.Txn.Then, puts) || slices.ContainsFunc(op.Txn.Else, puts))
}
