// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
)

// A door bounds the calls that wait in a node, and the bytes of their requests. Who finds no place is
// refused at once: waiting outside would be a queue without a bound. It is entered by writes alone;
// renewals, reads, and what a leader proposes of itself do not pass here, so overload ends no lease.
type door struct {
	maxCalls, maxBytes int64
	calls, bytes       atomic.Int64
}

// reserve is the part of a door's places, one in so many, that is kept for what frees: deletions,
// revocations and compactions get in when writes that need memory do not.
const reserve = 16

func newDoor(cfg *Config) *door {
	return &door{maxCalls: int64(cfg.MaxPendingCalls), maxBytes: cfg.MaxPendingBytes}
}

// enter takes a place, which leave gives back, or says what is full.
func (d *door) enter(size int64, frees bool) error {
	maxCalls, maxBytes := d.maxCalls, d.maxBytes
	if frees {
		maxCalls += max(maxCalls/reserve, 1)
		maxBytes += max(maxBytes/reserve, size)
	}
	calls, bytes := d.calls.Add(1), d.bytes.Add(size)
	switch {
	case calls > maxCalls:
		d.leave(size)
		return &fault.LimitError{Limit: d.maxCalls, Actual: calls, Kind: ErrOverloaded, Unit: "calls wait", Field: "MaxPendingCalls"}
	case bytes > maxBytes:
		d.leave(size)
		return &fault.LimitError{Limit: d.maxBytes, Actual: bytes, Kind: ErrOverloaded, Unit: "bytes wait", Field: "MaxPendingBytes"}
	}
	return nil
}

func (d *door) leave(size int64) {
	d.calls.Add(-1)
	d.bytes.Add(-size)
}

// space returns why a write cannot be taken for lack of space, if so: in this node's log, or, for one
// that may make the store grow, in its quota.
func (n *Node) space(grows bool) error {
	if err := n.room(); err != nil {
		return err
	}
	if held := n.views.Load().KV.Bytes(); grows && n.cfg.QuotaBytes > 0 && held >= n.cfg.QuotaBytes {
		return &fault.LimitError{Limit: n.cfg.QuotaBytes, Actual: held, Kind: ErrNoSpace, Unit: "bytes held", Field: "QuotaBytes"}
	}
	return nil
}

// room returns ErrNoSpace if the system has refused to write the log for more than a moment, in which
// another node would have begun to lead. This one would not even see its own writes applied.
func (n *Node) room() error {
	if disk := n.log.Condition(); disk.Short >= n.cfg.ElectionTimeout {
		return fmt.Errorf("%w: %s cannot write its log: %w", ErrNoSpace, n.cfg.Name, disk.Lack)
	}
	return nil
}

// grows reports whether a command may make the store larger: if it puts or grants. Which branch of a
// transaction runs is known only when it does.
func grows(cmd *command.Command) bool { return cmd.Grant != nil || puts(cmd.Op) }

func puts(op command.Op) bool {
	return op.Put != nil ||
		op.Txn != nil && (slices.ContainsFunc(op.Txn.Then, puts) || slices.ContainsFunc(op.Txn.Else, puts))
}
