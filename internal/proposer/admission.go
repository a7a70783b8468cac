// SPDX-License-Identifier: Apache-2.0

package proposer

import (
	"sync/atomic"

	"github.com/coterie-kv/coterie/internal/fault"
)

// An admission bounds the calls that wait in a node, and the bytes of their requests. A call that does not
// fit fails at once: letting it wait would be a queue without a bound. Only writes need admission.
// Renewals, reads, and the proposals that a leader makes itself do not, so overload ends no lease.
type admission struct {
	maxCalls, maxBytes int64
	calls, bytes       atomic.Int64
}

// reserve is the part of the bounds, one in so many, that is kept for writes that free memory: deletions,
// revocations and compactions are admitted when writes that need memory are not.
const reserve = 16

// enter admits a call, which leave ends, or returns the limit that it exceeds.
func (a *admission) enter(size int64, frees bool) error {
	maxCalls, maxBytes := a.maxCalls, a.maxBytes
	if frees {
		maxCalls += max(maxCalls/reserve, 1)
		maxBytes += max(maxBytes/reserve, size)
	}
	calls, bytes := a.calls.Add(1), a.bytes.Add(size)
	switch {
	case calls > maxCalls:
		a.leave(size)
		return &fault.LimitError{Limit: a.maxCalls, Actual: calls, Kind: fault.ErrOverloaded, Unit: "calls wait", Field: "MaxPendingCalls"}
	case bytes > maxBytes:
		a.leave(size)
		return &fault.LimitError{Limit: a.maxBytes, Actual: bytes, Kind: fault.ErrOverloaded, Unit: "bytes wait", Field: "MaxPendingBytes"}
	}
	return nil
}

func (a *admission) leave(size int64) {
	a.calls.Add(-1)
	a.bytes.Add(-size)
}
